"""Files beside the stems: none of them changes a score, and each is named."""

import shutil

import pytest
import torch

from evaluation_data import LENGTHS, RATE, STEMS, noise, write
from htdemucs import AudioEncoding
from htdemucs.errors import EvaluationError
from htdemucs.evaluation import (
    EvaluationOptions,
    MultitrackReader,
    evaluate,
    read_multitrack,
    to_document,
)
from htdemucs.evaluation.dataset import choose_stems

SCORES = ("tracks", "mean", "mixture_tracks", "oracle_tracks", "failures")
WAV16 = AudioEncoding("wav")


def run(data, estimates=None, model="tiny", **options):
    return to_document(evaluate(data, EvaluationOptions(model, estimates=estimates, **options)))


def notes(document, track="one"):
    return " ".join(document["track_info"][track]["notes"])


def match(document):
    return [info["mixture_match"] for info in document["track_info"].values()]


EXTRA = {
    "accompaniment": (lambda s: s[0] + s[1] + s[2], "the sum of bass, drums and other"),
    "No_Vocals": (lambda s: s[0] + s[1] + s[2], "the sum of bass, drums and other"),
    "instrumental": (lambda s: s[0] + s[1] + s[2], "the sum of bass, drums and other"),
    "Our song": (lambda s: s.sum(0), "the sum of bass, drums, other and vocals"),
    "vocals (copy)": (lambda s: s[3], "the same as vocals"),
    "mix": (lambda s: s.sum(0), "mixture.wav is the mixture"),
    "linear_mixture": (lambda s: 0.9 * s.sum(0), "mixture.wav is the mixture"),
    "Instrumental limited": (lambda s: torch.tanh(9 * (s[0] + s[1] + s[2])), ""),
    "guitar": (lambda s: noise(77, s.shape[-1]), ""),
    "residual": (lambda s: 1e-3 * noise(78, s.shape[-1]), ""),
}


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("with_mixture", [True, False], ids=["mixture", "no mixture"])
def test_no_file_beside_a_models_stems_changes_a_score(
    data, truth, model_folder, name, with_mixture
):
    if not with_mixture and name in ("mix", "linear_mixture"):
        return
    for track in LENGTHS if not with_mixture else ():
        (data / track / "mixture.wav").unlink()
    before = run(data, model=str(model_folder))
    make, reason = EXTRA[name]
    for track, stems in truth.items():
        write(data / track / f"{name}.wav", make(stems))
    after = run(data, model=str(model_folder))
    assert {key: after[key] for key in SCORES} == {key: before[key] for key in SCORES}
    assert match(after) == match(before)
    assert f"left out: {name}.wav ({reason or 'no source of the model'})" in notes(after)


@pytest.mark.parametrize("name", EXTRA)
def test_no_file_beside_stems_with_estimates_changes_a_score(data, estimates, truth, name):
    before = run(data, estimates)
    make, reason = EXTRA[name]
    for track, stems in truth.items():
        write(data / track / f"{name}.wav", make(stems))
    after = run(data, estimates)
    if name != "residual":  # it is so soft that the mixture may hold it
        assert f"left out: {name}.wav ({reason or 'not in the mixture'})" in notes(after)
        assert match(after) == match(before)
        assert {key: after[key] for key in SCORES} == {key: before[key] for key in SCORES}
    assert after["stems"] == list(STEMS)
    assert after["mean"] == before["mean"]


@pytest.mark.parametrize(
    "name", ["mix.wav", "Mixture.WAV", "one_MIX.wav", "linear_mixture.wav", "Full Mix.wav",
             "Mixdown.wav", "One - mixture.wav"],
)  # fmt: skip
def test_a_mixture_is_known_by_its_usual_names(data, estimates, name):
    before = run(data, estimates)
    mixture = data / "one" / "mixture.wav"
    scaled = 0.5 * torch.cat([frame.mixture for frame in reader(data / "one").frames()], -1)
    mixture.unlink()
    write(data / "one" / name, scaled)
    after = run(data, estimates)
    assert after["stems"] == list(STEMS)
    assert after["tracks"] == before["tracks"]
    assert after["track_info"]["one"]["mixture_match"] == pytest.approx(0.0, abs=0.1)


def reader(folder):
    return MultitrackReader(read_multitrack(folder))


def test_sums_are_known_to_rounding(tmp_path):
    """Files of 16 bits, whose sum is rounded once more."""
    stems = {stem: noise(i, RATE) for i, stem in enumerate(STEMS)}
    for stem, waveform in stems.items():
        write(tmp_path / f"{stem}.wav", waveform, WAV16)
    write(tmp_path / "rhythm.wav", stems["bass"] + stems["drums"], WAV16)
    nearly = stems["bass"] + stems["vocals"]
    nearly[:, RATE // 2] += 0.5  # one sample
    write(tmp_path / "nearly.wav", nearly, WAV16)
    chosen = choose_stems(read_multitrack(tmp_path), STEMS)
    assert chosen.left_out == {"rhythm.wav": "the sum of bass and drums"}
    assert set(chosen.stems) == {*STEMS, "nearly"}


def test_a_sum_of_what_comes_late_is_no_sum_before(tmp_path):
    """The vocals begin in the third second; until then the backing equals two stems."""
    stems = {stem: noise(i, 4 * RATE) for i, stem in enumerate(STEMS)}
    stems["vocals"][:, : 2 * RATE] = 0
    for stem, waveform in stems.items():
        write(tmp_path / f"{stem}.wav", waveform)
    write(tmp_path / "backing.wav", stems["bass"] + stems["drums"] + stems["vocals"])
    chosen = choose_stems(read_multitrack(tmp_path), STEMS)
    assert chosen.left_out == {"backing.wav": "the sum of bass, drums and vocals"}
    wrong = stems["bass"] + stems["drums"] + 0.5 * stems["vocals"]
    write(tmp_path / "backing.wav", wrong)
    assert choose_stems(read_multitrack(tmp_path), STEMS).left_out == {}


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
    assert "accompaniment.wav (the sum of bass, drums and other)" in notes(document)
    document = run(data, estimates, stems=("vocals", "accompaniment"))
    assert document["mean"]["accompaniment"]["nsdr"] == pytest.approx(20, abs=0.1)
    assert "bass.wav (part of accompaniment)" in notes(document)
    assert document["track_info"]["one"]["mixture_match"] > 100
    document = run(data, estimates, stems=("bass", "accompaniment"))
    assert document["failures"]["one"] == (
        "there is no accompaniment beside bass, drums, other, vocals; "
        "accompaniment.wav is the sum of bass, drums and other"
    )


def test_parts_of_a_scored_stem_are_left_out(tmp_path, truth):
    bass, drums, other, vocals = truth["one"]
    for name, waveform in {
        "drums": drums, "vocals": vocals, "guitar": bass, "piano": other, "other": bass + other,
    }.items():  # fmt: skip
        write(tmp_path / f"{name}.wav", waveform)
    chosen = choose_stems(read_multitrack(tmp_path), ["drums", "other", "vocals"])
    assert list(chosen.stems) == ["drums", "other", "vocals"]
    assert chosen.left_out == dict.fromkeys(("guitar.wav", "piano.wav"), "part of other")


def test_a_silent_stem_belongs_to_the_song(data, truth):
    """The mixture is the sum of the others with it and without it."""
    stems = truth["one"].clone()
    stems[1] = 0
    write(data / "one" / "drums.wav", stems[1])
    write(data / "one" / "mixture.wav", stems.sum(0))
    write(data / "one" / "guitar.wav", noise(33, LENGTHS["one"]))
    chosen = choose_stems(read_multitrack(data / "one"), ["bass"])
    assert list(chosen.stems) == list(STEMS)
    assert chosen.left_out == {"guitar.wav": "not in the mixture"}


def test_many_files_are_taken_as_they_are(tmp_path):
    for i in range(13):
        write(tmp_path / f"{i}.wav", noise(i, 100))
    shutil.copy(tmp_path / "0.wav", tmp_path / "1.wav")
    assert choose_stems(read_multitrack(tmp_path), ["0"]).left_out == {}


def test_a_damaged_file_beside_the_stems_does_no_harm(data, model_folder):
    (data / "one" / "voice memo.m4a").write_bytes(b"nothing")
    document = run(data, model=str(model_folder), oracle=False)
    assert not document["failures"]
    assert notes(document) == "left out: voice memo.m4a (no source of the model)"


def test_capital_letters_in_the_names_of_files_make_no_difference(data, model_folder, estimates):
    before = run(data, model=str(model_folder), oracle=False)
    for stem in STEMS:
        path = data / "one" / f"{stem}.wav"
        path.rename(path.with_name(f"{stem.title()}.WAV"))
    after = run(data, model=str(model_folder), oracle=False)
    assert after["tracks"] == before["tracks"]
    assert run(data, estimates)["stems"] == list(STEMS)


def test_an_accent_is_the_same_however_it_is_spelt(tmp_path):
    write(tmp_path / "Voz e\u0301tnica.wav", noise(0, 10))
    assert read_multitrack(tmp_path).missing(["voz \u00e9tnica"]) == []


def test_two_spellings_of_one_stem_are_refused(tmp_path):
    for name in ("Bass.wav", "bass.flac"):
        (tmp_path / name).write_bytes(b"RIFF")
    with pytest.raises(EvaluationError, match=r"both Bass\.wav and bass\.flac; remove one"):
        read_multitrack(tmp_path)
