import pytest
import torch

from helpers import snr
from htdemucs import AudioEncoding, AudioError, AudioFile, OutputOptions, Separator
from htdemucs.audio import AudioWriter

FLOAT = AudioEncoding("wav", bit_depth=32)


def write(path, waveform, sample_rate=1000, encoding=FLOAT):
    with AudioWriter(path, sample_rate, waveform.shape[0], encoding) as writer:
        writer.write(waveform)
    return path


def read(path):
    return torch.cat(list(AudioFile(path)), dim=-1)


def sine(length, sample_rate=1000, peak=0.5):
    t = torch.arange(length) / sample_rate
    return peak * torch.stack([torch.sin(2 * torch.pi * f * t) for f in (50, 80)])


def test_writes_each_stem_as_separate_gives_it(identity, tmp_path):
    waveform = sine(777)
    track = write(tmp_path / "song.wav", waveform)
    separator = Separator(identity, shifts=1)
    paths = separator.separate_file(
        track, tmp_path / "out", options=OutputOptions(FLOAT, clip_mode="none")
    )
    assert paths == {name: tmp_path / "out" / "song" / f"{name}.wav" for name in ("once", "twice")}
    for name, stem in separator.separate(waveform, 1000).items():
        torch.testing.assert_close(read(paths[name]), stem, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [1000, 8000, 11025, 44100, 48000])
@pytest.mark.parametrize("length", [1, 999, 12_345])
def test_stems_have_the_track_s_own_rate_and_length(identity, tmp_path, sample_rate, length):
    track = write(tmp_path / "song.wav", sine(length, sample_rate), sample_rate)
    paths = Separator(identity).separate_file(track, tmp_path)
    stem = AudioFile(paths["once"])
    assert stem.source_sample_rate == sample_rate
    assert sum(block.shape[-1] for block in stem) == length


def test_a_mono_track_gives_stems_of_the_model_s_channels(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(500)[:1])
    paths = Separator(identity).separate_file(track, tmp_path, options=OutputOptions(FLOAT))
    torch.testing.assert_close(read(paths["once"]), sine(500)[[0, 0]], rtol=0, atol=1e-5)


def test_rescale_makes_a_clipping_stem_softer_as_a_whole(identity, tmp_path):
    waveform = sine(2000, peak=0.8)
    track = write(tmp_path / "song.wav", waveform)
    paths = Separator(identity).separate_file(track, tmp_path)
    once, twice = read(paths["once"]), read(paths["twice"])
    assert snr(waveform, once) > 85  # 16 bits; it does not clip, so it keeps its level
    assert float(twice.abs().max()) == pytest.approx(1 / 1.01, abs=1e-4)
    expected = 2 * waveform / (1.01 * 2 * waveform.abs().max())
    assert snr(expected, twice) > 60


def test_clamp_cuts_peaks_and_none_leaves_them_to_the_format(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(2000, peak=0.8))
    separator = Separator(identity)
    clamped = separator.separate_file(
        track, tmp_path / "c", options=OutputOptions(FLOAT, clip_mode="clamp")
    )
    assert float(read(clamped["twice"]).abs().max()) == pytest.approx(0.99, abs=1e-6)
    kept = separator.separate_file(
        track, tmp_path / "k", options=OutputOptions(FLOAT, clip_mode="none")
    )
    assert float(read(kept["twice"]).abs().max()) > 1.5
    full = separator.separate_file(track, tmp_path / "f", options=OutputOptions(clip_mode="none"))
    assert float(read(full["twice"]).abs().max()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("method", "names"),
    [("add", ["once", "no_once"]), ("minus", ["once", "minus_once"]), ("none", ["once"])],
)
def test_two_stems(identity, tmp_path, method, names):
    waveform = sine(900, peak=0.3)
    track = write(tmp_path / "song.wav", waveform)
    options = OutputOptions(FLOAT, two_stems="once", other_method=method, clip_mode="none")
    paths = Separator(identity).separate_file(track, tmp_path, options=options)
    assert list(paths) == names
    if method == "add":
        torch.testing.assert_close(read(paths["no_once"]), 2 * waveform, rtol=0, atol=1e-3)
    if method == "minus":
        assert read(paths["minus_once"]).abs().max() < 1e-5


@pytest.mark.parametrize("file_format", ["flac", "mp3", "ogg", "opus", "m4a"])
def test_every_format(identity, tmp_path, file_format):
    waveform = sine(60_000, 44_100)
    track = write(tmp_path / "song.flac", waveform, 44_100, AudioEncoding("flac"))
    options = OutputOptions(AudioEncoding(file_format))
    path = Separator(identity).separate_file(track, tmp_path, options=options)["once"]
    assert path.suffix == f".{file_format}"
    back = torch.cat(list(AudioFile(path, sample_rate=44_100)), dim=-1)
    assert back.shape == waveform.shape
    assert snr(waveform[:, 4000:-4000], back[:, 4000:-4000]) > 15


def test_progress_reaches_the_end(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(2500))
    seen = []
    Separator(identity).separate_file(track, tmp_path, on_progress=seen.append)
    assert [p.total for p in seen] == [2.5] * len(seen)
    assert seen == sorted(seen, key=lambda p: p.done)
    assert seen[-1].done == 2.5


def test_a_failure_leaves_nothing_behind(tmp_path, identity):
    track = write(tmp_path / "song.wav", sine(5000))
    out = tmp_path / "out"
    calls = []

    def fail(progress):
        calls.append(progress)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Separator(identity).separate_file(track, out, on_progress=fail)
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_an_earlier_result_survives_a_failure(tmp_path, identity):
    track = write(tmp_path / "song.wav", sine(5000))
    paths = Separator(identity).separate_file(track, tmp_path)
    before = {path: path.read_bytes() for path in paths.values()}

    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Separator(identity).separate_file(track, tmp_path, on_progress=fail)
    assert {path: path.read_bytes() for path in paths.values()} == before


def test_tags_travel_with_the_stems(identity, tmp_path):
    import mutagen
    from mutagen.flac import FLAC

    track = write(tmp_path / "song.flac", sine(9000, 8000), 8000, AudioEncoding("flac"))
    tags = FLAC(track)
    tags["title"], tags["artist"] = "Ein Lied", "Jemand"
    tags.save()
    options = OutputOptions(AudioEncoding("mp3"))
    path = Separator(identity).separate_file(track, tmp_path, options=options)["once"]
    found = mutagen.File(path, easy=True)
    assert found["artist"] == ["Jemand"]
    assert "once" in found["title"][0]


def test_unreadable_tracks_are_audio_errors(identity, tmp_path):
    garbage = tmp_path / "garbage.wav"
    garbage.write_bytes(b"not audio at all" * 100)
    for path in (garbage, tmp_path / "missing.wav", tmp_path):
        with pytest.raises(AudioError) as caught:
            Separator(identity).separate_file(path, tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
