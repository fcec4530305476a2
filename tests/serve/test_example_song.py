"""The example song of the page: a file of the package, with bars from its first sample on."""

from importlib.resources import files

import torch

from htdemucs.audio import AudioFile, read_tags

SONG = files("htdemucs") / "serve" / "page" / "example.opus"
SECONDS_A_BAR = 2.4


def test_bar_1_begins_with_the_file():
    samples = torch.cat(list(AudioFile(SONG)), dim=1)
    loud = (samples.abs().amax(dim=0) > 0.1).nonzero()[:, 0] / 48_000
    assert loud[0] < 0.005
    assert 23 * SECONDS_A_BAR < loud[-1] < 25 * SECONDS_A_BAR
    assert samples.abs().max() < 1


def test_it_is_small_stereo_and_has_tags():
    song = AudioFile(SONG)
    assert (song.codec, song.sample_rate, song.channels) == ("opus", 48_000, 2)
    assert SONG.stat().st_size < 700_000
    assert read_tags(SONG).fields == {"title": ["Example song"], "artist": ["htdemucs"]}
