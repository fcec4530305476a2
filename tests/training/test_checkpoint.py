import errno
import os
from pathlib import Path

import pytest
import torch

from htdemucs.errors import CheckpointError
from htdemucs.training import checkpoint


def test_a_crash_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"step": 1, "model": {"x": torch.ones(2)}})

    def torn(_state, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, {"step": 2})
    assert checkpoint.load(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_is_the_systems_error(tmp_path, monkeypatch):
    """As torch meets it: a write fails, and then closing the file, with another error."""
    checkpoint.save(tmp_path, {"step": 1})
    open_file = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr(Path, "open", lambda path, *mode: Full(open_file(path, *mode)))
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(tmp_path, {"step": 2, "model": {"x": torch.zeros(10_000)}})
    monkeypatch.undo()
    assert checkpoint.load(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoints_that_are_none(tmp_path):
    assert checkpoint.load(tmp_path) is None
    path = tmp_path / "checkpoint.pt"
    for content in (b"", b"nonsense", None):
        if content is None:
            torch.save({"weights": 1}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt is"):
            checkpoint.load(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_the_latest_checkpoints_are_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError()))
    (tmp_path / "checkpoint-mine.pt").touch()
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, {"step": step}, keep=2)
    names = {"checkpoint.pt", "checkpoint-3.pt", "checkpoint-4.pt", "checkpoint-mine.pt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    (tmp_path / "checkpoint-3.pt").replace(tmp_path / "checkpoint.pt")  # to go back
    assert checkpoint.load(tmp_path)["step"] == 3
    checkpoint.save(tmp_path, {"step": 3}, keep=2)  # the run continues from there
    assert not (tmp_path / "checkpoint-4.pt").exists()
