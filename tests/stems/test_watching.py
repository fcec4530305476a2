"""A watcher hears the stems early, also out of order, and the files do not depend on it."""

import pytest
import torch

from htdemucs import AudioEncoding, OutputOptions, Separator
from htdemucs.audio import AudioWriter
from htdemucs.stems.track import ResumeKey, separate_to

LENGTH = 60_000  # samples at the tiny model's 8000 Hz


class Kept(dict):
    put = dict.__setitem__


class Curious:
    """Asks for the end of the track after its first block; keeps all that it hears."""

    def __init__(self, wish):
        self.answers, self.wish = Kept(), wish
        self.heard_blocks, self.ahead_blocks = [], []

    def begin(self, source, length, way):
        assert (source.sample_rate, length) == (8000, LENGTH)
        self._way = way

    def heard(self, start, block):
        assert start == sum(block.shape[-1] for block in self.heard_blocks)
        self.heard_blocks.append(block)
        if self.wish is not None and len(self.heard_blocks) == 1:
            self.ahead_blocks = list(self._way(self.wish))


class Stop(BaseException):
    pass


@pytest.fixture
def track(tmp_path):
    path = tmp_path / "song.wav"
    with AudioWriter(path, 8000, 2, AudioEncoding("wav")) as writer:
        writer.write(0.2 * torch.randn(2, LENGTH))
    return path


@pytest.fixture
def separate(track, tmp_path):
    options = OutputOptions(AudioEncoding("wav", 32), clip_mode="none")

    def run(separator, name, watcher=None, resumption=None):
        places = options.places(track, tmp_path / name)
        done = separate_to(
            separator, track, places, options, resumption=resumption, watcher=watcher
        )
        return {stem: path.read_bytes() for stem, path in done.files.items()}

    return run


@pytest.mark.parametrize("wish", [None, 0, 25_000, LENGTH - 1])
@pytest.mark.parametrize("shifts", [0, 2])
def test_going_ahead_changes_no_bit_and_computes_nothing_twice(
    tiny_model, separate, wish, shifts, monkeypatch
):
    separator = Separator(tiny_model, shifts=shifts)
    runs = []
    run = separator._run.__call__
    monkeypatch.setattr(
        type(separator._run), "__call__", lambda _, x, n: runs.append(n) or run(x, n)
    )
    expected = separate(separator, "plain")
    count = len(runs)
    watcher = Curious(wish)
    assert separate(separator, "watched", watcher) == expected
    assert len(runs) == 2 * count
    heard = torch.cat(watcher.heard_blocks, dim=-1)
    assert heard.shape[-1] == LENGTH
    if wish is not None:
        assert torch.equal(torch.cat(watcher.ahead_blocks, dim=-1), heard[..., wish:])


def test_after_a_stop_the_watcher_hears_all_from_the_start(tiny_model, separate, tmp_path):
    separator, resumption = Separator(tiny_model), ResumeKey(tmp_path / "spool", "key")

    class Impatient(Curious):
        def heard(self, start, block):
            super().heard(start, block)
            if start > LENGTH / 2:
                raise Stop

    with pytest.raises(Stop):
        separate(separator, "stopped", Impatient(None), resumption)
    watcher = Curious(None)
    files = separate(separator, "stopped", watcher, resumption)
    assert len(watcher.heard_blocks[0][0, 0]) > LENGTH / 2
    assert files == separate(separator, "plain")
