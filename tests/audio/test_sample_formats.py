"""Every kind of samples that FFmpeg decodes, and how many bits they have."""

import struct

import numpy as np
import pytest
import torch

from htdemucs.audio import AudioFile, ffmpeg
from htdemucs.audio.bit_depth import header_bits
from htdemucs.audio.concatenated import find_parts
from htdemucs.audio.read import open_audio
from htdemucs.errors import AudioError

VALUES = [[0.0, 0.5, -1.0, 0.25], [-0.5, 127 / 128, 0.0, -0.25]]
DSD64 = 64 * 44_100  # bits a second


def wav(path, data, bits, *, tag=1, order="<", more=b""):
    """Write a WAV file of two channels with a header by hand."""
    block = 2 * bits // 8
    form = struct.pack(order + "HHIIHH", tag, 2, 44_100, 44_100 * block, block, bits) + more
    chunks = b"WAVE"
    for kind, content in ((b"fmt ", form), (b"data", data)):
        chunks += struct.pack(order + "4sI", kind, len(content)) + content
    kind = b"RIFF" if order == "<" else b"RIFX"
    path.write_bytes(struct.pack(order + "4sI", kind, len(chunks)) + chunks)
    return path


@pytest.mark.parametrize(
    ("codec", "depth"),
    [
        *[(f"pcm_s{bits}le", min(max(bits, 16), 32)) for bits in (16, 24, 32, 64)],
        *[(f"pcm_s{bits}be", min(bits, 32)) for bits in (16, 24, 32, 64)],
        *[("pcm_u8", 16), ("pcm_s8", 16), ("pcm_f32be", 32), ("pcm_f64le", 32), ("pcm_f64be", 32)],
        *[("pcm_s16le_planar", 16), ("pcm_s24le_planar", 24), ("pcm_s8_planar", 16)],
    ],
)
def test_pcm_of_every_width(tmp_path, make_media, load, codec, depth):
    waveform = torch.tensor(VALUES)
    path = make_media(tmp_path / "a.nut", codec, [waveform])
    assert torch.equal(load(path), waveform)
    assert AudioFile(path).bit_depth == depth


def test_wav_of_64_bit_integers(tmp_path, load):
    integers = (np.array(VALUES).T * 2.0**63).clip(-(2.0**63), 2.0**63 - 1024).astype("<i8")
    path = wav(tmp_path / "a.wav", integers.tobytes(), 64)
    assert torch.allclose(load(path), torch.tensor(VALUES))
    assert AudioFile(path).codec == "pcm_s64le"


@pytest.mark.parametrize(("valid", "container"), [(16, 24), (16, 32), (20, 24), (24, 32), (32, 32)])
def test_samples_may_lie_in_larger_containers(tmp_path, load, valid, container):
    """As sound cards give them; FFmpeg goes by the bits that are valid, and gives noise."""
    integers = (np.array(VALUES).T * 2.0**31).astype("<i4").reshape(-1, 1)
    data = integers.view(np.uint8)[:, 4 - container // 8 :].tobytes()
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    more = struct.pack("<HHI", 22, valid, 3) + guid
    path = wav(tmp_path / "a.wav", data, container, tag=0xFFFE, more=more)
    assert torch.equal(load(path), torch.tensor(VALUES))
    assert AudioFile(path).bit_depth == min(max(16, -(-valid // 8) * 8), 32)


@pytest.mark.parametrize("order", [">u2", "<u2"])
@pytest.mark.parametrize("silence", [0, 300_000])
def test_dts_that_calls_itself_pcm_is_found_behind_silence(tmp_path, order, silence):
    """As on ripped CDs. FFmpeg needs four frames of it, and looks at half a megabyte."""
    header, generator = bytes.fromhex("7ffe8001fc3c7ff0a2c001380003ef7f"), np.random.default_rng(0)
    frames = b"".join(header + generator.bytes(4_080) for _ in range(50))
    data = np.frombuffer(bytes(silence) + frames, ">u2").astype(order).tobytes()
    with open_audio(wav(tmp_path / "a.wav", data, 16)) as (_, stream):
        assert stream.codec_context.name == "dca"


def test_samples_that_hold_a_sync_word_by_chance_are_pcm(tmp_path, load):
    data = np.random.default_rng(0).integers(-3_000, 3_000, (300_000, 2), dtype="<i2")
    data[1_000] = np.frombuffer(bytes.fromhex("ff1f00e8"), "<i2")
    path = wav(tmp_path / "a.wav", data.tobytes(), 16)
    assert [part.is_plain_pcm for part in find_parts(path)] == [True]
    assert torch.equal(load(path), torch.from_numpy(data.T / np.float32(2**15)))


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_big_endian_wav_files_are_read(tmp_path, load, bits):
    integers = (np.array(VALUES).T * 2.0**31).astype(">i4").reshape(-1, 1)
    data = integers.view(np.uint8)[:, : bits // 8].tobytes()
    path = wav(tmp_path / "a.wav", data, bits, order=">")
    assert torch.equal(load(path), torch.tensor(VALUES))


def test_signalling_nans_are_repaired_without_a_word_from_numpy(tmp_path):
    data = struct.pack("<4Q", 0x7FF0000000000001, 0, 0, 0x3FE0000000000000)
    audio = AudioFile(wav(tmp_path / "a.wav", data, 64, tag=3))
    assert torch.cat(list(audio), dim=1).tolist() == [[0.0, 0.0], [0.0, 0.5]]
    assert audio.warnings == ("1 invalid sample was replaced by 0",)


@pytest.mark.parametrize(("tag", "codec"), [(6, "pcm_alaw"), (7, "pcm_mulaw")])
def test_logarithmic_samples(tmp_path, load, tag, codec):
    path = wav(tmp_path / "a.wav", bytes(range(256)) * 2, 8, tag=tag)
    read = load(path)
    assert read.shape == (2, 256)
    assert 0.9 < read.abs().max() <= 1
    audio = AudioFile(path)
    assert (audio.codec, audio.bit_depth) == (codec, None)


def test_samples_that_cannot_be_converted_are_not_called_damaged(tmp_path, monkeypatch):
    def refuse(_):
        raise ValueError("Conversion to numpy array with format `s16` is not yet supported")

    monkeypatch.setattr(ffmpeg, "_to_float32", refuse)
    path = wav(tmp_path / "a.wav", bytes(400), 16)
    with pytest.raises(AudioError, match="samples of the kind s16, which cannot be read yet; conv"):
        AudioFile(path)


@pytest.mark.parametrize(("kind", "depth"), [("s16p", 16), ("s32p", 32), ("fltp", 32)])
def test_wavpack_keeps_its_depth(tmp_path, make_media, noise, load, kind, depth):
    waveform = noise(3_000)
    path = make_media(tmp_path / "a.wv", "wavpack", [waveform], format=kind)
    assert AudioFile(path).bit_depth == depth
    assert torch.allclose(load(path), waveform, atol=2.0 ** -min(depth, 24))


# The first bytes of what the wavpack, flac and FFmpeg 5.1 programs wrote.
WAVPACK = "7776706b92f200001004000044ac0000000000002256000"
ALAC = "00000024616c616300000000000010000018280a"


@pytest.mark.parametrize(
    ("codec", "header", "packet", "bits"),
    [
        ("wavpack", "", WAVPACK + "004189c14", 8),
        ("wavpack", "", WAVPACK + "00518bc14", 16),
        ("wavpack", "", WAVPACK + "00618dc14", 24),
        ("wavpack", "", WAVPACK + "00719dc14", 32),
        ("wavpack", "", "7776706b", 0),
        ("flac", "10001000002f2e003d940ac441f00000ac44", "", 32),
        ("flac", "100010000022ea002d940ac441700000ac44", "", 24),
        ("alac", ALAC, "", 24),
        ("alac", ALAC.replace("18280a", "20280a"), "", 32),
        ("alac", "00", "", 0),
        ("tta", "", "", 0),
    ],
)
def test_headers_tell_how_many_bits_are_stored(codec, header, packet, bits):
    assert header_bits(codec, bytes.fromhex(header), bytes.fromhex(packet)) == bits


def dsd(rate, samples):
    """Return bits of a wave of 1 kHz at half of full scale, by first-order noise shaping."""
    error, bits = 0.0, np.empty(samples, np.uint8)
    for index, value in enumerate(0.5 * np.sin(2 * np.pi * 1_000 * np.arange(samples) / rate)):
        error += value
        bits[index] = error >= 0
        error -= 1.0 if error >= 0 else -1.0
    return bits


def dsf(path, rate, bits):
    """Write Sony's kind of DSD file, of two equal channels."""
    block = 4_096
    data = np.packbits(bits, bitorder="little")
    data = np.pad(data, (0, -len(data) % block)).reshape(-1, 1, block).repeat(2, 1).tobytes()
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 2, 2, rate, 1, len(bits), block, 0)
    body = form + struct.pack("<4sQ", b"data", 12 + len(data)) + data
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(body), 0) + body)
    return path


def dff(path, rate, bits):
    """Write Philips' kind of DSD file, of two equal channels."""

    def chunk(kind, content):
        return struct.pack(">4sQ", kind, len(content)) + content + bytes(len(content) % 2)

    about = b"SND " + chunk(b"FS  ", struct.pack(">I", rate))
    about += chunk(b"CHNL", struct.pack(">H", 2) + b"SLFTSRGT")
    about += chunk(b"CMPR", b"DSD \x0enot compressed")
    data = np.packbits(bits, bitorder="big").repeat(2).tobytes()
    body = chunk(b"FVER", bytes([1, 5, 0, 0])) + chunk(b"PROP", about) + chunk(b"DSD ", data)
    path.write_bytes(b"FRM8" + struct.pack(">Q", 4 + len(body)) + b"DSD " + body)
    return path


@pytest.mark.parametrize("write", [dsf, dff])
@pytest.mark.parametrize(("multiple", "rate"), [(1, 352_800), (2, 705_600), (4, 705_600)])
def test_dsd_of_every_rate_is_read(tmp_path, load, write, multiple, rate):
    samples = DSD64 * multiple // 50  # 20 ms
    path = write(tmp_path / "a", multiple * DSD64, dsd(multiple * DSD64, samples))
    audio = AudioFile(path)
    assert (audio.source_sample_rate, audio.bit_depth) == (rate, 24)
    assert sum(block.shape[1] for block in audio) == audio.source_length == rate // 50
    wave = load(path, sample_rate=44_100)
    assert wave.shape == (2, 882)
    assert wave[0, 200:700].abs().max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("multiple", [8, 16])
def test_dsd_512_and_1024_are_read(tmp_path, multiple):
    bits = np.resize(np.array([0, 1], np.uint8), DSD64 * multiple // 50)
    audio = AudioFile(dsf(tmp_path / "a", multiple * DSD64, bits))
    assert audio.source_sample_rate == 705_600
    assert sum(block.shape[1] for block in audio) == 705_600 // 50
