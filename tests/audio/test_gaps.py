"""Sound that starts later than the picture, or lacks a piece."""

import av
import pytest
import torch
from mutagen.mp4 import MP4, MP4Cover

from films import RATE, film
from htdemucs.audio import AudioEncoding, AudioFile
from htdemucs.errors import AudioError

LATE = 24_000  # samples, half a second
CODECS = {
    "a.mp4": "aac",
    "a.mov": "pcm_s16le",
    "a.mkv": "flac",
    "b.mkv": "libopus",
    "a.ts": "mp2",
    "a.flv": "aac",
}


def read(path, **request):
    audio = AudioFile(path, channels=2, **request)
    waveform = torch.cat(list(audio), dim=1)
    assert audio.source_length == waveform.shape[1]
    return waveform, audio


def silence(waveform):
    """Return runs of silence: where each begins, and how many samples it has."""
    quiet = [*(waveform.abs().amax(0) < 1e-3).tolist(), False]
    runs, begin = [], None
    for place, is_quiet in enumerate(quiet):
        if is_quiet and begin is None:
            begin = place
        elif not is_quiet and begin is not None:
            if place - begin > 1_000:
                runs.append((begin, place - begin))
            begin = None
    return runs


@pytest.fixture
def sound(noise):
    return noise(2 * RATE)


@pytest.mark.parametrize("name", CODECS)
def test_late_sound_is_noted_and_can_be_put_in_step(tmp_path, sound, name):
    path = film(tmp_path / name, CODECS[name], sound, [LATE, LATE])
    plain, audio = read(path)
    assert audio.warnings == (
        f"the audio starts {audio.report.late:.3f} s late; set align to video to insert silence",
    )
    assert silence(plain) == []
    aligned, same = read(path, align="video")
    assert same.warnings == ()
    late = aligned.shape[1] - plain.shape[1]
    assert abs(late - LATE) < 0.03 * RATE  # encoder delay counts where the file tells of it
    assert not aligned[:, :late].any()
    assert torch.equal(aligned[:, late:], plain)
    assert same.duration - audio.duration == pytest.approx(late / RATE, abs=1e-3)


@pytest.mark.parametrize("name", CODECS)
def test_sound_in_step_needs_no_word(tmp_path, sound, name):
    path = film(tmp_path / name, CODECS[name], sound, [0, 0])
    plain, audio = read(path)
    assert audio.warnings == ()
    assert torch.equal(read(path, align="video")[0], plain)


@pytest.mark.parametrize("name", [name for name in CODECS if name != "a.mov"])
def test_gaps_are_noted_and_can_be_filled(tmp_path, sound, name):
    path = film(tmp_path / name, CODECS[name], sound, [0, LATE])
    plain, audio = read(path)
    gaps = "the audio has gaps of 0.500 s in all; set align to video to insert silence"
    assert audio.warnings == (gaps,)
    aligned, same = read(path, align="video")
    assert same.warnings == ()
    assert aligned.shape[1] - plain.shape[1] == pytest.approx(LATE, abs=RATE // 500)
    [(begin, length)] = silence(aligned)
    assert begin == pytest.approx(RATE, abs=5_000)  # a frame of FLAC
    assert length == pytest.approx(LATE, abs=600)


def test_without_pictures_sound_begins_at_its_first_sample(tmp_path, sound):
    path = film(tmp_path / "a.mka", "flac", sound, [LATE, LATE], pictures=False)
    assert read(path, align="video")[0].shape[1] == sound.shape[1]
    assert read(path)[1].warnings == ()


def test_a_cover_is_no_picture_to_be_in_step_with(tmp_path, sound):
    path = film(tmp_path / "a.m4a", "aac", sound, [LATE, LATE], pictures=False)
    expected, _ = read(path)
    tags = MP4(path)
    tags["covr"] = [MP4Cover(b"\x89PNG" + bytes(100), MP4Cover.FORMAT_PNG)]
    tags.save()
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert torch.equal(read(path, align="video")[0], expected)
    assert read(path)[1].warnings == ()


def test_pictures_that_start_late_leave_the_sound_alone(tmp_path, sound):
    path = film(tmp_path / "a.mkv", "flac", sound, [0, 0], picture_start=1)
    assert read(path, align="video")[0].shape[1] == sound.shape[1]
    assert read(path)[1].warnings == ()


def test_the_clock_of_a_transport_stream_may_be_set_anew(tmp_path, sound):
    data = film(tmp_path / "a.ts", "mp2", sound, [0, 0]).read_bytes()
    later = film(tmp_path / "b.ts", "mp2", sound, [100 * RATE] * 2, picture_start=100).read_bytes()
    for parts in ([data, data], [data, later]):
        path = tmp_path / "c.ts"
        path.write_bytes(b"".join(parts))
        aligned, _ = read(path, align="video")
        assert aligned.shape[1] == pytest.approx(2 * sound.shape[1], abs=6_000)


def test_a_clock_of_years_is_not_believed(tmp_path, sound):
    path = film(tmp_path / "a.mkv", "flac", sound, [0, 10**9 * RATE])
    assert read(path, align="video")[0].shape[1] == sound.shape[1]


def test_the_same_audio_at_another_rate_is_aligned_alike(tmp_path, sound):
    path = film(tmp_path / "a.mkv", "flac", sound, [LATE, LATE])
    audio = AudioFile(path, sample_rate=44_100, channels=1, align="video")
    other = audio.at_rate(RATE)
    assert (other.sample_rate, other.channels, other.align) == (RATE, 1, "video")
    assert sum(block.shape[1] for block in other) == sound.shape[1] + LATE
    assert sum(block.shape[1] for block in audio) == (sound.shape[1] + LATE) * 441 // 480


def test_only_two_alignments_exist(tmp_path, sound, store):
    path = store(tmp_path / "a.wav", sound, AudioEncoding())
    with pytest.raises(AudioError, match="cannot align to 'end'; choose start or video"):
        AudioFile(path, align="end")
