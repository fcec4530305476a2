"""`demucs.states`: a network from its file."""

from pathlib import Path

from htdemucs.compat.demucs.repo import load
from htdemucs.compat.networks import AnyModel

__all__ = ["load_model"]


def load_model(path_or_package: str | Path, strict: bool = False) -> AnyModel:  # noqa: ARG001
    """Return the network in a file, on the CPU. Nothing in it is executed.

    Args:
        path_or_package: of a .th or .safetensors.
        strict: not used: a file must fit in any case.

    Raises:
        ModelLoadingError: the file cannot be read.
    """
    if not isinstance(path_or_package, str | Path):
        raise TypeError("pass the path of the file, not what torch.load gives")
    return load(str(path_or_package))
