"""The checkpoint of a run, replaced atomically."""

from pathlib import Path
from typing import Any

import torch

from htdemucs.errors import CheckpointError
from htdemucs.fsutil import atomic_write

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; if this is interrupted, the old one stays."""
    with atomic_write(folder / FILE) as partial:
        torch.save(state, partial)


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
