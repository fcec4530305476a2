"""The checkpoint of a run, replaced atomically."""

import shutil
from pathlib import Path
from typing import Any

import torch

from htdemucs.errors import CheckpointError
from htdemucs.fsutil import atomic_write

FILE = "checkpoint.pt"
KEPT = "checkpoint-*.pt"


def save(folder: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Replace the folder's checkpoint; if this is interrupted, the old one stays.

    With `keep` above 1, the latest ones are also kept, as `checkpoint-STEP.pt`.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    try:
        # A file that Python writes: for a path, torch does not say why writing failed.
        with atomic_write(folder / FILE) as partial, partial.open("wb") as file:
            torch.save(state, file)
        if keep > 1:
            _keep_copy(folder, state["step"], keep)
    except RuntimeError as error:  # raised by torch when it closes a file that it could not write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _keep_copy(folder: Path, step: int, keep: int) -> None:
    """Keep the checkpoint as `checkpoint-STEP.pt`; delete the oldest, and those of later steps."""
    kept = {
        int(path.stem.rpartition("-")[2]): path for path in folder.glob(KEPT) if _has_step(path)
    }
    kept[step] = folder / f"checkpoint-{step}.pt"
    with atomic_write(kept[step]) as partial:
        try:
            partial.hardlink_to(folder / FILE)
        except OSError:  # the file system has no links
            shutil.copyfile(folder / FILE, partial)
    valid = sorted(n for n in kept if n <= step)[-keep:]
    for number, path in kept.items():
        if number not in valid:
            path.unlink(missing_ok=True)


def _has_step(path: Path) -> bool:
    return path.stem.rpartition("-")[2].isdecimal()


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
