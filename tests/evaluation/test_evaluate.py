"""The document of scores: what is in it, and what a bad track does to it."""

import hashlib
import json
import math
import re
import statistics
from pathlib import Path

import pytest
import torch

from evaluation_data import LENGTHS, RATE, STEMS, CrashingJob, noise, run, write
from htdemucs import AudioEncoding, Separator, load_model
from htdemucs.errors import (
    CheckpointError,
    EvaluationError,
    ModelNotFoundError,
    SegmentTooLongError,
)
from htdemucs.evaluation import (
    EvaluationOptions,
    FileEstimator,
    ModelEstimator,
    MultitrackReader,
    evaluate,
    find_multitracks,
    museval_frames,
    museval_sdr,
    nsdr,
    read_multitrack,
    score_track,
    si_sdr,
    to_document,
    workers,
    write_document,
)
from htdemucs.evaluation.estimates import NAMINGS
from htdemucs.events import Loaded, Loading

ROOT = Path(__file__).parents[2]
ROWS = ("mean", "median", "mixture", "oracle")


def without_run(evaluation):
    return {key: value for key, value in to_document(evaluation).items() if key != "run"}


def test_the_keys_of_the_document(data, estimates):
    document = to_document(run(data, estimates))
    assert list(document["tracks"]) == ["one", "two"]
    for track in document["tracks"].values():
        assert list(track) == list(STEMS)
        assert all(list(s) == ["nsdr", "museval_sdr", "si_sdr"] for s in track.values())
    for row in ROWS:
        assert list(document[row]) == [*STEMS, "all"]
        assert list(document[row]["all"]) == ["nsdr", "museval_sdr", "si_sdr"]
        assert len(document[f"{row}_interval"]["bass"]["nsdr"]) == 2
    assert set(document["track_info"]) == {"one", "two"}
    assert document["failures"] == {}
    json.dumps(document, allow_nan=False)


def test_the_keys_are_documented(data, estimates):
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    document = to_document(run(data, estimates))
    described = set(re.findall(r"`(\w+)(?:\.TRACK[^`]*)?`", text)) | {"format", "version", "stems"}
    intervals = {key for key in document if key.endswith("_interval")}
    assert set(document) - intervals <= described


def test_the_names_of_estimates_are_documented():
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for naming in NAMINGS:
        name = naming.format(track="TRACK", stem="STEM", number=7).replace("*", "…")
        assert f"`{name}.wav`" in text


def test_scores_of_files_are_those_of_their_waveforms(data, estimates, truth):
    document = to_document(run(data, estimates))
    for name, references in truth.items():
        errors = [0.1 * noise(99 + i, LENGTHS[name]) for i in range(len(STEMS))]
        wrong = references + torch.stack(errors)
        mixture = references.sum(0).expand_as(references)
        for row, given in (("tracks", wrong), ("mixture_tracks", mixture)):
            expected = {
                "nsdr": nsdr(references, given),
                "museval_sdr": museval_sdr(references, given, RATE),
                "si_sdr": si_sdr(references, given),
            }
            for metric, values in expected.items():
                found = [document[row][name][stem][metric] for stem in STEMS]
                assert found == pytest.approx(values.tolist(), abs=1e-5)


def test_the_seconds_are_kept_and_have_the_median(data, estimates, truth):
    document = to_document(run(data, estimates))
    for name, references in truth.items():
        wrong = references + torch.stack([0.1 * noise(99 + i, LENGTHS[name]) for i in range(4)])
        for i, frames in enumerate(museval_frames(references, wrong, RATE)):
            kept = document["track_info"][name]["museval_frames"][STEMS[i]]["sdr"]
            assert kept == pytest.approx(frames.tolist(), abs=1e-5)
            score = document["tracks"][name][STEMS[i]]["museval_sdr"]
            assert score == pytest.approx(statistics.median(kept))


def test_chosen_metrics_only(data, estimates):
    document = to_document(run(data, estimates, metrics=("fullness", "nsdr")))
    for name in ("mean", "mixture", "oracle"):
        assert list(document[name]["all"]) == ["fullness", "nsdr"]
        assert 0 < document[name]["bass"]["fullness"] < 100
    for metrics in (("nsdr", "pesq"), ("nsdr", "nsdr"), ()):
        with pytest.raises(EvaluationError, match=r"no metric pesq|once"):
            EvaluationOptions("x", metrics=metrics)


def test_averages_are_over_tracks(data, estimates):
    document = to_document(run(data, estimates))
    vocals = [document["tracks"][name]["vocals"]["nsdr"] for name in LENGTHS]
    assert document["mean"]["vocals"]["nsdr"] == pytest.approx(sum(vocals) / 2)
    stems = [document["mean"][stem]["nsdr"] for stem in STEMS]
    assert document["mean"]["all"]["nsdr"] == pytest.approx(sum(stems) / 4)
    assert document["mixture"]["all"]["nsdr"] < 0 < document["oracle"]["all"]["nsdr"]


def test_a_model_scores_what_it_separates(data, truth, model_folder):
    options = {"shifts": 1, "overlap": 0.5, "segment": 0.5, "seed": 3}
    document = to_document(run(data, model=str(model_folder), **options))
    separator = Separator(load_model(model_folder, device="cpu"), **options)
    for name, references in truth.items():
        stems = separator.separate(references.sum(0), RATE)
        expected = nsdr(references, torch.stack([stems[stem] for stem in STEMS])).tolist()
        found = [document["tracks"][name][stem]["nsdr"] for stem in STEMS]
        assert found == pytest.approx(expected, abs=1e-4)
    assert list(document["tracks"]["one"]) == ["drums", "bass", "other", "vocals"]
    assert document["run"]["real_time_factor"] > 0
    assert document["run"]["peak_memory"] > 1e7


def test_separated_files_score_like_the_model(data, model_folder, tmp_path):
    separator = Separator(load_model(model_folder, device="cpu"), shifts=1)
    encoding = AudioEncoding("wav", bit_depth=32)
    for name in LENGTHS:
        mixture = torch.cat([f.mixture for f in _frames(data / name)], dim=-1)
        for stem, waveform in separator.separate(mixture, RATE).items():
            write(tmp_path / "out" / name / f"{stem}.wav", waveform, encoding)
    files = to_document(run(data, tmp_path / "out"))
    model = to_document(run(data, model=str(model_folder)))
    for name in LENGTHS:
        for stem in STEMS:
            assert files["tracks"][name][stem] == pytest.approx(
                model["tracks"][name][stem], abs=1e-3
            )


def _frames(folder):
    return MultitrackReader(read_multitrack(folder)).frames()


def test_any_number_of_workers_gives_the_same(data, model_folder, forkserver):
    """To the bit, with a network; and progress reaches the end."""
    events = []
    alone = run(data, model=str(model_folder))
    options = EvaluationOptions(str(model_folder), workers=2)
    shared = evaluate(data, options, on_progress=events.append)
    assert without_run(shared) == without_run(alone)
    assert to_document(shared)["run"]["workers"] == 2
    assert [result.name for result in shared.results] == ["one", "two"]
    assert events[:2] == [Loading(str(model_folder)), Loaded(str(model_folder), "cpu")]
    assert all(0 <= p.done <= p.total for p in events[2:])


def test_a_process_that_dies_takes_only_its_track_with_it(data, estimates, forkserver):
    scoring = CrashingJob(EvaluationOptions("x", estimates=estimates), STEMS, "cpu")
    deadly_first = find_multitracks(data)[::-1]
    results = dict(workers.score_in_parallel(scoring, deadly_first))
    outcomes = {folder.name: result for folder, result in results.items()}
    assert outcomes["two"] == workers.WORKER_DIED
    assert outcomes["one"].scores["model"]["bass"].nsdr > 0


def test_a_bad_track_does_not_stop_the_others(data, estimates):
    (data / "one" / "drums.wav").write_bytes(b"nothing")
    document = to_document(run(data, estimates))
    assert list(document["tracks"]) == ["two"]
    assert "drums.wav" in document["failures"]["one"]
    assert document["mean_interval"]["bass"]["nsdr"] == [None, None]


def test_all_tracks_bad_gives_an_empty_document(data, estimates):
    for name in LENGTHS:
        (data / name / "drums.wav").write_bytes(b"nothing")
    document = to_document(run(data, estimates))
    assert document["tracks"] == {}
    assert document["mean"]["all"]["nsdr"] is None
    assert set(document["failures"]) == {"one", "two"}


def test_chosen_stems_only(data, estimates, model_folder):
    document = to_document(run(data, estimates, stems=("vocals",)))
    assert list(document["tracks"]["one"]) == ["vocals"]
    assert list(document["oracle"]) == ["vocals", "all"]
    everything = to_document(run(data, estimates))
    assert document["oracle"]["vocals"] == everything["oracle"]["vocals"]  # the mask knows them all
    model = to_document(run(data, model=str(model_folder), stems=("vocals", "bass")))
    assert list(model["tracks"]["one"]) == ["vocals", "bass"]


def test_a_mixture_that_is_not_the_sum_is_noted(data, estimates, truth):
    mixture = truth["one"].sum(0)
    write(data / "one" / "mixture.wav", 0.9 * mixture)
    document = to_document(run(data, estimates))
    [note] = document["track_info"]["one"]["notes"]
    assert "not the sum of the stems: 19.1 dB" in note
    assert document["track_info"]["one"]["mixture_match"] == pytest.approx(19.08, abs=0.01)
    assert document["track_info"]["two"]["notes"] == []


def test_a_silent_stem_is_noted_and_not_hidden(data, estimates):
    write(data / "one" / "drums.wav", torch.zeros(2, LENGTHS["one"]))
    document = to_document(run(data, estimates))
    info = document["track_info"]["one"]
    assert info["silent_stems"] == ["drums"]
    assert any("drums silent throughout" in note for note in info["notes"])
    assert document["tracks"]["one"]["bass"]["museval_sdr"] is None
    assert document["tracks"]["one"]["drums"]["si_sdr"] is None
    assert document["tracks"]["one"]["drums"]["nsdr"] < 0
    assert document["undefined"]["model"]["bass"]["museval_sdr"] == {"nan": 1, "inf": 0}
    assert document["mean"]["bass"]["museval_sdr"] is not None  # of the other track


@pytest.mark.parametrize("dither", [0, 3e-5])
def test_a_silent_stem_is_in_no_mean_and_counted(data, estimates, dither):
    before = to_document(run(data, estimates))
    write(data / "one" / "drums.wav", dither * noise(0, LENGTHS["one"]))
    document = to_document(run(data, estimates))
    assert document["silent"] == {"bass": 0, "drums": 1, "other": 0, "vocals": 0}
    for row in ("mean", "median"):
        assert document[row]["drums"]["nsdr"] == before["tracks"]["two"]["drums"]["nsdr"]
    for row in ("mixture", "oracle"):
        assert document[row]["drums"] == before[f"{row}_tracks"]["two"]["drums"]
        assert document["undefined"][row]["drums"]["nsdr"] == {"nan": 1, "inf": 0}
    assert document["mean"]["all"]["nsdr"] > 19


@pytest.mark.filterwarnings("ignore:a segment is not finite")
def test_a_model_that_gives_no_numbers_is_refused(data, model_folder):
    model = load_model(model_folder, device="cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    separator = Separator(model)
    with pytest.raises(CheckpointError, match="numbers that are not finite"):
        score_track(read_multitrack(data / "two"), ModelEstimator(separator))


def test_hashes_options_and_versions(data, estimates, model_folder):
    document = to_document(run(data, estimates, seed=5))
    wav = (data / "one" / "bass.wav").read_bytes()
    hashes = document["track_info"]["one"]["sha256"]
    assert hashes["stems/bass.wav"] == hashlib.sha256(wav).hexdigest()
    assert set(hashes) == {f"stems/{s}.wav" for s in (*STEMS, "mixture")} | {
        f"estimates/{s}.wav" for s in STEMS
    }
    assert document["options"]["seed"] == 5
    assert document["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    model = to_document(run(data, model=str(model_folder)))
    weights = (model_folder / "model.safetensors").read_bytes()
    assert model["model"]["sha256"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert model["data"]["sha256"] == document["data"]["sha256"]
    assert model["data"]["estimates_sha256"] is None
    write(data / "one" / "bass.wav", noise(1, 10))
    changed = to_document(run(data, estimates))
    assert changed["data"]["sha256"] != document["data"]["sha256"]
    assert changed["data"]["estimates_sha256"] == document["data"]["estimates_sha256"]


def test_without_the_oracle(data, estimates):
    document = to_document(run(data, estimates, oracle=False))
    assert document["oracle"] is None
    assert "oracle_tracks" not in document
    assert document["mixture"]["all"]["nsdr"] is not None


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"model": "nonsense"}, ModelNotFoundError, "nonsense"),
        ({"segment": 99}, SegmentTooLongError, "99"),
        ({"overlap": 1.5}, Exception, "overlap"),
        ({"stems": ("kazoo",)}, Exception, "kazoo"),
        ({"device": "gameboy"}, Exception, "gameboy"),
        ({"workers": 0}, EvaluationError, "workers"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_impossible_requests(data, model_folder, options, error, match):
    with pytest.raises(error, match=match):
        run(data, **({"model": str(model_folder)} | options))


def test_writing_where_one_cannot(data, estimates, tmp_path):
    evaluation = run(data, estimates)
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="cannot write"):
        write_document(evaluation, tmp_path / "file" / "out.json")


def test_threads_are_as_before(data, estimates):
    before = torch.get_num_threads()
    score_track(read_multitrack(data / "one"), FileEstimator(estimates, STEMS))
    assert torch.get_num_threads() == before
