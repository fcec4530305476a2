"""Compiles the kernels of `htdemucs.fast` when the package is built or installed.

If there is no C++ compiler, the package is installed without kernels and uses torch's operations.
"""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOM = Path("src/htdemucs/fast")
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC"]
AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
MACOS = "11.0"  # the oldest with Apple's own processors


class Target(NamedTuple):
    """One kind of machine: flags by instruction set, for OpenMP, for linking; the wheel's tag."""

    builds: dict[str, list[str]]
    openmp: list[str]
    link: list[str]
    tag: str


# Not linked to an OpenMP library: the kernels use the one that torch has loaded, so that there is
# one pool of threads. Elsewhere, as on Windows, torch's operations are used.
TARGETS = {
    ("linux", "x86_64"): Target(
        {
            "avx2": ["-mfma", "-mavx2"],
            "avx512": AVX512,
            "avx512bf16": [*AVX512, "-mavx512bf16"],
            "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
        },
        ["-fopenmp"],
        ["-shared"],
        "linux_x86_64",
    ),
    ("linux", "aarch64"): Target({"neon": []}, ["-fopenmp"], ["-shared"], "linux_aarch64"),
    ("darwin", "arm64"): Target(
        {"neon": [f"-mmacosx-version-min={MACOS}"]},
        ["-Xclang", "-fopenmp"],
        ["-shared", "-undefined", "dynamic_lookup"],
        f"macosx_{MACOS.replace('.', '_')}_arm64",
    ),
}


class KernelsBuildHook(BuildHookInterface):
    """Compiles one shared library for each instruction set; `fast.kernels` loads the best one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile the kernels and add them to the wheel. Hatchling calls this before it packs."""
        target = TARGETS.get((sys.platform, platform.machine()))
        if self.target_name != "wheel" or target is None:
            return
        with ThreadPoolExecutor() as pool:
            built = pool.map(lambda build: self._compile(build, target), target.builds)
            libraries = [path for path in built if path]
        if libraries:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{target.tag}"
            build_data["force_include"] |= {
                str(path): f"htdemucs/fast/{path.name}" for path in libraries
            }

    def _compile(self, build: str, target: Target) -> Path | None:
        room = Path(self.root) / ROOM
        library = room / f"kernels_{build}.so"
        partial = library.with_suffix(f".{os.getpid()}.partial")
        object_file = partial.with_suffix(".o")
        compiler = os.environ.get("CXX", "c++")
        source = room / "native" / "kernels.cpp"
        flags = [*FLAGS, *target.openmp, *target.builds[build]]
        try:
            for command in (
                [compiler, *flags, "-c", source, "-o", object_file],
                [compiler, *target.link, object_file, "-o", partial],
            ):
                subprocess.run(command, check=True, capture_output=True, text=True)
            partial.replace(library)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(
                f"htdemucs: no {build} kernels, so separation will be slower: {reason}"
            )
            return None
        finally:
            object_file.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
        return library
