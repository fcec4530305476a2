"""Checkpoints of a run: each replaces the one before only once it is whole."""

from pathlib import Path
from typing import Any

import torch

from htdemucs.errors import CheckpointError
from htdemucs.fsutil import atomic_write

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint. An interruption leaves the old one as it was."""
    with atomic_write(folder / FILE) as partial:
        torch.save(state, partial)


def load(folder: Path) -> dict[str, Any] | None:
    """Return the folder's checkpoint, or None if there is none; execute nothing from it.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive surfaces as almost anything
        raise CheckpointError(f"{path} is damaged; delete it to start the run again") from error
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a training run")
    return state
