"""Run a command and measure its time and memory."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What limits oneDNN, torch, MKL and this package to the instructions of a build of the kernels.
_LIMITS = {
    "avx2": ("AVX2", "avx2", "AVX2"),
    "avx512": ("AVX512_CORE", "avx512", "AVX512"),
    "avx512bf16": ("AVX512_CORE_BF16", "avx512", "AVX512"),
    "amx": ("AVX512_CORE_AMX", "avx512", "AVX512"),
}
BUILDS = tuple(_LIMITS)


def limit(build: str) -> None:
    """Have later processes compute as on a CPU for which this build of the kernels is the best."""
    onednn, aten, mkl = _LIMITS[build]
    os.environ |= {
        "HTDEMUCS_KERNELS": build,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "ATEN_CPU_CAPABILITY": aten,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
    }


@dataclass(frozen=True)
class Usage:
    """Time and memory of one process."""

    seconds: float
    peak_mib: float  # greatest resident memory


def measure(command: Sequence[str | Path]) -> Usage:
    """Run a command to its end and return its usage.

    Raises:
        RuntimeError: the command failed; the message holds its output.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        text = errors.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {text}")
    return Usage(time.perf_counter() - start, usage.ru_maxrss / 1024)


def machine() -> str:
    """Return a line with the processor, its cores, and the packages' versions."""
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "?")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "htdemucs", "demucs"))
    return f"{name}, {os.cpu_count()} cores; {packages}"
