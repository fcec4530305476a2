"""The table of formats agrees with FFmpeg, and a new row is all that a new format needs."""

import av
import pytest
import torch

from htdemucs.audio import AudioEncoding, Tags, write_tags
from htdemucs.formats import (
    AUDIO_EXTENSIONS,
    FORMATS,
    SEEKABLE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    AudioFormat,
    Codec,
)


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_ffmpeg_has_every_codec_container_and_rate(row):
    assert row.muxer in av.formats_available
    for codec in row.codecs:
        encoder = av.Codec(codec.encoder, "w")
        assert codec.sample_format in [known.name for known in encoder.audio_formats]
        if encoder.audio_rates:
            assert set(row.sample_rates) <= set(encoder.audio_rates)


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_defaults_and_menus_are_within_the_limits(row):
    assert list(row.bit_depths) == sorted(row.bit_depths)
    assert list(row.sample_rates) == sorted(row.sample_rates)
    assert (row.default_bitrate is None) == (not row.bitrates)
    for bitrate in filter(None, (row.default_bitrate, *row.usual_bitrates)):
        assert bitrate in row.bitrates


def test_what_is_written_can_be_read_from_folders():
    assert {f".{name}" for name in FORMATS} <= AUDIO_EXTENSIONS
    assert set(SEEKABLE_EXTENSIONS) <= AUDIO_EXTENSIONS
    assert not AUDIO_EXTENSIONS & VIDEO_EXTENSIONS


@pytest.mark.parametrize(
    ("name", "bits", "nearest"),
    [("wav", 16, 16), ("wav", 20, 24), ("wav", 32, 32), ("flac", 32, 24), ("mp3", 24, 24)],
)
def test_the_nearest_bit_depth_holds_the_samples_if_one_does(name, bits, nearest):
    assert FORMATS[name].nearest_bit_depth(bits) == nearest


@pytest.mark.parametrize("bits", [16, 24])
def test_a_new_format_needs_one_row(tmp_path, noise, store, load, monkeypatch, bits):
    codecs = (Codec("wavpack", "s16p", 16), Codec("wavpack", "s32p", 24))
    row = AudioFormat("wv", "WavPack", "audio/x-wavpack", "wv", codecs, tags=None)
    monkeypatch.setitem(FORMATS, "wv", row)
    waveform = (noise(5_000) * 2 ** (bits - 1)).round() / 2 ** (bits - 1)
    path = store(tmp_path / "a.wv", waveform, AudioEncoding("wv", bit_depth=bits))
    assert torch.equal(load(path), waveform)
    assert not write_tags(Tags({"title": ["Song"]}), path, format="wv")
