"""Audio through pipes: headers of every writer, bytes in any portions, nothing waited for."""

import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htdemucs import AudioEncoding, AudioError, AudioFile
from htdemucs.audio import AudioPipe, AudioWriter, PipeWriter, RawFormat, wav_probe

RATE = 8000


class Portions(io.RawIOBase):
    """Bytes that come in portions of the sizes given, the last one again and again."""

    def __init__(self, data, sizes=(1 << 20,)):
        self.data, self.sizes, self.taken = data, list(sizes), 0

    def read1(self, count):
        size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
        piece = self.data[self.taken : self.taken + min(count, size)]
        self.taken += len(piece)
        return piece


def noise(length, channels=2):
    return 0.5 * torch.rand(channels, length, generator=torch.Generator().manual_seed(3)) - 0.25


def steps(waveform):
    return (waveform * 32768).round().clamp(-32768, 32767)


def samples(waveform):
    return steps(waveform).to(torch.int16).numpy().T.astype("<i2").tobytes()


def wav(data, size, after=b""):
    head = struct.pack("<IHHIIHH", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    return (
        b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVEfmt " + head
        + b"data" + struct.pack("<I", size) + data + after
    )  # fmt: skip


def read(data, sizes=(1 << 20,), raw=None, channels=2):
    pipe = AudioPipe(Portions(data, sizes), sample_rate=RATE, channels=channels, raw=raw)
    return torch.cat(list(pipe), 1), pipe


@pytest.mark.parametrize(
    "size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0x7FFFFF00, None], ids=str
)
def test_a_wav_header_of_unknown_length_is_understood(size):
    waveform = noise(5000)
    data = samples(waveform)
    heard, pipe = read(wav(data, len(data) if size is None else size))
    assert torch.equal(heard, steps(waveform) / 32768)
    assert (pipe.source_sample_rate, pipe.source_length, pipe.warnings) == (RATE, 5000, ())


def test_an_unknown_length_may_go_on_beyond_what_the_header_says(monkeypatch):
    """FFmpeg alone would stop after 2 GB, where arecord's and sox's headers say."""
    monkeypatch.setattr(wav_probe, "_TWO_GB", 100_000)
    heard, pipe = read(wav(samples(noise(50_000)), 99_000))
    assert heard.shape == (2, 50_000)
    assert pipe.source_length == 50_000


def test_a_true_length_ends_before_what_follows():
    data = samples(noise(3000))
    heard, _ = read(wav(data, len(data), b"LIST\x08\0\0\0INFOabcd"))
    assert heard.shape == (2, 3000)


@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=8), length=st.integers(1, 9000))
def test_the_portions_of_the_bytes_change_nothing(sizes, length):
    waveform = noise(length)
    heard, pipe = read(wav(samples(waveform), 0xFFFFFFFF), sizes)
    assert torch.equal(heard, steps(waveform) / 32768)
    assert pipe.source_length == length


@pytest.mark.parametrize(
    ("kind", "dtype", "scale"),
    [
        ("u8", "u1", None), ("s16le", "<i2", 2**15), ("s16be", ">i2", 2**15),
        ("s32le", "<i4", 2**31), ("s32be", ">i4", 2**31), ("f32le", "<f4", 1), ("f32be", ">f4", 1),
        ("f64le", "<f8", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2])
def test_raw_samples(kind, dtype, scale, channels):
    waveform = noise(2000, channels)
    values = waveform * 128 + 128 if scale is None else waveform.double() * scale
    whole = values.numpy().T if kind.startswith("f") else np.rint(values.numpy().T)
    heard, _ = read(whole.astype(dtype).tobytes(), (777,), RawFormat(kind, RATE, channels))
    tolerance = 1 / 128 if scale is None else 1 / 2**15
    torch.testing.assert_close(heard, waveform.expand(2, -1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["flac", "ogg", "wav"])
def test_what_a_file_holds_comes_through_a_pipe_too(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    with AudioWriter(path, RATE, 2, AudioEncoding(kind)) as writer:
        writer.write(noise(20_000))
    whole = torch.cat(list(AudioFile(path, sample_rate=44_100)), 1)
    pipe = AudioPipe(Portions(path.read_bytes(), (500,)), sample_rate=44_100, channels=2)
    assert torch.equal(torch.cat(list(pipe), 1), whole)


def test_an_mp3_is_heard_from_its_first_sample_on(tmp_path):
    """Its end may have the encoder's padding: FFmpeg removes that only from files."""
    path = tmp_path / "song.mp3"
    with AudioWriter(path, RATE, 2, AudioEncoding("mp3")) as writer:
        writer.write(noise(20_000))
    whole = torch.cat(list(AudioFile(path)), 1)
    heard, _ = read(path.read_bytes(), (500,))
    assert 20_000 <= heard.shape[1] <= 20_000 + 2 * 1152
    assert torch.equal(heard[:, :20_000], whole)


def test_integers_in_larger_containers_are_no_noise():
    waveform = noise(1000)
    data = (waveform.double() * 2**31).round().to(torch.int64).numpy().T.astype("<i4").tobytes()
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 2, RATE, 8 * RATE, 8, 32, 22, 24, 3) + guid
    head = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", len(form)) + form
    heard, _ = read(head + b"data\xff\xff\xff\xff" + data)
    torch.testing.assert_close(heard, waveform, rtol=0, atol=2**-20)


def test_a_block_is_given_before_the_next_bytes_are_waited_for():
    source = Portions(bytes(4 * RATE * 60), (4096,))
    blocks = iter(AudioPipe(source, sample_rate=RATE, channels=2, raw=RawFormat("s16le", RATE, 2)))
    heard = 0
    for _ in range(50):
        heard += next(blocks).shape[1]
        assert source.taken / 4 - heard < RATE  # of the input not even a second is held back


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is empty"),
        (b"no audio at all, only words " * 50, "send WAV, FLAC, MP3, Ogg or raw"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:/etc/passwd\n", "standard input"),
        (wav(b"", 0xFFFFFFFF), "no audio samples"),
    ],
)
def test_what_is_no_audio_is_one_line(data, match):
    with pytest.raises(AudioError, match=match) as caught:
        read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields", [("s16", RATE, 2), ("s16le", 0, 2), ("s16le", RATE, 0), ("s16le", RATE, 65)]
)
def test_impossible_raw_formats_are_refused(fields):
    with pytest.raises(AudioError):
        RawFormat(*fields)


@pytest.mark.parametrize("channels", [1, 2, 8, 12])
@pytest.mark.parametrize(("depth", "kind"), [(16, "<i2"), (24, None), (32, "<f4")])
def test_what_is_written_has_a_header_of_unknown_length_and_every_sample(channels, depth, kind):
    waveform, written = noise(1500, channels), 0
    file = io.BytesIO()
    with PipeWriter(file, RATE, channels, depth) as writer:
        for block in waveform.split([0, 700, 800], dim=1):
            writer.write(block)
            written += block.shape[1]
            assert file.tell() >= depth // 8 * channels * written  # nothing is held back
    assert file.getvalue().startswith(b"RIFF\xff\xff\xff\xffWAVE")
    _, _, data = file.getvalue().partition(b"data\xff\xff\xff\xff")
    assert len(data) == depth // 8 * channels * 1500
    raw = io.BytesIO()
    with PipeWriter(raw, RATE, channels, depth, raw=True) as writer:
        writer.write(waveform)
    assert raw.getvalue() == data
    if kind:
        values = torch.from_numpy(np.frombuffer(data, kind).reshape(-1, channels).T.copy())
        scale = 32768 if depth == 16 else 1
        torch.testing.assert_close(values / scale, waveform, rtol=0, atol=1 / 32768)


@pytest.mark.parametrize("sizes", [(1 << 20,), (1, 7, 16)])
def test_an_mp4_file_with_its_index_at_the_end_is_named(tmp_path, sizes):
    with AudioWriter(tmp_path / "a.m4a", RATE, 2, AudioEncoding("m4a")) as writer:
        writer.write(noise(9_000))
    data = (tmp_path / "a.m4a").read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    with pytest.raises(AudioError, match=r"index is at its end; .*faststart"):
        read(data, sizes)
