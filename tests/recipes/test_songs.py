"""Plans, scores and melodies: decided by a seed, and in key."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from recipes.mini import plan
from recipes.mini.composing import charts
from recipes.mini.composing.notes import melody, nearest, to_hz
from recipes.mini.composing.score import HELD_OUT_PROGRESSIONS, TRAINING_PROGRESSIONS, compose


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_plan_depends_on_seed_split_and_index_alone():
    songs = list(plan.songs(3, "train", 1.0))
    assert songs[7] == plan.song(3, "train", 7)
    assert songs != list(plan.songs(4, "train", 1.0))
    assert plan.song(3, "train", 0) != plan.song(3, "valid", 0)


def test_a_longer_set_begins_with_the_shorter_one():
    short = list(plan.songs(0, "train", 0.5))
    assert list(islice(plan.songs(0, "train", 2.0), len(short))) == short


def test_the_training_set_has_the_hours_asked_for():
    seconds = [song.seconds for song in plan.songs(0, "train", 2.0)]
    assert sum(seconds) >= 2 * 3600
    assert sum(seconds[:-1]) < 2 * 3600
    assert min(seconds) >= 60
    assert max(seconds) <= 120


def test_every_prefix_has_all_kinds_in_proportion():
    kinds = [song.kind for song in plan.songs(0, "train", 2.0)]
    for count in (20, 40, 60):
        assert kinds[:count].count("electronic") == pytest.approx(0.45 * count, abs=1)


def test_purposes_have_independent_random_numbers():
    song = plan.song(0, "train", 5)
    assert song.generator("bass").random() == song.generator("bass").random()
    assert song.generator("bass").random() != song.generator("drums").random()
    assert song.generator("bass").random() != replace(song, index=6).generator("bass").random()


def test_held_out_songs_share_no_progression_with_training():
    for mode, progressions in HELD_OUT_PROGRESSIONS.items():
        assert not set(progressions) & set(TRAINING_PROGRESSIONS[mode])


def test_chords_and_sections_cover_the_song_without_gaps():
    score = compose(rng(1), 120, 61)
    assert score.chords[0].start == 0
    assert score.chords[-1].end >= 61
    for before, after in pairwise(score.chords):
        assert before.end == pytest.approx(after.start)
    assert sum(section.bars for section in score.sections) == len(score.chords)
    assert score.chord_at(score.bar * 1.5) == score.chords[1]
    assert score.section_at(0) == score.sections[0]


def test_a_melody_stays_in_key_and_in_its_span():
    score = compose(rng(2), 100, 40)
    notes = melody(rng(3), score, 0, 20, centre=67)
    assert len(notes) > 5
    assert set(notes["pitch"].astype(int) % 12) <= set(score.scale)
    assert np.abs(notes["pitch"] - 67).max() <= 9 + 6
    assert notes["start"].max() < 20


def test_pitches():
    assert to_hz(69) == 440
    assert nearest(61.2, (0, 4, 7)) == 60


def test_a_chart_names_every_chord_and_groove():
    score = compose(rng(0), 90, 30)
    text = charts.chart(score, ["ballad:Ballad"] * len(score.sections), seed=7)
    lines = text.splitlines()
    assert lines[:2] == ["RndSeed 7", "Tempo 90.00"]
    bars = [line.split() for line in lines if line[0].isdigit()]
    assert [int(number) for number, _ in bars] == list(range(1, len(score.chords) + 1))
