"""Folders with more files than stems: no other file changes a score, and a note names each."""

import pytest
import torch

from evaluation_data import LENGTHS, STEMS, noise, write
from htdemucs.evaluation import EvaluationOptions, evaluate, to_document

SCORES = ("tracks", "mean", "mixture_tracks", "oracle_tracks", "failures")


def run(data, estimates=None, model="tiny", **options):
    return to_document(evaluate(data, EvaluationOptions(model, estimates=estimates, **options)))


def notes(document, track="one"):
    return " ".join(document["track_info"][track]["notes"])


def match(document):
    return [info["mixture_match"] for info in document["track_info"].values()]


UNKNOWN = {  # not named after stems
    "Our song": lambda s: s.sum(0),
    "vocals (copy)": lambda s: s[3],
    "Instrumental limited": lambda s: torch.tanh(9 * s[:3].sum(0)),
    "residual": lambda s: 1e-3 * noise(78, s.shape[-1]),
}
SUMS = dict.fromkeys(["accompaniment", "No_Vocals", "instrumental"], lambda s: s[:3].sum(0))
MIXTURES = {"mix": lambda s: s.sum(0), "linear_mixture": lambda s: 0.9 * s.sum(0)}
STEM = {"guitar": lambda s: noise(77, s.shape[-1])}


@pytest.mark.parametrize("with_mixture", [True, False], ids=["mixture", "no mixture"])
def test_no_file_beside_a_models_stems_changes_a_score(data, truth, model_folder, with_mixture):
    for track in LENGTHS if not with_mixture else ():
        (data / track / "mixture.wav").unlink()
    before = run(data, model=str(model_folder))
    extra = UNKNOWN | {"No_Vocals": SUMS["No_Vocals"]} | STEM | (MIXTURES if with_mixture else {})
    for track, stems in truth.items():
        for name, make in extra.items():
            write(data / track / f"{name}.wav", make(stems))
    after = run(data, model=str(model_folder))
    assert {key: after[key] for key in SCORES} == {key: before[key] for key in SCORES}
    assert match(after) == match(before)
    for name in extra:
        reason = "mixture.wav is the mixture" if name in MIXTURES else "not a source of the model"
        assert f"{name}.wav ({reason})" in notes(after)


@pytest.mark.parametrize("name", UNKNOWN | SUMS | MIXTURES)
def test_no_file_beside_stems_with_estimates_changes_a_score(data, estimates, truth, name):
    before = run(data, estimates)
    make = (UNKNOWN | SUMS | MIXTURES)[name]
    for track, stems in truth.items():
        write(data / track / f"{name}.wav", make(stems))
    after = run(data, estimates)
    assert after["stems"] == list(STEMS)
    assert {key: after[key] for key in SCORES} == {key: before[key] for key in SCORES}
    assert match(after) == match(before)
    reasons = dict.fromkeys(UNKNOWN, "not a known stem")
    reasons |= dict.fromkeys(SUMS, "contains bass, drums, other")
    reasons |= dict.fromkeys(MIXTURES, "mixture.wav is the mixture")
    assert f"left out: {name}.wav ({reasons[name]})" in notes(after)


def test_vocals_and_accompaniment_are_two_stems(tmp_path, truth, model_folder):
    for track, stems in truth.items():
        write(tmp_path / "two" / track / "vocals.wav", stems[3])
        write(tmp_path / "two" / track / "accompaniment.wav", stems[:3].sum(0))
        write(tmp_path / "two" / track / "mixture.wav", stems.sum(0))
        write(tmp_path / "out" / track / "vocals.wav", stems[3] + 0.1 * noise(5, stems.shape[-1]))
        write(tmp_path / "out" / track / "accompaniment.wav", 0.9 * stems[:3].sum(0))
    document = run(tmp_path / "two", tmp_path / "out")
    assert document["stems"] == ["accompaniment", "vocals"]
    assert notes(document) == ""
    assert document["mean"]["accompaniment"]["nsdr"] == pytest.approx(20, abs=0.1)
    model = run(tmp_path / "two", model=str(model_folder), stems=("vocals",))
    assert model["oracle"] == {k: v for k, v in document["oracle"].items() if k == "vocals"} | {
        "all": document["oracle"]["vocals"]
    }


def test_a_sum_is_scored_only_where_it_is_asked_for(data, estimates, truth):
    for track, stems in truth.items():
        write(data / track / "accompaniment.wav", stems[:3].sum(0))
        write(estimates / track / "accompaniment.wav", 0.9 * stems[:3].sum(0))
    document = run(data, estimates)
    assert document["stems"] == list(STEMS)
    assert "accompaniment.wav (contains bass, drums, other)" in notes(document)
    document = run(data, estimates, stems=("vocals", "accompaniment"))
    assert document["mean"]["accompaniment"]["nsdr"] == pytest.approx(20, abs=0.1)
    assert "bass.wav (part of accompaniment)" in notes(document)
    assert document["track_info"]["one"]["mixture_match"] > 100
    document = run(data, estimates, stems=("bass", "accompaniment"))
    assert document["failures"]["one"] == "bass is part of accompaniment; score one at a time"


def test_stems_and_estimates_may_have_other_names(data, estimates):
    before = run(data, estimates)
    for track in LENGTHS:
        (data / track / "vocals.wav").rename(data / track / "Vox.wav")
        (estimates / track / "drums.wav").rename(estimates / track / "Drum.wav")
    after = run(data, estimates)
    assert after["stems"] == list(STEMS)
    assert after["tracks"] == before["tracks"]


def test_a_damaged_file_beside_the_stems_does_no_harm(data, model_folder):
    (data / "one" / "voice memo.m4a").write_bytes(b"nothing")
    document = run(data, model=str(model_folder), oracle=False)
    assert not document["failures"]
    assert notes(document) == "left out: voice memo.m4a (not a source of the model)"


def test_capital_letters_in_the_names_of_files_make_no_difference(data, model_folder, estimates):
    before = run(data, model=str(model_folder), oracle=False)
    for stem in STEMS:
        path = data / "one" / f"{stem}.wav"
        path.rename(path.with_name(f"{stem.title()}.WAV"))
    after = run(data, model=str(model_folder), oracle=False)
    assert after["tracks"] == before["tracks"]
    assert run(data, estimates)["stems"] == list(STEMS)
