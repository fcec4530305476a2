"""Model files, package versions and machine that results depend on, and peak memory."""

import hashlib
import platform
import sys
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from htdemucs.version import __version__

PACKAGES = ("torch", "numpy", "av", "soxr")  # they can change the last digits of a sample


@dataclass(frozen=True)
class CheckpointFiles:
    """The files that a model's parameters were read from.

    Attributes:
        name: the name or path that the model was loaded by.
        files: every file that was read.
        member: index of the network among those in the files.
        checksum: `checksum` of the network when it was read.
    """

    name: str
    files: tuple[Path, ...]
    member: int = 0
    checksum: tuple[object, ...] = ()

    @cached_property
    def sha256(self) -> dict[str, str]:
        """Hash of each file by its name, computed on first access."""
        return {path.name: cached_sha256(path) for path in self.files}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, from a cache of this process if the file is unchanged."""
    status = path.stat()
    return _sha256_of(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@cache
def _sha256_of(path: Path, _status: tuple[int, ...]) -> str:
    return sha256(path)


def checksum(network: nn.Module) -> tuple[object, ...]:
    """Return the configuration, and a CRC-32 of each parameter and buffer in float32."""
    tensors = (*network.parameters(), *network.buffers())
    return network.config, *(
        zlib.crc32(x.detach().float().cpu().contiguous().numpy().data) for x in tensors
    )


def combined_sha256(hashes: dict[str, str]) -> str:
    """Return one SHA-256 for several files: that of lines `HASH  NAME`, sorted by name."""
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Return the versions of this package, Python, and the packages that results depend on."""
    packages = {name: version(name) for name in PACKAGES}
    return {"htdemucs": __version__, "python": platform.python_version(), **packages}


def machine(device: str | None) -> dict[str, Any]:
    """Return system, processor, number of threads, and the given device."""
    info: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device and device.startswith("cuda"):
        info["gpu"] = torch.cuda.get_device_name(device)
    return info


def peak_memory() -> int | None:
    """Return the peak memory of this process in bytes; None if the system does not report it."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_device_memory() -> int | None:
    """Return the peak GPU memory of PyTorch in bytes; None if no GPU is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
