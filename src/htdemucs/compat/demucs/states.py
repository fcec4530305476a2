"""`demucs.states`: load a network from its file."""

from pathlib import Path
from typing import Any

from htdemucs.compat.demucs.repo import load
from htdemucs.compat.networks import PublishedModel

__all__ = ["load_model"]


def load_model(
    path_or_package: str | Path | dict[str, Any],
    strict: bool = False,  # noqa: ARG001
) -> PublishedModel:
    """Return the network in a file, on the CPU. Nothing in it is executed.

    Args:
        path_or_package: path of a .th or .safetensors, or the result of `torch.load` for a .th.
        strict: not used: a file must always match the network.

    Raises:
        ModelLoadingError: the file cannot be read.
    """
    if isinstance(path_or_package, dict):
        model: PublishedModel = path_or_package["klass"](
            *path_or_package["args"], **path_or_package["kwargs"]
        )
        model.load_state_dict(path_or_package["state"])
        return model
    return load(str(path_or_package))
