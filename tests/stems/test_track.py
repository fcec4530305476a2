import contextlib
import io
import os
import struct
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import torch

from helpers import snr
from htdemucs import (
    AudioEncoding,
    AudioError,
    AudioFile,
    OutputOptions,
    SeparationError,
    Separator,
)
from htdemucs.audio import AudioWriter, SampleCache, read_chapters, resampled_length
from htdemucs.audio import read as reading
from htdemucs.audio.wav_chunks import read_wav_chunks, write_wav_chunks
from htdemucs.events import Progress, ProgressBar, Reading, Started, Warned, Written
from htdemucs.stems import first_pass, separate_file
from htdemucs.stems.first_pass import ResumeKey
from htdemucs.stems.track import separate_track

FLOAT = AudioEncoding("wav", bit_depth=32)


def files_of(separator, track, out, **options):
    files = separate_file(separator, track, out, **options).files
    return {stem: Path(path) for stem, path in files.items()}


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
    paths = files_of(
        separator, track, tmp_path / "out", options=OutputOptions(FLOAT, clip_mode="none")
    )
    assert paths == {name: tmp_path / "out" / "song" / f"{name}.wav" for name in ("once", "twice")}
    for name, stem in separator.separate(waveform, 1000).items():
        torch.testing.assert_close(read(paths[name]), stem, rtol=0, atol=1e-6)


def test_a_name_and_options_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "song.wav", sine(4410, 44_100), 44_100)
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        bar = ProgressBar()
        result = separate_file(
            "mini", "song.wav", two_stems="vocals", format="mp3", on_progress=bar
        )
    assert {Path(p).as_posix() for p in result.files.values()} == {
        "separated/song/vocals.mp3",
        "separated/song/no_vocals.mp3",
    }
    assert "song.wav" in shown.getvalue()
    assert "100%" in shown.getvalue()


@pytest.mark.parametrize("sample_rate", [1000, 8000, 11025, 44100, 48000])
@pytest.mark.parametrize("length", [1, 999, 12_345])
def test_stems_have_the_track_s_own_rate_and_length(identity, tmp_path, sample_rate, length):
    track = write(tmp_path / "song.wav", sine(length, sample_rate), sample_rate)
    paths = files_of(Separator(identity), track, tmp_path)
    stem = AudioFile(paths["once"])
    assert stem.source_sample_rate == sample_rate
    assert sum(block.shape[-1] for block in stem) == length


def test_a_mono_track_gives_stems_of_the_model_s_channels(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(500)[:1])
    paths = files_of(Separator(identity), track, tmp_path, options=OutputOptions(FLOAT))
    torch.testing.assert_close(read(paths["once"]), sine(500)[[0, 0]], rtol=0, atol=1e-5)


def test_rescale_makes_all_stems_softer_by_one_gain(identity, tmp_path):
    waveform = sine(2000, peak=0.8)
    track = write(tmp_path / "song.wav", waveform)
    paths = files_of(Separator(identity), track, tmp_path)
    gain = 1 / (1.01 * 2 * waveform.abs().max())
    assert float(read(paths["twice"]).abs().max()) == pytest.approx(1 / 1.01, abs=1e-4)
    assert snr(gain * waveform, read(paths["once"])) > 80  # 16 bits
    assert snr(2 * gain * waveform, read(paths["twice"])) > 80


def test_nothing_is_rescaled_that_does_not_clip(identity, tmp_path):
    quiet, loud = sine(2000, peak=0.4), sine(2000, peak=0.8)
    paths = files_of(Separator(identity), write(tmp_path / "a.wav", quiet), tmp_path)
    assert snr(2 * quiet, read(paths["twice"])) > 80
    track = write(tmp_path / "b.wav", loud)  # floats hold it
    paths = files_of(Separator(identity), track, tmp_path, options=OutputOptions(FLOAT))
    assert snr(2 * loud, read(paths["twice"])) > 100


@pytest.mark.parametrize("depth", [16, 24])
@pytest.mark.parametrize("kind", ["wav", "flac"])
@pytest.mark.parametrize("residual", ["spread", "write"])
def test_with_the_residual_files_add_up_to_the_mixture_exactly(
    identity, tmp_path, depth, kind, residual
):
    encoding = AudioEncoding(kind, bit_depth=depth)
    track = write(tmp_path / f"song.{kind}", sine(4000, 8000, 0.2), 8000, encoding)
    options = OutputOptions(encoding, residual=residual)
    paths = files_of(Separator(identity), track, tmp_path / "out", options=options)
    assert ("residual" in paths) == (residual == "write")
    steps = 2 ** (depth - 1)
    total = sum((read(path).double() * steps).round() for path in paths.values())
    assert torch.equal(total, (read(track).double() * steps).round())


@pytest.mark.parametrize("residual", ["spread", "write"])
@pytest.mark.parametrize("rate", [None, 44_100])
def test_with_the_residual_files_add_up_at_any_rate_and_gain(identity, tmp_path, residual, rate):
    waveform = sine(8000, 8000, 0.9)  # twice of it clips
    track = write(tmp_path / "song.wav", waveform, 8000, AudioEncoding("wav"))
    options = OutputOptions(residual=residual, sample_rate=rate)
    paths = files_of(Separator(identity), track, tmp_path / "out", options=options)
    total = sum(read(path) for path in paths.values())
    mixture = torch.cat(list(AudioFile(track, sample_rate=rate)), dim=1)
    gain = float((total * mixture).sum() / mixture.square().sum())
    assert (gain < 0.99) == (residual == "write")  # shared, nothing is left that clips
    assert (total - gain * mixture).abs().max() < 3 / 2**15


def square(length):
    """At full scale of 16 bits, where networks and resampling go beyond it."""
    signs = (torch.arange(length) // 20 % 2).bool()
    left = torch.where(signs, -1.0, 1 - 2**-15)
    return torch.stack([left, left.roll(7)])


@pytest.mark.parametrize(
    ("residual", "method"),
    [*product(["spread", "write"], [None, "add", "minus"]), ("write", "none")],
)
@pytest.mark.parametrize("clip_mode", ["none", "clamp"])
@pytest.mark.parametrize(
    "encoding",
    [AudioEncoding("wav"), AudioEncoding("flac", bit_depth=24), FLOAT],
    ids=["wav 16", "flac 24", "wav 32"],
)
def test_with_the_residual_files_add_up_though_stems_clip(
    identity, tmp_path, encoding, clip_mode, residual, method
):
    choice = {"two_stems": "once", "other_method": method} if method else {}
    options = OutputOptions(encoding, residual=residual, clip_mode=clip_mode, **choice)
    track = write(tmp_path / "song.wav", square(4000), 8000, AudioEncoding("wav"))
    files = files_of(Separator(identity), track, tmp_path / "out", options=options)
    read_files = [read(path).double() for path in files.values()]
    error = (sum(read_files) - read(track)).abs().max()
    assert error <= (1e-6 if encoding == FLOAT else 0)
    if clip_mode == "clamp":
        assert max(stem.abs().max() for stem in read_files) < 0.99 + 1e-6


@pytest.mark.parametrize("clip_mode", ["none", "clamp"])
def test_a_track_too_loud_for_its_files_to_add_up_is_refused(identity, tmp_path, clip_mode):
    track = write(tmp_path / "song.wav", 4 * square(4000), 8000)
    options = OutputOptions(residual="spread", clip_mode=clip_mode)
    with pytest.raises(SeparationError, match=r"too loud for 2 files .* clip mode to rescale"):
        separate_file(Separator(identity), track, tmp_path / "out", options=options)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_the_quietest_samples_are_no_reason_to_refuse(identity, tmp_path):
    waveform = sine(1000, peak=0.3)
    waveform[:, ::2] = 1e-30
    track = write(tmp_path / "song.wav", waveform)
    for encoding in (FLOAT, AudioEncoding("wav", bit_depth=24)):
        options = OutputOptions(encoding, residual="write", clip_mode="none")
        files = files_of(Separator(identity), track, tmp_path / "out", options=options)
        total = sum(read(path) for path in files.values())
        assert (total - waveform).abs().max() < 2**-22


def test_a_residual_shared_leaves_what_there_was(identity, tmp_path):
    """Once and twice the mixture lack minus two mixtures: one less each."""
    waveform = sine(1000, peak=0.3)
    track = write(tmp_path / "song.wav", waveform)
    options = OutputOptions(FLOAT, residual="spread")
    paths = files_of(Separator(identity), track, tmp_path, options=options)
    assert read(paths["once"]).abs().max() < 1e-5
    assert snr(waveform, read(paths["twice"])) > 90


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
@pytest.mark.parametrize("length", [1, 777, 9999])
def test_another_sample_rate(identity, tmp_path, rate, length):
    track = write(tmp_path / "song.wav", sine(length, 11_025), 11_025)
    paths = files_of(Separator(identity), track, tmp_path, options=OutputOptions(sample_rate=rate))
    stem = AudioFile(paths["twice"])
    assert stem.source_sample_rate == rate
    assert sum(block.shape[-1] for block in stem) == resampled_length(length, 11_025, rate)


@pytest.mark.parametrize(
    ("source", "kind", "expected"),
    [
        (AudioEncoding("wav", bit_depth=24), "wav", 24),
        (FLOAT, "wav", 32),
        (FLOAT, "flac", 24),
        (AudioEncoding("flac"), "wav", 16),
        (AudioEncoding("mp3"), "wav", 16),
    ],
)
def test_the_track_s_own_bit_depth(identity, tmp_path, source, kind, expected):
    track = write(tmp_path / f"song.{source.extension}", sine(9000, 8000), 8000, source)
    options = OutputOptions(AudioEncoding(kind), keep_bit_depth=True)
    paths = files_of(Separator(identity), track, tmp_path / "out", options=options)
    assert AudioFile(paths["once"]).bit_depth == expected


def test_file_times_are_kept_if_asked(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(500))
    os.utime(track, (1_000_000_000, 1_000_000_000))
    for keep in (True, False):
        options = OutputOptions(keep_times=keep)
        paths = files_of(Separator(identity), track, tmp_path, options=options)
        assert (paths["once"].stat().st_mtime == 1_000_000_000) == keep


def test_minus_is_what_the_track_itself_lacks(identity, tmp_path):
    """Computed from the track, not from its copy at the model's rate."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(2, 20_000, generator=generator)  # up to 22 kHz; the model ends at 500
    track = write(tmp_path / "song.wav", noise, 44_100)
    options = OutputOptions(FLOAT, two_stems="once", other_method="minus")
    paths = files_of(Separator(identity), track, tmp_path, options=options)
    total = read(paths["once"]) + read(paths["minus_once"])
    torch.testing.assert_close(total, noise, rtol=0, atol=1e-6)


def test_clamp_cuts_peaks_and_none_leaves_them_to_the_format(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(2000, peak=0.8))
    separator = Separator(identity)
    clamped = files_of(
        separator, track, tmp_path / "c", options=OutputOptions(FLOAT, clip_mode="clamp")
    )
    assert float(read(clamped["twice"]).abs().max()) == pytest.approx(0.99, abs=1e-6)
    kept = files_of(
        separator, track, tmp_path / "k", options=OutputOptions(FLOAT, clip_mode="none")
    )
    assert float(read(kept["twice"]).abs().max()) > 1.5
    full = files_of(separator, track, tmp_path / "f", options=OutputOptions(clip_mode="none"))
    assert float(read(full["twice"]).abs().max()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("method", "names"),
    [("add", ["once", "no_once"]), ("minus", ["once", "minus_once"]), ("none", ["once"])],
)
def test_two_stems(identity, tmp_path, method, names):
    waveform = sine(900, peak=0.3)
    track = write(tmp_path / "song.wav", waveform)
    options = OutputOptions(FLOAT, two_stems="once", other_method=method, clip_mode="none")
    paths = files_of(Separator(identity), track, tmp_path, options=options)
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
    path = files_of(Separator(identity), track, tmp_path, options=options)["once"]
    assert path.suffix == f".{file_format}"
    back = torch.cat(list(AudioFile(path, sample_rate=44_100)), dim=-1)
    assert back.shape == waveform.shape
    assert snr(waveform[:, 4000:-4000], back[:, 4000:-4000]) > 15


@pytest.mark.parametrize(
    ("file_format", "rate", "asked", "stored"),
    [
        ("opus", 44_100, None, 48_000),
        ("mp3", 96_000, None, 48_000),
        ("mp3", 44_100, 50_000, 48_000),
        ("m4a", 11_025, 10_000, 11_025),
        ("ogg", 11_025, None, 11_025),
    ],
)
@pytest.mark.parametrize("residual", ["none", "write"])
def test_the_result_has_rate_and_length_of_the_files(
    identity, tmp_path, file_format, rate, asked, stored, residual
):
    track = write(tmp_path / "song.flac", sine(9_999, rate), rate, AudioEncoding("flac"))
    options = OutputOptions(AudioEncoding(file_format), sample_rate=asked, residual=residual)
    result = separate_file(Separator(identity), track, tmp_path, options=options)
    for path in result.files.values():
        stem = AudioFile(path)
        length = sum(block.shape[-1] for block in stem)
        assert (stem.source_sample_rate, length) == (result.sample_rate, result.length)
    assert result.sample_rate == stored
    assert result.duration == result.length / stored
    assert result.source_length == 9_999


def test_only_some_stems_of_a_named_model(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(4410, 44_100), 44_100)
    assert set(files_of("mini", track, tmp_path, stems="vocals", format="FLAC")) == {"vocals"}
    some = files_of("mini", track, tmp_path, stems=["bass", "drums"])
    assert list(some) == ["bass", "drums"]
    with pytest.raises(SeparationError, match="all stems are needed to spread the residual"):
        separate_file("mini", track, tmp_path, stems="vocals", residual="spread")
    with pytest.raises(SeparationError, match="give the stems to the Separator"):
        separate_file(Separator(identity), track, tmp_path, stems="once")


def test_progress_reaches_the_end(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(2500))
    events = []
    files = files_of(Separator(identity), track, tmp_path, on_progress=events.append)
    progress = [event for event in events if isinstance(event, Progress)]
    assert [p.total for p in progress] == [2.5] * len(progress)
    assert progress == sorted(progress, key=lambda p: p.done)
    assert (progress[0].done, progress[0].speed, progress[-1].done) == (0, None, 2.5)
    assert events[0] == Started(str(track))
    assert events[-3:-1] == [Written(str(track), stem, str(path)) for stem, path in files.items()]
    assert (events[-1].track, events[-1].result.duration) == (str(track), 2.5)


def test_the_first_pass_is_reported_from_its_start(identity, tmp_path, monkeypatch):
    monkeypatch.setattr(first_pass, "READING_INTERVAL", 0)
    track, events = write(tmp_path / "song.wav", sine(2500)), []
    separate_file(Separator(identity), track, tmp_path, on_progress=events.append)
    reading = [event for event in events if isinstance(event, Reading)]
    assert [event.done for event in reading] == [0, 1, 2, 2.5]
    assert {event.total for event in reading} == {2.5}
    assert events[1 : 1 + len(reading)] == reading
    assert isinstance(events[1 + len(reading)], Progress)


def test_what_is_unusual_in_a_track_is_a_warning(identity, tmp_path):
    samples = sine(2500)
    samples[0, 100] = torch.nan
    track = write(tmp_path / "song.wav", samples)
    events = []
    files_of(Separator(identity), track, tmp_path, on_progress=events.append)
    assert Warned(str(track), "1 invalid sample was replaced by 0") in events


def test_a_failure_leaves_nothing_behind(tmp_path, identity):
    track = write(tmp_path / "song.wav", sine(5000))
    out = tmp_path / "out"
    calls = []

    def fail(progress):
        calls.append(progress)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files_of(Separator(identity), track, out, on_progress=fail)
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_a_track_is_decoded_once(tmp_path, identity, monkeypatch):
    opened, open_audio = [], reading.open_audio
    monkeypatch.setattr(reading, "open_audio", lambda *a: opened.append(a) or open_audio(*a))
    track = write(tmp_path / "song.wav", sine(5000), 1100)
    files_of(Separator(identity), track, tmp_path / "out")
    assert len(opened) == 2  # to look at it, and to decode it


@pytest.mark.parametrize(
    ("options", "cached"),
    [
        (OutputOptions(), True),
        (OutputOptions(clip_mode="none"), False),
        (OutputOptions(clip_mode="clamp"), False),
        (OutputOptions(FLOAT), False),
    ],
)
def test_stems_are_cached_only_if_they_may_be_written_again(
    tmp_path, identity, monkeypatch, options, cached
):
    channels, write_block = set(), SampleCache.write

    def spy(self, block):
        channels.add(len(block))
        write_block(self, block)

    monkeypatch.setattr(SampleCache, "write", spy)
    track = write(tmp_path / "song.wav", sine(5000))
    files_of(Separator(identity), track, tmp_path / "out", options=options)
    assert channels == ({1, 4} if cached else {1})  # 1: the mixture


def test_an_earlier_result_survives_a_failure(tmp_path, identity):
    track = write(tmp_path / "song.wav", sine(5000))
    paths = files_of(Separator(identity), track, tmp_path)
    before = {path: path.read_bytes() for path in paths.values()}

    def fail(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files_of(Separator(identity), track, tmp_path, on_progress=fail)
    assert {path: path.read_bytes() for path in paths.values()} == before


def test_tags_travel_with_the_stems(identity, tmp_path):
    import mutagen
    from mutagen.flac import FLAC

    track = write(tmp_path / "song.flac", sine(9000, 8000), 8000, AudioEncoding("flac"))
    tags = FLAC(track)
    tags["title"], tags["artist"] = "Ein Lied", "Jemand"
    tags.save()
    options = OutputOptions(AudioEncoding("mp3"))
    path = files_of(Separator(identity), track, tmp_path, options=options)["once"]
    found = mutagen.File(path, easy=True)
    assert found["artist"] == ["Jemand"]
    assert "once" in found["title"][0]


def test_chapters_travel_to_m4a(identity, tmp_path):
    chapters = [
        {"id": n, "start": n, "end": n + 1, "time_base": Fraction(1, 4), "metadata": {"title": t}}
        for n, t in enumerate(("Eins", "Zw\u00f6i"))
    ]
    book = tmp_path / "book.m4b"
    with AudioWriter(book, 8000, 2, AudioEncoding("m4a"), chapters=chapters) as writer:
        writer.write(sine(5_000, 8000))
    for copied in (True, False):
        options = OutputOptions(AudioEncoding("m4a"), copy_tags=copied)
        files = files_of(Separator(identity), book, tmp_path / str(copied), options=options)
        stem = files["once"]
        titles = [chapter["metadata"]["title"] for chapter in read_chapters(stem)]
        assert titles == (["Eins", "Zw\u00f6i"] if copied else [])
        assert read(stem).shape == (2, 5_000)


def wav_with_chunks(path, rate):
    """Write a WAV file that begins an hour after midnight, with a marker and a loop."""
    write(path, sine(5_001, rate), rate, AudioEncoding())
    head = struct.pack("<256s32s32s10s8sQH", b"Take 7", b"DAW", b"", b"", b"", 3600 * rate, 2)
    chunks = {
        b"bext": head
        + b"\1" * 64
        + struct.pack("<5h", -14, 3, -1, -9, -10)
        + bytes(180)
        + b"A=PCM",
        b"iXML": b"<BWFXML><TAKE>7</TAKE></BWFXML>",
        b"cue ": struct.pack("<I" + "II4sIII", 1, 1, 100, b"data", 0, 0, 100),
        b"LIST": b"adtllabl" + struct.pack("<II", 9, 1) + b"Hook\0\0",
        b"smpl": struct.pack("<9I6I", 0, 0, 125_000, 60, 0, 0, 0, 1, 0, 0, 0, 80, 240, 0, 0),
        b"acid": struct.pack("<IHHfIHHf", 0, 60, 0, 0, 4, 4, 4, 120),
    }
    write_wav_chunks(path, chunks)
    assert read_wav_chunks(path) == chunks
    return chunks


@pytest.mark.parametrize("bit_depth", [16, 24])
def test_wav_stems_keep_their_place_in_audio_editors(identity, tmp_path, bit_depth):
    track = tmp_path / "song.wav"
    chunks = wav_with_chunks(track, 8000)
    options = OutputOptions(AudioEncoding(bit_depth=bit_depth))
    for path in files_of(Separator(identity), track, tmp_path, options=options).values():
        copied = read_wav_chunks(path)
        assert copied.keys() == chunks.keys()
        assert {k: v for k, v in copied.items() if k != b"bext"} == {
            k: v for k, v in chunks.items() if k != b"bext"
        }
        time, version, umid = struct.unpack_from("<QH64s", copied[b"bext"], 338)
        assert (time, version, umid) == (3600 * 8000, 2, bytes(64))
        assert copied[b"bext"][412:422] == b"\xff\x7f" * 5  # the loudness of another sound
        assert copied[b"bext"][:338] + copied[b"bext"][422:] == (
            chunks[b"bext"][:338] + chunks[b"bext"][422:]
        )
        assert path.stat().st_size == struct.unpack("<I", path.read_bytes()[4:8])[0] + 8
        assert read(path).shape == (2, 5_001)


def test_positions_follow_the_sample_rate(identity, tmp_path):
    wav_with_chunks(tmp_path / "song.wav", 8000)
    options = OutputOptions(sample_rate=16_000)
    path = files_of(Separator(identity), tmp_path / "song.wav", tmp_path, options=options)["once"]
    copied = read_wav_chunks(path)
    assert struct.unpack_from("<Q", copied[b"bext"], 338) == (3600 * 16_000,)
    assert struct.unpack("<IIIIIII", copied[b"cue "])[2::4] == (200, 200)
    assert struct.unpack("<15I", copied[b"smpl"])[2::9] == (62_500, 160)
    assert b"iXML" not in copied


def test_other_formats_and_stems_without_tags_have_no_chunks(identity, tmp_path):
    wav_with_chunks(tmp_path / "song.wav", 8000)
    for options in (OutputOptions(AudioEncoding("flac")), OutputOptions(copy_tags=False)):
        files = files_of(Separator(identity), tmp_path / "song.wav", tmp_path, options=options)
        assert read_wav_chunks(files["once"]) == {}


def test_unreadable_tracks_are_audio_errors(identity, tmp_path):
    garbage = tmp_path / "garbage.wav"
    garbage.write_bytes(b"not audio at all" * 100)
    for path in (garbage, tmp_path / "missing.wav", tmp_path):
        with pytest.raises(AudioError) as caught:
            files_of(Separator(identity), path, tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


class Stop(BaseException):
    """Ends a separation."""


class Counting:
    """Calls a function and counts the calls; raises Stop after `most` of them."""

    def __init__(self, function, most):
        self.function, self.left, self.asked = function, most, 0

    def __call__(self, windows, length):
        if self.left == 0:
            raise Stop
        self.left -= 1
        self.asked += 1
        return self.function(windows, length)


@pytest.mark.parametrize(
    ("shifts", "batch_size", "most"),
    [(0, 1, 1), (0, 3, 2), (1, 1, 2), (1, 3, 1), (1, 1, 5), (2, 1, 1), (2, 3, 2), (2, 1, 5)],
)
def test_a_stopped_separation_resumes_and_ends_the_same(
    tmp_path, shifts, batch_size, most, tiny_model
):
    waveform = torch.randn(2, 40_000, generator=torch.Generator().manual_seed(0)) * 0.3
    track = write(tmp_path / "song.wav", waveform, 11_025)
    options = OutputOptions(FLOAT)

    def separate(out, asked):
        separator = Separator(tiny_model, shifts=shifts, batch_size=batch_size)
        counting = Counting(separator._runner._run, asked)
        separator._runner._run = counting
        paths = options.output_paths(track, tmp_path / out)
        resume = ResumeKey(paths.cache_file, "key")
        try:
            separated = separate_track(separator, track, paths, options, resume=resume)
        except Stop:
            return None, counting.asked
        return separated, counting.asked

    whole, needed = separate("whole", -1)
    assert whole.resumed == 0
    separated, asked, attempts = None, 0, 0
    while separated is None:
        separated, more = separate("parts", most + attempts)
        asked, attempts = asked + more, attempts + 1
    assert (attempts > 1) == (most < needed)
    assert asked < needed + attempts * (2 + 2 * max(shifts, 1))  # what overlaps is done again
    if 1 < most < needed:
        assert separated.resumed > 0
    for name, path in separated.files.items():
        assert Path(path).read_bytes() == Path(whole.files[name]).read_bytes()


def test_a_cache_with_another_key_is_not_used(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(2000, peak=0.3))
    options = OutputOptions()
    paths = options.output_paths(track, tmp_path / "out")
    with SampleCache.open(paths.cache_file, 4, "old") as spool:
        spool.write(torch.ones(4, 700))
    resume = ResumeKey(paths.cache_file, "new")
    separated = separate_track(Separator(identity), track, paths, options, resume=resume)
    assert separated.resumed == 0
    assert snr(sine(2000, peak=0.3), read(separated.files["once"])) > 80


@pytest.mark.parametrize("damage", [None, "cut", "no record", "other record"])
def test_the_first_pass_is_not_repeated_after_an_interruption(
    identity, tmp_path, monkeypatch, damage
):
    waveform = sine(5_000, 1100)
    track = write(tmp_path / "song.wav", waveform, 1100)
    whole = files_of(Separator(identity), track, tmp_path / "whole")
    paths = OutputOptions().output_paths(track, tmp_path / "out")
    resume, separator = ResumeKey(paths.cache_file, "key"), Separator(identity)

    def separate(on_event):
        return separate_track(
            separator, track, paths, OutputOptions(), resume=resume, on_event=on_event
        )

    def stop(event):
        if isinstance(event, Progress) and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate(stop)
    if damage == "cut":
        os.truncate(resume.mixture_file, 1000)
    elif damage == "no record":
        resume.measurement_file.unlink()
    elif damage:
        resume.measurement_file.write_text('{"key": "key"}')
    events = []
    result = separate(events.append)
    assert any(isinstance(event, Reading) for event in events) == (damage is not None)
    assert result.source_length == 5_000
    assert result.resumed > 0
    for stem, path in result.files.items():
        assert Path(path).read_bytes() == whole[stem].read_bytes()
    assert not list(tmp_path.rglob(".*"))


def test_a_failure_or_an_interrupted_first_pass_leaves_no_decoded_samples(identity, tmp_path):
    track = write(tmp_path / "song.wav", sine(2_500))
    paths = OutputOptions().output_paths(track, tmp_path / "out")
    resume = ResumeKey(paths.cache_file, "key")

    def fail(kind, error):
        def on_event(event):
            if isinstance(event, kind):
                raise error

        with pytest.raises(type(error)):
            separate_track(
                Separator(identity), track, paths, OutputOptions(), resume=resume, on_event=on_event
            )
        assert not list(tmp_path.rglob(".*"))

    fail(Reading, KeyboardInterrupt())
    fail(Progress, RuntimeError())
