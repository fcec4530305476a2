"""The key that is estimated from a song's stems."""

import numpy as np
import pytest
import torch

from htdemucs import AudioEncoding
from htdemucs.audio import AudioFile, AudioWriter
from htdemucs.serve import musical_key
from htdemucs.serve.musical_key import KEYS, KeyEstimator

RATE = 8000
SECONDS = 0.5  # of a chord
PROGRESSIONS = {  # semitones of the chords above the tonic: I IV V I, i iv V i
    "": ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)),
    "m": ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7)),
}


def tones(pitches, cents=0):
    """(chord, note) MIDI pitches -> (L,): chords of tones with three harmonics."""
    frequencies = 440 * 2 ** ((np.array(pitches) - 69 + cents / 100) / 12)
    phases = 2 * np.pi * frequencies[..., None] * np.arange(int(SECONDS * RATE)) / RATE
    waves = np.sin(phases) + np.sin(2 * phases) / 2 + np.sin(3 * phases) / 3
    return torch.from_numpy(0.05 * waves.sum(1).reshape(-1)).float()


def song(key, cents=0):
    """Return stems (4, 2, L) in a key: noisy drums, bass, chords and a silent voice."""
    index = KEYS.index(key)
    chords = 60 + index % 12 + np.array(PROGRESSIONS["m" if index >= 12 else ""])
    bass, other = tones(chords[:, :1] - 24, cents), tones(chords, cents)
    drums = torch.randn(len(bass), generator=torch.Generator().manual_seed(0))
    return torch.stack([drums, bass, other, torch.zeros_like(bass)])[:, None].repeat(1, 2, 1)


def estimate(block, stems=("drums", "bass", "other", "vocals"), split=5 * RATE):
    estimator = KeyEstimator(RATE, stems)
    for part in block.split(split, dim=-1):
        estimator.push(part)
    return estimator.key()


@pytest.mark.parametrize("cents", [0, 40])
def test_every_key_is_found_in_any_tuning(cents):
    assert [estimate(song(key, cents)) for key in KEYS] == KEYS


@pytest.mark.parametrize("split", [777, 5000])
def test_the_size_of_the_blocks_does_not_matter(split):
    assert estimate(song("F#m"), split=split) == "F#m"


def test_without_pitches_there_is_no_key():
    assert estimate(torch.zeros(4, 2, 2 * RATE)) is None
    assert estimate(song("C")[..., :1000]) is None  # shorter than a window
    assert estimate(song("C")[:1], stems=["drums"]) is None


def test_noise_and_single_notes_have_no_key():
    assert estimate(song("C"), stems=["noise"]) is None
    assert estimate(tones([[60]] * 8)[None, None], stems=["other"]) is None


def test_without_drums_among_the_stems_all_are_used():
    assert estimate(song("Ebm")[2:3], stems=["other"]) == "Ebm"


@pytest.fixture
def song_file(tmp_path):
    """A song in F# minor without drums."""
    path = tmp_path / "song.flac"
    with AudioWriter(path, RATE, 2, AudioEncoding("flac")) as writer:
        writer.write(song("F#m")[1:].sum(0))
    return path


def test_the_server_stores_the_key_of_the_stems(
    client, state, worker, song_file, tmp_path, monkeypatch
):
    # The model is not trained, so no key is certain after it.
    monkeypatch.setattr(musical_key, "MIN_CORRELATION", -1)
    monkeypatch.setattr(musical_key, "MIN_MARGIN", 0)
    separated, again = (client.upload(song_file)["id"] for _ in range(2))
    assert client.track(separated)["key"] is None
    assert worker.work()
    files = sorted((tmp_path / "data" / "separated").rglob("*.wav"))
    stems = torch.stack([torch.cat(list(AudioFile(file)), dim=-1) for file in files])
    expected = estimate(stems, [file.stem for file in files])
    assert client.track(separated)["key"] == expected
    assert worker.work()  # which uses the same files
    assert client.track(again)["key"] is None
    state.preview_builder.build(again)
    assert client.track(again)["key"] == expected


def test_a_song_without_stems_has_the_key_of_its_file(client, state, song_file):
    track = state.tracks.add(
        kind="library", state="unseparated", name="song.flac", path=str(song_file)
    )
    state.preview_builder.build(track)
    assert client.track(track)["key"] == "F#m"
