import os
import struct
from math import sqrt

import pytest
import torch

from htdemucs.audio import AudioEncoding, AudioFile, reblock
from htdemucs.errors import AudioError

FLAC = AudioEncoding("flac")


def wav_header(sample_rate, data=b""):
    """A mono 16-bit WAV file."""
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    chunk += struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunk), b"WAVE") + chunk


def test_says_what_the_file_is_and_what_it_delivers(tmp_path, noise, store):
    path = store(tmp_path / "a.flac", noise(30_000), AudioEncoding("flac", bit_depth=24), 96_000)
    audio = AudioFile(path, sample_rate=44_100, channels=1)
    assert audio.path == path
    assert (audio.source_sample_rate, audio.source_channels) == (96_000, 2)
    assert (audio.sample_rate, audio.channels) == (44_100, 1)
    assert (audio.codec, audio.bit_depth) == ("flac", 24)
    assert audio.duration == pytest.approx(30_000 / 96_000)
    assert audio.source_length == 0
    [block] = audio
    assert block.dtype == torch.float32
    assert block.shape == (1, 13_781)  # 13781.25
    assert audio.source_length == 30_000


def test_bit_depth_is_known_for_lossless_codecs(tmp_path, noise, store, encoding):
    audio = AudioFile(store(tmp_path / "a", noise(5_000), encoding))
    assert audio.bit_depth == (encoding.bit_depth if encoding.format in ("wav", "flac") else None)


def test_blocks_are_a_second_long_and_can_be_read_again(tmp_path, noise, store):
    waveform = noise(20_001)
    audio = AudioFile(store(tmp_path / "a", waveform, AudioEncoding(bit_depth=32), 8_000))
    first = iter(audio)
    next(first)
    for _ in range(2):
        blocks = list(audio)
        assert [block.shape[1] for block in blocks] == [8_000, 8_000, 4_001]
        assert torch.equal(torch.cat(blocks, dim=1), waveform)
    assert torch.equal(next(first), waveform[:, 8_000:16_000])


@pytest.mark.parametrize("lengths", [[], [0], [5], [6], [1, 0, 3, 20, 2], [3, 3, 6], [12]])
def test_reblock_keeps_samples_and_gives_no_empty_block(lengths):
    waveform = torch.arange(float(sum(lengths)))[None]
    blocks = list(reblock(waveform.split(lengths, dim=1), 6))
    assert [block.shape[1] for block in blocks[:-1]] == [6] * (len(blocks) - 1)
    assert all(0 < block.shape[1] <= 6 for block in blocks)
    assert torch.equal(torch.cat([waveform[:, :0], *blocks], dim=1), waveform)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 48_000, 96_000])
def test_resampled_length_is_exact(tmp_path, noise, store, load, sample_rate):
    path = store(tmp_path / "a", noise(50_001), AudioEncoding())
    expected = (2 * 50_001 * sample_rate + 44_100) // (2 * 44_100)
    assert load(path, sample_rate=sample_rate).shape == (2, expected)


def test_one_sample(tmp_path, store, load):
    path = store(tmp_path / "a", torch.tensor([[0.5], [-0.25]]), AudioEncoding())
    assert torch.equal(load(path), torch.tensor([[0.5], [-0.25]]))
    assert load(path, sample_rate=96_000).shape == (2, 2)


@pytest.mark.parametrize("sample_format", ["pcm_u8", "pcm_s32le", "pcm_f64le", "pcm_s16be"])
def test_integer_and_float_formats(tmp_path, make_media, load, sample_format):
    waveform = torch.tensor([[0.0, 0.5, -1.0, 0.25], [-0.5, 127 / 128, 0, -0.25]])
    path = make_media(tmp_path / "a.mov", sample_format, [waveform])
    assert torch.equal(load(path), waveform)


@pytest.mark.parametrize(
    ("name", "codec", "video"),
    [("a.mp4", "aac", True), ("a.mkv", "aac", True), ("a.avi", "libmp3lame", True)],
)
def test_video_files_give_their_sound(tmp_path, noise, make_media, load, name, codec, video):
    waveform = noise(30_000)
    read = load(make_media(tmp_path / name, codec, [waveform], video=video))
    assert abs(read.shape[1] - 30_000) < 2_400  # other muxers do not store the exact length
    spectrum = torch.fft.rfft(read[0], 65_536) * torch.fft.rfft(waveform[0], 65_536).conj()
    lag = int(torch.fft.irfft(spectrum).argmax())
    assert lag == (1_105 if codec == "libmp3lame" else 0)  # AVI cannot tell the encoder's delay


def test_of_several_streams_the_first_is_read(tmp_path, noise, make_media, load):
    streams = [noise(8_000, seed=seed) for seed in range(3)]
    read = load(make_media(tmp_path / "a.mkv", "pcm_f32le", streams))
    assert torch.equal(read, streams[0])


def test_surround_is_mixed_down(tmp_path, noise, make_media, load):
    waveform = noise(5_000, channels=6)
    path = make_media(tmp_path / "a.mov", "pcm_f32le", [waveform], layout="5.1")
    assert torch.equal(load(path), waveform)
    left, right, centre, _, back_left, back_right = waveform
    stereo = torch.stack(
        [left + sqrt(0.5) * (centre + back_left), right + sqrt(0.5) * (centre + back_right)]
    )
    assert torch.allclose(load(path, channels=2), stereo, atol=1e-6)
    assert torch.allclose(load(path, channels=1), stereo.mean(0, keepdim=True), atol=1e-6)


def test_eight_planar_channels(tmp_path, noise, make_media, load):
    waveform = noise(5_000, channels=8)
    read = load(make_media(tmp_path / "a.m4a", "aac", [waveform], layout="7.1"))
    assert read.shape == waveform.shape
    assert (read[0] - waveform[0]).square().mean() < 0.1 * waveform[0].square().mean()


def test_sample_rate_and_channels_may_change_inside_a_file(tmp_path, noise, make_media, load):
    parts = []
    for layout, sample_rate in (("stereo", 44_100), ("mono", 22_050), ("stereo", 48_000)):
        waveform = noise(20_480, channels=1 if layout == "mono" else 2)
        path = make_media(
            tmp_path / "part.aac", "aac", [waveform], layout=layout, sample_rate=sample_rate
        )
        parts.append((path.read_bytes(), load(path, sample_rate=44_100, channels=2)))
    path = tmp_path / "whole.aac"
    path.write_bytes(b"".join(data for data, _ in parts))
    audio = AudioFile(path)
    read = torch.cat(list(audio), dim=1)
    assert read.shape == (2, sum(waveform.shape[1] for _, waveform in parts))
    assert audio.source_length == read.shape[1]
    assert torch.allclose(read[:, :20_000], parts[0][1][:, :20_000])


def test_a_truncated_file_gives_what_is_there(tmp_path, noise, store, load):
    waveform = noise(100_000)
    path = store(tmp_path / "a", waveform, AudioEncoding("flac", bit_depth=24))
    whole = load(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read = load(path)
    assert 40_000 < read.shape[1] < 55_000
    assert torch.equal(read, whole[:, : read.shape[1]])


@pytest.mark.parametrize("name", ["flac", "mp3", "ogg", "opus", "m4a"])
def test_damage_in_the_middle_does_not_lose_the_rest(tmp_path, noise, store, name):
    path = store(tmp_path / "a", noise(200_000), AudioEncoding(name))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3_000] = bytes(range(250)) * 12
    path.write_bytes(data)
    audio = AudioFile(path, sample_rate=44_100)
    blocks = list(audio)
    assert all(block.isfinite().all() for block in blocks)
    assert 140_000 < sum(block.shape[1] for block in blocks) <= 202_000


def test_damaged_packets_are_counted_afresh(tmp_path, noise, store):
    path = store(tmp_path / "a", noise(100_000), AudioEncoding("m4a"))
    data = bytearray(path.read_bytes())
    data[5_000:8_000] = b"\xff" * 3_000
    path.write_bytes(data)
    audio = AudioFile(path)
    counts = [(len(list(audio)), audio.skipped_packets) for _ in range(2)]
    assert counts[0] == counts[1]
    assert counts[0][1] > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is not audio\n" * 200, "has no audio stream|is text"),
        (bytes(9_000), "cannot be read"),
        (b"RIFF", "cannot be read"),
        (wav_header(44_100), "contains no audio samples"),
        (wav_header(500, bytes(2_000)), "claims a sample rate of 500 Hz"),
        (wav_header(3_000_000, bytes(2_000)), "claims a sample rate of 3000000 Hz"),
        (b"ffconcat version 1.0\nfile b.wav\n", "is a playlist"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nb.wav\n#EXT-X-ENDLIST\n", "playlist|is text"),
    ],
)
def test_what_is_not_audio_is_refused_in_one_line(tmp_path, content, words):
    (tmp_path / "b.wav").write_bytes(wav_header(44_100, bytes(2_000)))
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=words) as caught:
        AudioFile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_random_bytes_are_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for ending in ("wav", "mp3", "flac", "ogg", "m4a", "ac3"):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(bytes(torch.randint(256, (20_000,), generator=generator).tolist()))
        with pytest.raises(AudioError):
            AudioFile(path)


def test_a_file_without_sound(tmp_path, make_media):
    with pytest.raises(AudioError, match="has no audio stream; choose a file with sound"):
        AudioFile(make_media(tmp_path / "a.mp4", "aac", [], video=True))


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, words in [
        ("missing.wav", "does not exist; check the path"),
        (".", "is a folder"),
        ("fifo", "is not a regular file"),
        ("x" * 300, "cannot be opened: .*too long"),
        ("a\0b", "cannot be opened"),
    ]:
        with pytest.raises(AudioError, match=words):
            AudioFile(tmp_path / name)


def test_no_permission(tmp_path, noise, store, monkeypatch):
    path = store(tmp_path / "a.wav", noise(100), AudioEncoding())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(AudioError, match="cannot be opened: no permission to read it"):
        AudioFile(path)


def test_a_file_that_vanishes_is_reported_when_read(tmp_path, noise, store):
    audio = AudioFile(store(tmp_path / "a.wav", noise(100), AudioEncoding()))
    audio.path.unlink()
    with pytest.raises(AudioError, match="does not exist"):
        list(audio)


@pytest.mark.parametrize(
    "request_", [{"sample_rate": 999}, {"sample_rate": 768_001}, {"channels": 0}, {"channels": 3}]
)
def test_impossible_requests(tmp_path, noise, store, request_):
    path = store(tmp_path / "a.wav", noise(100), AudioEncoding())
    with pytest.raises(AudioError, match=r"cannot deliver .*; ask for"):
        AudioFile(path, **request_)


@pytest.mark.parametrize(
    "name", ["日本 語.flac", "a:b.flac", "http:x.flac", "%03d.flac", "-i.flac", "line\nbreak.flac"]
)
def test_any_name_is_only_a_name(tmp_path, noise, store, load, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store(name, noise(100), FLAC)
    assert load(name).shape == (2, 100)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        AudioFile(name)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_unicode(tmp_path, noise, store, load):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    assert load(store(path, noise(100), AudioEncoding())).shape == (2, 100)
    path.write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        AudioFile(path)
    str(caught.value).encode()


@pytest.mark.parametrize("tag", [b"drms", b"enca"])
def test_encrypted_files_are_named(tmp_path, noise, store, tag):
    path = store(tmp_path / "a.m4a", noise(2_000), AudioEncoding("m4a"))
    data = path.read_bytes()
    start = data.index(b"mp4a", data.index(b"stsd"))
    path.write_bytes(data[:start] + tag + data[start + 4 :])
    with pytest.raises(AudioError, match="is encrypted"):
        AudioFile(path)


@pytest.mark.parametrize("text", ['FILE "a.wav" WAVE\n  TRACK 01 AUDIO\n', "<p>\n\u00e9</p>\n"])
def test_text_is_named(tmp_path, text):
    (tmp_path / "album.cue").write_text(text, encoding="utf-8")
    with pytest.raises(AudioError, match=r"album\.cue is text, such as a list of tracks"):
        AudioFile(tmp_path / "album.cue")
