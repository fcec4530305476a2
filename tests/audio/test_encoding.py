import pytest

from htdemucs.audio import AudioEncoding
from htdemucs.errors import AudioError
from htdemucs.formats import FORMATS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "wma"}, "unknown format 'wma'; choose from wav, flac, mp3, ogg, opus, m4a"),
        ({"format": "wav", "bit_depth": 20}, "wav cannot hold 20 bit; choose 16 or 24 or 32"),
        ({"format": "flac", "bit_depth": 32}, "flac cannot hold 32 bit; choose 16 or 24"),
        ({"format": "flac", "bitrate": 320}, "flac has no bitrate to choose"),
        ({"format": "ogg", "bitrate": 320}, "ogg has no bitrate to choose"),
        ({"format": "mp3", "bitrate": 321}, "mp3 cannot have 321 kbit/s; choose 8 to 320"),
        ({"format": "mp3", "mp3_preset": 1}, "there is no mp3 preset 1; choose 2 to 7"),
    ],
)
def test_refuses_what_cannot_be_written(options, words):
    with pytest.raises(AudioError, match=words):
        AudioEncoding(**options)


def test_extension_is_the_format():
    assert [AudioEncoding(name).extension for name in FORMATS] == list(FORMATS)


def test_lossy_formats_ignore_the_bit_depth():
    assert AudioEncoding("mp3", bit_depth=32).codec == AudioEncoding("mp3").codec


@pytest.mark.parametrize(
    ("name", "sample_rate", "stored"),
    [
        ("wav", 192_000, 192_000),
        ("mp3", 44_100, 44_100),
        ("mp3", 96_000, 48_000),
        ("mp3", 44_056, 44_100),
        ("mp3", 4_000, 8_000),
        ("opus", 44_100, 48_000),
        ("opus", 96_000, 48_000),
        ("m4a", 96_000, 96_000),
        ("m4a", 192_000, 96_000),
    ],
)
def test_stored_rate_is_the_lowest_that_loses_nothing(name, sample_rate, stored):
    assert AudioEncoding(name).stored_rate(sample_rate) == stored


def test_wav_files_may_pass_4_gb():
    assert AudioEncoding("wav").muxer_options(44_100)["rf64"] == "auto"
