"""Folders of estimates: how files are named, how long they are, and at which rate."""

import pytest
import torch

from evaluation_data import LENGTHS, RATE, STEMS, noise, run, write
from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter
from htdemucs.errors import EvaluationError
from htdemucs.evaluation import nsdr, to_document


def test_stems_are_those_with_estimates(data, estimates):
    for name in LENGTHS:
        (estimates / name / "drums.wav").unlink()
        write(estimates / name / "no_drums.wav", noise(0, 10))
    document = to_document(run(data, estimates))
    assert document["stems"] == ["bass", "other", "vocals"]
    assert not document["failures"]


def test_a_missing_estimate_is_a_bad_track(data, estimates):
    (estimates / "one" / "drums.wav").unlink()
    document = to_document(run(data, estimates))
    assert document["failures"]["one"] == (
        f"there is no estimate of drums in {estimates}; it should hold one/drums.wav"
    )
    assert list(document["tracks"]) == ["two"]


@pytest.mark.parametrize(
    "naming",
    [
        "test/{track}/{stem}.wav",
        "train/{track}/{stem}.wav",
        "{track}/{Stem}.WAV",
        "{track}_{stem}.wav",
        "{track} - {Stem}.wav",
        "{track}_({Stem})_model.v2.wav",
        "{track}/mixture_({Stem})_model.wav",
        "12_{track}_({Stem}).wav",
    ],
)
def test_estimates_named_by_other_programs(data, estimates, tmp_path, naming):
    for name in LENGTHS:
        for stem in STEMS:
            target = tmp_path / "other" / naming.format(track=name, stem=stem, Stem=stem.title())
            target.parent.mkdir(parents=True, exist_ok=True)
            (estimates / name / f"{stem}.wav").rename(target)
        write(target.with_name("no_vocals.wav"), noise(0, 10))
        write(target.with_name(f"{name}_(No Vocals).wav"), noise(0, 10))
    document = to_document(run(data, tmp_path / "other"))
    assert document["stems"] == list(STEMS)
    assert not document["failures"]
    assert document["mean"]["all"]["nsdr"] == pytest.approx(20, abs=1)


def test_estimates_of_a_track_whose_name_is_part_of_another(data, estimates, tmp_path):
    """`one_(vocals)` is not an estimate of a track "ne", nor `one more_vocals` one of "one"."""
    for stem in STEMS:
        (estimates / "one" / f"{stem}.wav").rename(estimates / f"one more_{stem}.wav")
    (data / "two").rename(data / "ne")
    with pytest.raises(EvaluationError, match="no estimates of ne"):
        run(data, estimates)


def test_two_files_for_one_estimate_are_refused(data, estimates):
    for name in LENGTHS:
        write(estimates / name / "Bass.flac", noise(0, 10), AudioEncoding("flac"))
    with pytest.raises(EvaluationError, match=r"has both Bass\.flac and bass\.wav; remove one"):
        run(data, estimates)


def test_a_folder_above_the_estimates_is_told_where_they_are(data, estimates, tmp_path):
    (tmp_path / "separated").mkdir()
    estimates.rename(tmp_path / "separated" / "a model")
    with pytest.raises(EvaluationError, match=r"try .*separated/a model$"):
        run(data, tmp_path / "separated")


def test_lengths_are_fitted_as_museval_does_and_noted(data, estimates, truth):
    whole = truth["one"][3]
    write(estimates / "one" / "vocals.wav", whole[:, : 2 * RATE])
    info = to_document(run(data, estimates, stems=("vocals",)))
    assert info["track_info"]["one"]["notes"] == [
        "the estimates are 1.015 s shorter than the track"
    ]
    assert info["tracks"]["one"]["vocals"]["nsdr"] == pytest.approx(
        nsdr(
            whole[None], torch.nn.functional.pad(whole[None, :, : 2 * RATE], (0, RATE + 123))
        ).item()
    )
    write(estimates / "one" / "vocals.wav", torch.cat([whole, whole], dim=-1))
    info = to_document(run(data, estimates, stems=("vocals",)))
    assert "longer than the track" in info["track_info"]["one"]["notes"][0]
    assert info["tracks"]["one"]["vocals"]["si_sdr"] is None  # without any error: infinite
    assert info["undefined"]["model"]["vocals"]["si_sdr"] == {"nan": 0, "inf": 1}
    assert info["track_info"]["one"]["museval_frames"]["vocals"] == {
        "total": 3,
        "nan": 0,
        "inf": 3,
        "sdr": [None] * 3,
    }


def test_estimates_that_are_not_numbers_are_counted(data, estimates, model_folder):
    broken = noise(0, LENGTHS["one"])
    broken[:, :5] = torch.nan
    write(estimates / "one" / "bass.wav", broken)
    info = to_document(run(data, estimates))["track_info"]["one"]
    assert info["non_finite_samples"] == 10
    assert "the estimate bass: 10 invalid samples" in info["notes"][0]


def test_estimates_at_another_rate_are_converted_and_noted(data, estimates):
    for name in LENGTHS:
        with AudioWriter(estimates / name / "bass.wav", 2 * RATE, 2, AudioEncoding("wav")) as file:
            file.write(noise(0, 2 * LENGTHS[name]))
    document = to_document(run(data, estimates, stems=("bass",)))
    assert document["track_info"]["one"]["notes"] == ["the estimate bass has 16000 Hz"]


def test_folders_without_estimates(data, tmp_path):
    with pytest.raises(EvaluationError, match="not a folder"):
        run(data, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"no estimates of one .* one/STEM\.wav"):
        run(data, tmp_path / "empty")
