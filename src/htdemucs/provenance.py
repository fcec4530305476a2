"""What results depend on, and what they took: files, versions, the machine."""

import hashlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from htdemucs import __version__
from htdemucs.weights import folder, registry

PACKAGES = ("torch", "numpy", "av", "soxr")  # what changes a sample in its last digits
FOLDER_FILES = (folder.CONFIG_FILE, folder.WEIGHTS_FILE)


def sha256(path: Path) -> str:
    """Of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined_sha256(hashes: dict[str, str]) -> str:
    """Of many files at once: of lines `HASH  NAME`, in order of the names, as sha256sum prints."""
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def weights_sha256(name: str, repo: Path | None) -> dict[str, str]:
    """Of every file that a model is made of, by the file's name.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: as `load_model`.
    """
    paths: list[Path] = []
    for member in registry.locate(name, repo).members:
        paths += [member / part for part in FOLDER_FILES] if member.is_dir() else [member]
    return {path.name: sha256(path) for path in paths}


def versions() -> dict[str, str]:
    """Of this package, Python, and the packages that matter."""
    packages = {name: version(name) for name in PACKAGES}
    return {"htdemucs": __version__, "python": platform.python_version(), **packages}


def machine(device: str | None) -> dict[str, Any]:
    """Where it ran: system, processor, device and number of threads."""
    about: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device and device.startswith("cuda"):
        about["gpu"] = torch.cuda.get_device_name(device)
    return about


def peak_memory() -> int | None:
    """Bytes of main memory this process ever held at once; None where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
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
    """Bytes of GPU memory torch ever held at once in this process; None without a GPU in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
