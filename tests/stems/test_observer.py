"""An observer gets stems early, also out of order, and the files do not depend on it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from htdemucs import AudioEncoding, OutputOptions, Separator
from htdemucs.audio import AudioFile, AudioWriter, SampleCache
from htdemucs.stems.first_pass import ResumeKey
from htdemucs.stems.observer import CachedMixture
from htdemucs.stems.track import separate_track

LENGTH = 30_000  # samples at the tiny model's 8000 Hz


class Cache(dict):
    put = dict.__setitem__


class Seeking:
    """Requests the track from sample `seek` on after the first block, and collects all blocks."""

    def __init__(self, seek):
        self.outputs, self.seek = Cache(), seek
        self.blocks, self.later_blocks = [], []

    def on_start(self, source, length, stream_from):
        assert (source.sample_rate, length) == (8000, LENGTH)
        self._stream_from = stream_from

    def on_block(self, start, block):
        assert start == sum(block.shape[-1] for block in self.blocks)
        self.blocks.append(block)
        if self.seek is not None and len(self.blocks) == 1:
            later = list(self._stream_from(self.seek))
            self.later_blocks = [stems for stems, _ in later]
            self.later_mixture = torch.cat([mixture for _, mixture in later], dim=-1)


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

    def run(separator, name, observer=None, resume=None):
        paths = options.output_paths(track, tmp_path / name)
        result = separate_track(separator, track, paths, options, resume=resume, observer=observer)
        return {stem: Path(path).read_bytes() for stem, path in result.files.items()}

    return run


@pytest.mark.parametrize("seek", [None, 0, 12_500, LENGTH - 1])
@pytest.mark.parametrize("shifts", [0, 2])
def test_seeking_changes_no_bit_and_computes_nothing_twice(
    tiny_model, separate, track, seek, shifts, monkeypatch
):
    separator = Separator(tiny_model, shifts=shifts)
    runs = []
    run = separator._runner._run
    monkeypatch.setattr(separator._runner, "_run", lambda x, n: runs.append(n) or run(x, n))
    expected = separate(separator, "plain")
    count = len(runs)
    observer = Seeking(seek)
    assert separate(separator, "observed", observer) == expected
    assert len(runs) == 2 * count
    blocks = torch.cat(observer.blocks, dim=-1)
    assert blocks.shape[-1] == LENGTH
    if seek is not None:
        assert torch.equal(torch.cat(observer.later_blocks, dim=-1), blocks[..., seek:])
        mixture = torch.cat(list(AudioFile(track)), dim=-1)
        assert torch.equal(observer.later_mixture, mixture[:, seek:])


def test_blocks_long_before_a_part_are_not_read(tmp_path):
    """A seek to the end of a long track must not wait for all that is before."""
    source = SimpleNamespace(channels=2, sample_rate=10)
    with SampleCache(tmp_path, 1) as cache:
        whole = torch.randn(2, 95)
        for second in whole.split(10, dim=-1):
            cache.write(second.reshape(1, -1))
        mixture = CachedMixture(cache, source)
        assert torch.equal(torch.cat(list(mixture), dim=-1), whole)
        near = torch.cat(list(mixture.blocks_near(37)), dim=-1)
        assert not near[:, :30].any()
        assert torch.equal(near[:, 30:], whole[:, 30:])
        assert torch.equal(torch.cat(list(mixture.samples(37)), dim=-1), whole[:, 37:])


def test_after_a_stop_the_observer_gets_all_blocks_from_the_start(tiny_model, separate, tmp_path):
    separator, resume = Separator(tiny_model), ResumeKey(tmp_path / "cache", "key")

    class Stopping(Seeking):
        def on_block(self, start, block):
            super().on_block(start, block)
            if start > LENGTH / 2:
                raise Stop

    with pytest.raises(Stop):
        separate(separator, "stopped", Stopping(None), resume)
    observer = Seeking(None)
    files = separate(separator, "stopped", observer, resume)
    assert len(observer.blocks[0][0, 0]) > LENGTH / 2
    assert files == separate(separator, "plain")
