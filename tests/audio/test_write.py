import os
import re

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htdemucs.audio import AudioEncoding, AudioFile, AudioWriter
from htdemucs.errors import AudioError
from htdemucs.formats import FORMATS

EDGE_LENGTHS = [1, 2, 47, 960, 1023, 1024, 1025, 1152, 2047, 2048, 4608, 5000, 45_001]
STEPS = {16: 2**15, 24: 2**23, 32: 2**23}  # of a full scale that float32 holds exactly


def on_grid(waveform, encoding):
    return (waveform * STEPS[encoding.bit_depth]).round() / STEPS[encoding.bit_depth]


def test_lossless_round_trip_is_bit_exact(tmp_path, noise, store, load, lossless):
    waveform = on_grid(noise(30_000), lossless).clamp(-1, 1 - 2**-15)
    waveform[:, :2] = torch.tensor([-1, 1 - 2**-15])
    read = load(store(tmp_path / "a", waveform, lossless))
    assert torch.equal(read, waveform)


def test_every_length_comes_back(tmp_path, noise, store, load, encoding):
    # What LAME's first frame holds beyond its delay cannot be cut shorter.
    shortest = 47 if encoding.format == "mp3" else 1
    for length in EDGE_LENGTHS:
        read = load(store(tmp_path / "a", noise(length), encoding), sample_rate=44_100)
        assert read.shape == (2, max(length, shortest))


@pytest.mark.parametrize(("sample_rate", "frame"), [(44_100, 1_152), (22_050, 576)])
def test_mp3_has_the_exact_length_wherever_the_last_frame_ends(
    tmp_path, noise, store, load, sample_rate, frame
):
    encoding = AudioEncoding("mp3", bitrate=64, mp3_preset=7)
    for rest in [*range(49), *range(49, frame, 37), frame - 1]:
        waveform = noise(2 * frame + rest, channels=1)
        path = store(tmp_path / "a.mp3", waveform, encoding, sample_rate)
        assert load(path).shape == waveform.shape
        assert len(soundfile.read(path)[0]) == waveform.shape[1]


@pytest.mark.parametrize("length", [66, 107, 376])
def test_mp3_of_a_few_frames_is_not_taken_for_a_film(tmp_path, store, load, length):
    waveform = 0.2 * torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    encoding = AudioEncoding("mp3", bitrate=192, mp3_preset=7)
    assert load(store(tmp_path / "a.mp3", waveform, encoding)).shape == waveform.shape


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 48_000, 96_000])
def test_lengths_at_other_rates(tmp_path, noise, store, load, encoding, sample_rate):
    waveform = noise(2 * 9_001 + 1 if sample_rate == 8_000 else 9_000, channels=1)
    path = store(tmp_path / "a", waveform, encoding, sample_rate)
    assert load(path, sample_rate=sample_rate, channels=1).shape == waveform.shape


@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 96_000])
def test_lossy_formats_stay_aligned_and_close(tmp_path, noise, store, load, lossy, sample_rate):
    waveform = noise(50_000)
    read = load(store(tmp_path / "a", waveform, lossy, sample_rate), sample_rate=sample_rate)
    spectrum = torch.fft.rfft(read[0], 100_000) * torch.fft.rfft(waveform[0], 100_000).conj()
    assert torch.fft.irfft(spectrum).argmax() == 0
    for part in (slice(None), slice(0, 2_000), slice(-2_000, None)):
        noise_power = (read - waveform)[:, part].square().mean()
        assert noise_power < 0.1 * waveform[:, part].square().mean()


def test_mono_comes_back_on_both_sides(tmp_path, noise, store, load, lossless):
    waveform = on_grid(noise(3_000, channels=1), lossless)
    path = store(tmp_path / "a", waveform, lossless)
    assert torch.equal(load(path), waveform)
    assert torch.equal(load(path, channels=2), waveform.expand(2, -1))


def test_float_wav_keeps_every_value(tmp_path, store):
    waveform = torch.tensor([[3.5, -7.25, 1e-30, float("nan"), float("inf"), 0.1, 3e38]])
    audio = AudioFile(store(tmp_path / "a", waveform, AudioEncoding("wav", bit_depth=32)))
    [block] = audio
    assert torch.equal(block, torch.tensor([[3.5, -7.25, 1e-30, 0, 0, 0.1, 0]]))
    assert audio.replaced_samples == 3
    raw = (tmp_path / "a").read_bytes()[-28:]
    assert raw == waveform.numpy().tobytes()


@pytest.mark.parametrize(
    ("name", "bits"),
    [(n, c.bit_depth) for n, row in FORMATS.items() for c in row.codecs if not c.is_float],
)
def test_integers_are_rounded_and_limited(tmp_path, store, load, name, bits):
    step = 2.0 ** (1 - bits)
    waveform = torch.tensor([[0.6 * step, -0.6 * step, 0.4 * step, -0.4 * step, 2, -2]])
    read = load(store(tmp_path / "a", waveform, AudioEncoding(name, bit_depth=bits)))
    assert torch.equal(read, torch.tensor([[step, -step, 0, 0, 1 - step, -1]]))


def test_non_finite_samples_do_no_harm(tmp_path, noise, store, load, encoding):
    waveform = noise(5_000)
    waveform[:, 2_000] = float("nan")
    waveform[0, 3_000] = float("inf")
    read = load(store(tmp_path / "a", waveform, encoding), sample_rate=44_100)
    assert read.shape == waveform.shape
    assert read.isfinite().all()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 6_000), max_size=8))
def test_blocks_may_be_cut_anywhere(tmp_path_factory, noise, store, cuts):
    folder = tmp_path_factory.mktemp("cuts")
    waveform = noise(6_000)
    for encoding in (AudioEncoding("flac"), AudioEncoding("ogg"), AudioEncoding("opus")):
        whole = store(folder / "whole", waveform, encoding)
        with AudioWriter(folder / "parts", 44_100, 2, encoding) as writer:
            for block in waveform.tensor_split(sorted(cuts), dim=1):
                writer.write(block)
        assert (folder / "parts").read_bytes() == whole.read_bytes()


def test_the_same_waveform_gives_the_same_bytes(tmp_path, noise, store, encoding):
    paths = [store(tmp_path / name, noise(9_000), encoding) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_name_appears_only_when_the_file_is_complete(tmp_path, noise, encoding):
    path = tmp_path / "new" / "folder" / "a"
    with AudioWriter(path, 44_100, 2, encoding) as writer:
        writer.write(noise(20_000))
        assert not path.exists()
        assert all(re.fullmatch(r"\.\w+\.partial", entry.name) for entry in path.parent.iterdir())
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_what_was_there(tmp_path, noise, encoding):
    path = tmp_path / "a"
    path.write_text("before")

    def interrupted():
        with AudioWriter(path, 44_100, 2, encoding) as writer:
            writer.write(noise(20_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


def test_abort_and_close_may_follow_each_other(tmp_path, noise):
    path = tmp_path / "a"
    writer = AudioWriter(path, 44_100, 2, AudioEncoding())
    writer.write(noise(100))
    writer.abort()
    writer.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(AudioError, match="is closed; open a new writer"):
        writer.write(noise(100))
    with AudioWriter(path, 44_100, 2, AudioEncoding()) as writer:
        writer.write(noise(100))
        writer.close()
        writer.abort()
    assert path.exists()


def test_finish_sees_the_encoded_file_before_the_renaming(tmp_path, noise, load):
    path, seen = tmp_path / "a", []

    def finish(temporary):
        assert not path.exists()
        seen.append(load(temporary).shape)

    with AudioWriter(path, 44_100, 2, AudioEncoding(), finish=finish) as writer:
        writer.write(noise(777))
    assert seen == [(2, 777)]


def test_an_exception_in_finish_leaves_nothing(tmp_path, noise):
    def finish(temporary):
        raise RuntimeError("finish")

    writer = AudioWriter(tmp_path / "a", 44_100, 2, AudioEncoding(), finish=finish)
    writer.write(noise(100))
    with pytest.raises(RuntimeError, match="finish"):
        writer.close()
    assert not list(tmp_path.iterdir())


def test_no_samples_are_an_error(tmp_path, encoding):
    with (
        pytest.raises(AudioError, match="got no samples; nothing was saved"),
        AudioWriter(tmp_path / "a", 44_100, 2, encoding) as writer,
    ):
        writer.write(torch.zeros(2, 0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_names_of_255_bytes(tmp_path, noise, store, load, name):
    ending = f".{name}"
    path = tmp_path / ("é漢" * 51)[: (255 - len(ending)) * 2 // 5]
    path = path.with_name(path.name + "x" * (255 - len(ending) - len(os.fsencode(path.name))))
    path = store(path.with_name(path.name + ending), noise(3_000), AudioEncoding(name))
    assert len(os.fsencode(path.name)) == 255
    assert load(path, sample_rate=44_100).shape == (2, 3_000)


def test_a_full_disk_is_an_audio_error(tmp_path, noise, store, encoding):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    waveform = noise(100_000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(AudioError, match=r"a cannot be written .*; check its folder"):
            store(tmp_path / "a", waveform, encoding)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "is a folder; choose another file name"),
        ("file/a.wav", "cannot be written"),
        ("x" * 256, "cannot be written .*too long"),
        ("a\0b", "cannot be written"),
    ],
)
def test_an_impossible_name_is_refused_at_once(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match=words):
        AudioWriter(tmp_path / name, 44_100, 2, AudioEncoding())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_impossible_waveforms_are_refused(tmp_path):
    path = tmp_path / "a"
    writer = AudioWriter(path, 44_100, 2, AudioEncoding())
    with pytest.raises(AudioError, match=r"takes blocks of shape \(2, L\), not \(1, 5\)"):
        writer.write(torch.zeros(1, 5))
    writer.abort()
    with pytest.raises(AudioError, match="cannot get 3 channels; write 1 or 2"):
        AudioWriter(path, 44_100, 3, AudioEncoding())
    with pytest.raises(AudioError, match="cannot get 999 Hz"):
        AudioWriter(path, 999, 2, AudioEncoding())
    assert not list(tmp_path.iterdir())


def test_rf64_headers_are_valid(tmp_path, noise, store, load, monkeypatch):
    monkeypatch.setattr(AudioEncoding, "muxer_options", lambda *_: {"rf64": "always"})
    waveform = on_grid(noise(3_000), AudioEncoding())
    path = store(tmp_path / "a.wav", waveform, AudioEncoding())
    assert path.read_bytes()[:4] == b"RF64"
    assert torch.equal(load(path), waveform)


LIMITS = [
    (row.name, channels, rate, bitrate)
    for row in FORMATS.values()
    if row.bitrates
    for channels in (1, 2)
    for rate in sorted({row.sample_rates[0], row.sample_rates[-1]})
    for bitrate in (row.bitrates_for(channels)[0], row.bitrates_for(channels)[-1])
]


@pytest.mark.parametrize(("name", "channels", "rate", "bitrate"), LIMITS)
def test_every_bitrate_of_the_table_can_be_written(
    tmp_path, noise, store, load, name, channels, rate, bitrate
):
    encoding = AudioEncoding(name, bitrate=bitrate, mp3_preset=7)
    waveform = noise(5_000, channels=channels)
    assert load(store(tmp_path / "a", waveform, encoding, rate)).shape == waveform.shape


def test_a_bitrate_too_high_for_mono_is_refused_in_words(tmp_path, noise, store):
    opus = AudioEncoding("opus", bitrate=320)
    store(tmp_path / "a.opus", noise(1_000), opus)
    words = "opus cannot have 320 kbit/s in mono; choose 16 to 256"
    with pytest.raises(AudioError, match=words):
        store(tmp_path / "b.opus", noise(1_000, channels=1), opus)
    assert [path.name for path in tmp_path.iterdir()] == ["a.opus"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_samples_far_above_full_scale_end_no_process(tmp_path, file_format):
    """LAME ends the process for samples of a million, which unscaled integers are."""
    path = tmp_path / f"loud.{file_format}"
    with AudioWriter(path, 44_100, 2, AudioEncoding(file_format)) as writer:
        writer.write(2e6 * torch.randn(2, 44_100, generator=torch.Generator().manual_seed(1)))
    assert sum(block.shape[-1] for block in AudioFile(path, sample_rate=44_100)) == 44_100
