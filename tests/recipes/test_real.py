"""Recordings become tracks: the right files in each stem, aligned, equally long and credited."""

import json

import numpy as np
import pytest
import soundfile

from recipes.mini import real
from recipes.mini.mixing.audio import SAMPLE_RATE, band, rms
from recipes.mini.mixing.mixdown import FULL_SCALE, STEMS
from recipes.mini.recordings import ALBUM, COLLECTIONS, NARROW, Collection, Recording


def write(path, seconds, level=0.1, rate=SAMPLE_RATE, channels=2, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    soundfile.write(path, level * noise, rate)


def collection(*recordings):
    return Collection("pack", "CC0-1.0", recordings)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source" / "pack"
    write(folder / "song" / "song_KICK.wav", 1.0, seed=1)
    write(folder / "song" / "song_KICK HATS.flac", 1.02, seed=2)
    write(folder / "song" / "song_SYNTH_mobile.wav", 1.0, rate=24_000, channels=1, seed=3)
    write(folder / "loops" / "beat.wav", 5.0, seed=4)
    write(folder / "loops" / "shout.wav", 0.5, seed=5)
    (folder / "SOURCE.txt").write_text("repository: somewhere\nlicence: CC0\n")
    return tmp_path / "source"


SONG = Recording("a song", "song", {"drums": ("*KICK.*", "*HATS*"), "bass": ("*SYNTH*",)})
LOOPS = Recording("loops", "loops", {"drums": ("beat*",), "vocals": ("shout*",)}, loops=True)


def built(recording, source):
    files = real.find_files(source / "pack" / recording.folder, recording.stems)
    return real.render_track(recording, files)


def test_a_track_has_every_stem_and_what_is_missing_is_silent(source, tmp_path):
    real.build([collection(SONG)], source, tmp_path / "out")
    track = tmp_path / "out" / "pack" / "a song"
    infos = {stem: soundfile.info(track / f"{stem}.wav") for stem in STEMS}
    shapes = {(i.frames, i.samplerate, i.channels, i.subtype) for i in infos.values()}
    assert shapes == {(round(1.02 * SAMPLE_RATE), SAMPLE_RATE, 2, "PCM_16")}
    assert not soundfile.read(track / "other.wav")[0].any()
    about = json.loads((track / "track.json").read_text())
    assert about["made_with"]["drums"] == ["song_KICK.wav", "song_KICK HATS.flac"]


def test_files_of_a_stem_are_added_from_their_starts_by_one_gain(source):
    stems = built(SONG, source)
    kick, hats = (
        real.read_audio(source / "pack" / "song" / f"song_KICK{n}") for n in (".wav", " HATS.flac")
    )
    expected = hats.copy()
    expected[: len(kick)] += kick
    gain = np.abs(stems["drums"]).max() / np.abs(expected).max()
    assert np.abs(stems["drums"] - gain * expected).max() < 2
    total = sum(stems[stem].astype(int) for stem in STEMS)
    loudest = max(np.abs(x).max() for x in (total, *stems.values()))
    assert loudest == pytest.approx(real.PEAK * FULL_SCALE, abs=3)


def test_an_edge_cuts_every_stem_alike(source):
    narrow = Recording(SONG.name, SONG.folder, SONG.stems, edge=NARROW)
    for stem in ("drums", "bass"):
        sound = built(narrow, source)[stem].astype(np.float32)
        assert rms(band(sound, 1.4 * NARROW, None, 8)) < 0.01 * rms(sound)


def test_loops_are_repeated_and_one_shots_rest(source):
    stems = built(LOOPS, source)
    length = len(stems["drums"])
    assert length >= real.LOOP_SECONDS * SAMPLE_RATE
    assert all(len(sound) == length for sound in stems.values())
    beat = 5 * SAMPLE_RATE
    assert np.array_equal(stems["drums"][:beat], stems["drums"][beat : 2 * beat])
    shout, rest = round(0.5 * SAMPLE_RATE), round(real.REST_SECONDS * SAMPLE_RATE)
    assert not stems["vocals"][shout : shout + rest].any()
    assert stems["vocals"][shout + rest : shout + rest + 1000].any()


def test_a_second_run_keeps_finished_tracks(source, tmp_path):
    real.build([collection(SONG)], source, tmp_path / "out")
    before = (tmp_path / "out" / "pack" / "a song" / "bass.wav").stat().st_mtime_ns
    real.build([collection(SONG, LOOPS)], source, tmp_path / "out")
    assert (tmp_path / "out" / "pack" / "a song" / "bass.wav").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "pack" / "loops").is_dir()


def test_origin_licence_and_files_are_credited(source, tmp_path):
    real.build([collection(SONG)], source, tmp_path / "out")
    page = (tmp_path / "out" / "ATTRIBUTION.md").read_text()
    assert "## pack (CC0-1.0)" in page
    assert "> repository: somewhere" in page
    assert "bass from song_SYNTH_mobile.wav" in page


def test_a_missing_file_is_one_line(source, tmp_path, capsys):
    assert real.main(["--source", str(source), "--out", str(tmp_path), "--collections",
                      "everythingisremixed"]) == 1  # fmt: skip
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "ATTRIBUTION.md").exists()


def test_a_file_belongs_to_one_stem(source):
    with pytest.raises(ValueError, match=r"song_KICK HATS\.flac is in two stems"):
        real.find_files(source / "pack" / "song", {"drums": ("*HATS*",), "vocals": ("*KICK *",)})


def test_the_album_of_the_test_songs_artist_can_be_left_out():
    assert ALBUM in COLLECTIONS
    assert len({c.name for c in COLLECTIONS}) == len(COLLECTIONS)
    names = [(c.name, r.name) for c in COLLECTIONS for r in c.recordings]
    assert len(set(names)) == len(names)
    assert all(set(r.stems) <= set(STEMS) for c in COLLECTIONS for r in c.recordings)
