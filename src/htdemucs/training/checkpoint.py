"""The checkpoint of a run, replaced atomically."""

from pathlib import Path
from typing import Any

import torch

from htdemucs.errors import CheckpointError
from htdemucs.fsutil import atomic_write

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; if this is interrupted, the old one stays.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    try:
        # A file that Python writes: for a path, torch does not say why writing failed.
        with atomic_write(folder / FILE) as partial, partial.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # raised by torch when it closes a file that it could not write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def load(folder: Path) -> dict[str, Any] | None:
    """Return the folder's checkpoint, or None; no code in it is executed.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive can raise anything
        raise CheckpointError(f"{path} is damaged; delete it to start the run again") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of a training run")
    return state
