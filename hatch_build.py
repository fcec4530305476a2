"""Compiles the kernels of `htdemucs.fast` when the package is built or installed.

If there is no C++ compiler, the package is installed without kernels and uses torch's operations.
"""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOM = Path("src/htdemucs/fast")
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-fopenmp"]
AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
BUILDS = {
    "avx2": ["-mfma", "-mavx2"],
    "avx512": AVX512,
    "avx512bf16": [*AVX512, "-mavx512bf16"],
}


class KernelsBuildHook(BuildHookInterface):
    """Compiles one shared library for each instruction set; `fast.kernels` loads the best one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile the kernels and add them to the wheel. Hatchling calls this before it packs."""
        if self.target_name != "wheel" or platform.machine() not in ("x86_64", "AMD64"):
            return
        if sys.platform != "linux":
            return
        with ThreadPoolExecutor() as pool:
            libraries = [path for path in pool.map(self._compile, BUILDS) if path]
        if libraries:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{platform.machine()}"
            build_data["force_include"] |= {
                str(path): f"htdemucs/fast/{path.name}" for path in libraries
            }

    def _compile(self, build: str) -> Path | None:
        room = Path(self.root) / ROOM
        target = room / f"kernels_{build}.so"
        partial = target.with_suffix(f".{os.getpid()}.partial")
        compiler = os.environ.get("CXX", "c++")
        source = room / "native" / "kernels.cpp"
        # Not linked to an OpenMP library: the kernels use the one that torch has loaded, so that
        # there is one pool of threads.
        object_file = partial.with_suffix(".o")
        try:
            subprocess.run(
                [compiler, *FLAGS, *BUILDS[build], "-c", source, "-o", object_file],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            subprocess.run(
                [compiler, "-shared", object_file, "-o", partial],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            partial.replace(target)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(
                f"htdemucs: no {build} kernels, so separation will be slower: {reason}"
            )
            return None
        finally:
            object_file.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
        return target
