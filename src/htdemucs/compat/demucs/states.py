"""`demucs.states`: a network from its file."""

from pathlib import Path
from typing import Any

from htdemucs.compat.demucs.repo import load
from htdemucs.compat.networks import AnyModel

__all__ = ["load_model"]


def load_model(
    path_or_package: str | Path | dict[str, Any],
    strict: bool = False,  # noqa: ARG001
) -> AnyModel:
    """Return the network in a file, on the CPU. Nothing in it is executed.

    Args:
        path_or_package: path of a .th or .safetensors, or what `torch.load` gave for a .th.
        strict: not used: a file must fit in any case.

    Raises:
        ModelLoadingError: the file cannot be read.
    """
    if isinstance(path_or_package, dict):
        model: AnyModel = path_or_package["klass"](
            *path_or_package["args"], **path_or_package["kwargs"]
        )
        model.load_state_dict(path_or_package["state"])
        return model
    return load(str(path_or_package))
