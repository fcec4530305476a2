"""Checkpoints of a run: written whole, the last good one kept until the next is."""

from pathlib import Path
from typing import Any

import torch

from htdemucs.errors import CheckpointError
from htdemucs.files import replacing

FILE = "checkpoint.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint; whatever interrupts this, a whole one stays."""
    with replacing(folder / FILE) as partial:
        torch.save(state, partial)


def load(folder: Path) -> dict[str, Any] | None:
    """The folder's checkpoint, or None where there is none yet.

    Raises:
        CheckpointError: damaged. It executes nothing from the file.
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
