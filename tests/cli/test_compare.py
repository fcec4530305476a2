"""`htdemucs evaluate --compare`: two JSON files of `htdemucs evaluate`, compared track by track."""

import copy
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import scipy.stats
import torch
from click.testing import CliRunner

from evaluation_data import STEMS, noise, write, write_track
from htdemucs import evaluation
from htdemucs.cli.main import cli
from htdemucs.evaluation.compare import wilcoxon

TRACKS = [f"track {letter}" for letter in "ABCDEFG"]
LENGTH = 8000  # a second
METRICS = ("nsdr", "museval_sdr", "si_sdr", "bleedless", "fullness")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a.json and b.json: seven tracks each, six in common; vocals of one silent."""
    folder = tmp_path_factory.mktemp("runs")
    for i, track in enumerate([*TRACKS, "track H"]):
        stems = write_track(folder / "data" / track, 10 * i, LENGTH, mixture=False)
        if track == "track B":
            stems["vocals"] = torch.zeros(2, LENGTH)
            write(folder / "data" / track / "vocals.wav", stems["vocals"])
        for run, level in (("a", 0.1), ("b", 0.2 if track == "track C" else 0.05 + 0.01 * i)):
            if track == ("track H" if run == "a" else "track A"):
                continue
            for j, (stem, waveform) in enumerate(stems.items()):
                error = level * noise(100 * j + i, LENGTH)
                write(folder / run / track / f"{stem}.wav", waveform + error)
    for run in "ab":
        words = ["evaluate", folder / "data", "--estimates", folder / run, "--no-oracle", "-q"]
        words += ["--json", folder / f"{run}.json", "--metrics", ",".join(METRICS)]
        result = CliRunner().invoke(cli, list(map(str, words)))
        assert result.exit_code == 1, result.output  # a track has no estimates
    return folder


@pytest.fixture
def document(runs):
    return json.loads((runs / "a.json").read_text())


def check_schema(document, name):
    folder = Path(evaluation.__file__).parent
    schema = json.loads((folder / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)


def test_statistics_are_those_of_the_paired_differences(run, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    files, out = (runs / "a.json", runs / "b.json"), tmp_path / "c.json"
    result = run("evaluate", "--compare", *files, "--json", out, "--report", tmp_path / "c.html")
    assert result.exit_code == 0, result.output
    comparison = json.loads(out.read_text())
    check_schema(comparison, "comparison")
    a, b = (json.loads(file.read_text())["tracks"] for file in files)
    for stem in STEMS:
        tracks = [t for t in TRACKS[1:] if (t, stem) != ("track B", "vocals")]
        for metric in METRICS:
            row = comparison["statistics"][stem][metric]
            pairs = [(a[t][stem][metric], b[t][stem][metric]) for t in tracks]
            d = np.array([y - x for x, y in pairs if x is not None])
            assert row["tracks"] == len(d)
            assert row["mean"] == pytest.approx(d.mean())
            assert row["b"] - row["a"] == pytest.approx(d.mean())
            assert row["median"] == pytest.approx(np.median(d))
            counts = ((d > 0).sum(), (d < 0).sum(), (d == 0).sum())
            assert (row["wins"], row["losses"], row["ties"]) == counts
            p = scipy.stats.wilcoxon(d[d != 0], method="exact").pvalue
            assert row["p"] == pytest.approx(p)
            for name in ("mean", "median"):
                low, high = row[f"{name}_interval"]
                assert d.min() <= low <= row[name] <= high <= d.max()
    drums = comparison["statistics"]["drums"]["nsdr"]
    assert (drums["wins"], drums["losses"], drums["ties"]) == (3, 2, 1)  # F has the same error
    everything = comparison["differences"]["track B"].values()
    assert [row["nsdr"] is None for row in everything] == [False, False, False, True]
    assert max(map(len, result.stdout.splitlines()[2:])) <= 80
    for word in (*STEMS, *METRICS, "all", "B - A", "median", "won:lost"):
        assert word in result.stdout
    row = comparison["statistics"]["all"]["nsdr"]
    assert row["tracks"] == 6
    [line] = [x for x in result.stdout.splitlines() if x.startswith("all")][:1]
    low, high = row["mean_interval"]
    assert line.split() == [
        "all",
        *(f"{row[name]:.2f}" for name in ("a", "b", "mean")),
        *(f"{low:.2f}", "to", f"{high:.2f}"),
        *(f"{row['median']:.2f}", f"{row['p']:.2g}", f"{row['wins']}:{row['losses']}"),
    ]
    assert "tracks left out of nsdr: vocals in 1" in result.stdout
    assert f"note: tracks only in {files[0]}: track A" in result.stderr
    assert f"note: tracks only in {files[1]}: track H" in result.stderr
    page = (tmp_path / "c.html").read_text()
    body = page[page.index("<body>") :].replace("</html>", "")
    ElementTree.fromstring(body)  # every tag is closed
    assert body.count("<circle") == 5 * (6 * 4 - 1) - 3  # museval's of the track with a silent stem
    assert body.count('class="silent"') == 1
    assert f"{row['mean']:.2f}" in body
    assert "track H" in body


def test_the_interval_depends_on_the_seed_alone(run, runs, tmp_path):
    def interval(seed):
        out = tmp_path / "c.json"
        words = ("--compare", runs / "a.json", runs / "b.json", "--metrics", "nsdr", "--stems")
        result = run("evaluate", *words, "bass", "--seed", seed, "--json", out, "-q")
        assert (result.exit_code, result.output) == (0, "")
        statistics = json.loads(out.read_text())["statistics"]
        assert {stem: list(row) for stem, row in statistics.items()} == {
            "bass": ["nsdr"],
            "all": ["nsdr"],
        }
        return statistics["bass"]["nsdr"]["mean_interval"]

    assert interval(1) == interval(1) != interval(2)


def test_a_run_compared_with_itself(run, runs):
    result = run("evaluate", "--compare", runs / "a.json", runs / "a.json", "--metrics", "nsdr")
    assert result.exit_code == 0
    assert result.stderr == ""
    [line] = [line for line in result.stdout.splitlines() if line.startswith("bass")]
    assert line.split()[3:] == ["0.00", "0.00", "to", "0.00", "0.00", "–", "0:0"]


def rename_stem(document):
    for table in (*document["tracks"].values(), document["mean"]):
        table["flute"] = table.pop("vocals")
    document["stems"] = [*STEMS[:-1], "flute"]


def change_rate(document):
    document["track_info"]["track C"]["sample_rate"] = 16_000


def change_file(document):
    document["track_info"]["track D"]["sha256"]["stems/bass.wav"] = 64 * "0"


def change_overlap(document):
    document["options"]["overlap"] = 0.75


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (rename_stem, "stems only in {b}: flute"),
        (rename_stem, "evaluate both with the same stems"),
        (change_rate, "the stems were scored at 8000 Hz in {a} and 16000 Hz in {b}"),
        (change_file, "the true stems are not the same files, so their scores may not be"),
        (change_overlap, "overlap: 0.25 in A, 0.75 in B"),
    ],
)
def test_what_differs_between_the_runs_is_named(run, runs, document, tmp_path, change, output):
    change(document)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    result = run("evaluate", "--compare", runs / "a.json", other)
    assert result.exit_code == 0
    assert output.format(a=runs / "a.json", b=other) in result.output


def other_window(document):
    document["definitions"]["museval_sdr"] = "windows of 2 s"


def other_tracks(document):
    document["tracks"] = {f"{name}!": row for name, row in document["tracks"].items()}
    document["track_info"] = {f"{name}!": row for name, row in document["track_info"].items()}


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (other_window, [], "define museval_sdr differently; evaluate both with the same version"),
        (other_tracks, [], "have no track in common"),
        (lambda document: document.update(format="x"), [], "is not a JSON file of this version"),
        (lambda document: document.pop("track_info"), [], "is not a JSON file of this version"),
        (lambda document: document["tracks"]["track C"].pop("bass"), [], "is not a JSON file"),
        (lambda document: None, ["--stems", "flute"], "has no stem flute"),
        (lambda document: None, ["--metrics", "pesq"], "has no metric pesq"),
        (None, [], "cannot read"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    run, runs, document, tmp_path, change, words, message
):
    other = tmp_path / "other.json"
    if change:
        change(document)
        other.write_text(json.dumps(document))
    result = run("evaluate", "--compare", runs / "a.json", other, *words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_comparison_takes_no_model(run, runs):
    files = (runs / "a.json", runs / "b.json")
    assert run("evaluate", "mini", "--compare", *files).exit_code == 2
    assert run("evaluate", "--compare", *files, "--estimates", runs).exit_code == 2
    assert run("evaluate", "--compare", files[0]).exit_code == 2


def test_the_file_follows_its_schema(run, runs, document, tmp_path):
    check_schema(document, "evaluation")
    assert document["failures"]
    assert document["track_info"]["track B"]["silent_stems"] == ["vocals"]
    out = tmp_path / "with-oracle.json"
    words = ("--estimates", runs / "b", "--json", out, "-q")
    assert run("evaluate", runs / "data" / "track D", *words).exit_code == 0
    check_schema(json.loads(out.read_text()), "evaluation")
    wrong = copy.deepcopy(document)
    wrong["tracks"]["track C"]["bass"]["nsdr"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        check_schema(wrong, "evaluation")


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_the_p_is_scipys(count):
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    expected = scipy.stats.wilcoxon(differences, method="exact").pvalue
    assert wilcoxon(differences) == pytest.approx(expected, rel=1e-12)


def test_the_p_of_ties_zeros_and_many_tracks():
    ties = np.array([0, 1, 1, -1, 2, 2, 3, -2, 5, np.nan, 4, 4])
    method = scipy.stats.PermutationMethod(n_resamples=10_000)  # all 2^10 signs
    kept = ties[np.isfinite(ties) & (ties != 0)]
    expected = scipy.stats.wilcoxon(kept, method=method).pvalue
    assert wilcoxon(ties) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(wilcoxon(np.zeros(3)))
    many = np.random.default_rng(0).normal(0.03, 1, 501)
    expected = scipy.stats.wilcoxon(many, method="approx").pvalue
    assert wilcoxon(many) == pytest.approx(expected, rel=1e-9)
    assert wilcoxon(many[1:]) == pytest.approx(
        scipy.stats.wilcoxon(many[1:], method="approx").pvalue, abs=1e-3
    )


@pytest.mark.parametrize(
    "words",
    [("--json", "a.json"), ("--report", "b.json"), ("--json", "x.json", "--report", "x.json")],
)
def test_no_file_is_overwritten_that_is_read_or_written(runs, monkeypatch, words):
    monkeypatch.chdir(runs)
    before = [(runs / name).read_bytes() for name in ("a.json", "b.json")]
    result = CliRunner().invoke(cli, ["evaluate", "--compare", "a.json", "b.json", *words])
    assert result.exit_code == 2
    assert [(runs / name).read_bytes() for name in ("a.json", "b.json")] == before
