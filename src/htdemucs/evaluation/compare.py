"""Compare two evaluations over the same tracks: paired differences, intervals and tests."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.errors import EvaluationError
from htdemucs.evaluation import aggregate
from htdemucs.evaluation.aggregate import ALL, Scores, Statistic
from htdemucs.evaluation.json_report import FORMAT, FORMAT_VERSION, plain

COMPARISON_FORMAT = "htdemucs-comparison"
RUNS = ("a", "b")
EXACT = 500  # tracks; of more, the sum of ranks has the normal distribution, p within 0.001
# These options are in other places of a comparison, or do not change the model's scores.
NOT_SETTINGS = ("model", "repo", "estimates", "stems", "metrics", "oracle", "seed")


def compare(
    a: str | Path,
    b: str | Path,
    *,
    stems: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two JSON files of `evaluate`; return the content of a JSON file.

    Differences are B - A: a positive one is in favour of B. A track is left out of a stem's
    statistics if its reference is silent or one of its two scores is undefined. The difference of
    "all" is the mean of those of the track's stems.

    Args:
        a: the first file.
        b: the second file.
        stems: compare only these; by default all that both files have.
        metrics: likewise.
        seed: seed of the bootstrap.

    Raises:
        EvaluationError: a file cannot be read; the files lack a stem or metric that was asked for,
            or have no track, stem or metric in common; or they define a metric differently.
    """
    runs = [_read(Path(path)) for path in (a, b)]
    chosen_stems = _common("stem", runs, [run.stems for run in runs], stems)
    chosen_metrics = _common("metric", runs, [run.metrics for run in runs], metrics)
    tracks = _common("track", runs, [tuple(run.tracks) for run in runs])
    _check_definitions(runs, chosen_metrics)
    scores = [run.scores(tracks, chosen_stems, chosen_metrics) for run in runs]
    differences = scores[1] - scores[0]
    tables = (aggregate.table(row, chosen_stems, chosen_metrics) for row in differences)
    document = {
        "format": COMPARISON_FORMAT,
        "version": FORMAT_VERSION,
        "stems": list(chosen_stems),
        "metrics": list(chosen_metrics),
        "statistics": _statistics(scores, chosen_stems, chosen_metrics, seed),
        "differences": dict(zip(tracks, tables, strict=True)),
        "silent": {
            track: [s for s in chosen_stems if any(s in r.tracks[track].silent_stems for r in runs)]
            for track in tracks
        },
        "only_in": {
            name: [track for track in run.tracks if track not in tracks]
            for name, run in zip(RUNS, runs, strict=True)
        },
        "notes": list(_notes(runs, tracks, chosen_metrics)),
        "settings": _different_settings(runs),
        "runs": {
            name: {"file": str(run.path), "model": run.model, "data": run.data}
            for name, run in zip(RUNS, runs, strict=True)
        },
        "seed": seed,
        "definitions": _definitions(runs[0], chosen_metrics),
    }
    return plain(document)


@dataclass(frozen=True)
class _Track:
    """A track of a JSON file; `references` are the hashes of the files of its true stems."""

    scores: Mapping[str, Mapping[str, float | None]]
    silent_stems: tuple[str, ...]
    sample_rate: int
    references: Mapping[str, str]


@dataclass(frozen=True)
class _Run:
    """What a comparison needs from the JSON file of an evaluation."""

    path: Path
    model: str
    data: str
    stems: tuple[str, ...]
    metrics: tuple[str, ...]
    tracks: Mapping[str, _Track]
    definitions: Mapping[str, str]
    options: Mapping[str, Any]

    def scores(self, tracks: Sequence[str], stems: Sequence[str], metrics: Sequence[str]) -> Scores:
        """Return (tracks, S, M), NaN for undefined scores and silent references."""
        values = [
            [
                [
                    None if stem in self.tracks[t].silent_stems else self.tracks[t].scores[stem][m]
                    for m in metrics
                ]
                for stem in stems
            ]
            for t in tracks
        ]
        return np.array(values, dtype=np.float64)


def _read(path: Path) -> _Run:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if (document["format"], document["version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("another format")
        run = _Run(
            path=path,
            model=str(document["model"]["name"]),
            data=str(document["data"]["path"]),
            stems=tuple(document["stems"]),
            metrics=tuple(document["options"]["metrics"]),
            tracks={
                name: _Track(
                    scores=scores,
                    silent_stems=tuple(document["track_info"][name]["silent_stems"]),
                    sample_rate=int(document["track_info"][name]["sample_rate"]),
                    references={
                        file: value
                        for file, value in document["track_info"][name]["sha256"].items()
                        if file.startswith("stems/")
                    },
                )
                for name, scores in document["tracks"].items()
            },
            definitions=dict(document["definitions"]),
            options=dict(document["options"]),
        )
        run.scores(tuple(run.tracks), run.stems, run.metrics)  # raises an error if one is missing
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as e:
        raise EvaluationError(
            f"{path} is not a JSON file of this version of htdemucs evaluate; evaluate again"
        ) from e
    return run


def _common(
    kind: str,
    runs: Sequence[_Run],
    names: Sequence[Sequence[str]],
    chosen: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the chosen names, or all that both runs have.

    Raises:
        EvaluationError: a run lacks a chosen name, or both have none in common.
    """
    for run, own in zip(runs, names, strict=True):
        if missing := [name for name in chosen or () if name not in own]:
            raise EvaluationError(f"{run.path} has no {kind} {missing[0]}; choose another one")
    common = tuple(dict.fromkeys(chosen or (name for name in names[0] if name in names[1])))
    if not common:
        raise EvaluationError(
            f"{runs[0].path} and {runs[1].path} have no {kind} in common; compare evaluations over "
            "the same tracks"
        )
    return common


def _check_definitions(runs: Sequence[_Run], metrics: Sequence[str]) -> None:
    """Raise EvaluationError if a metric, or a silent reference, is defined differently."""
    first, second = (run.definitions for run in runs)
    for name in (*metrics, "silent"):
        if first.get(name) != second.get(name):
            raise EvaluationError(
                f"{runs[0].path} and {runs[1].path} define {name} differently; evaluate both with "
                "the same version of htdemucs"
            )


def _notes(runs: Sequence[_Run], tracks: Sequence[str], metrics: Sequence[str]) -> Iterator[str]:
    """Yield what is not the same in both runs, and so limits the comparison."""
    first, second = runs
    pairs = {track: (first.tracks[track], second.tracks[track]) for track in tracks}
    for run, other in ((first, second), (second, first)):
        for kind in ("tracks", "stems", "metrics"):
            alone = [name for name in getattr(run, kind) if name not in getattr(other, kind)]
            if alone:
                yield f"{kind} only in {run.path}: {', '.join(alone)}"
    if "museval_sdr" in metrics and set(first.stems) != set(second.stems):
        yield (
            "museval_sdr leaves out the seconds in which a scored stem is silent, and the runs "
            "scored different stems; evaluate both with the same stems"
        )
    if other_files := [name for name, (a, b) in pairs.items() if not _same_references(a, b)]:
        yield (
            "the true stems are not the same files, so their scores may not be comparable: "
            f"{', '.join(other_files)}"
        )
    rates = {(a.sample_rate, b.sample_rate) for a, b in pairs.values()}
    for a, b in sorted(rates):
        if a != b:
            yield f"the stems were scored at {a} Hz in {first.path} and {b} Hz in {second.path}"


def _same_references(a: _Track, b: _Track) -> bool:
    """Return whether the files that have the same name have the same content; some must."""
    shared = a.references.keys() & b.references.keys()
    return bool(shared) and all(a.references[file] == b.references[file] for file in shared)


def _different_settings(runs: Sequence[_Run]) -> dict[str, dict[str, Any]]:
    """Return the options that differ, by run."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    return {
        name: {key: run.options.get(name) for key, run in zip(RUNS, runs, strict=True)}
        for name in names
        if name not in NOT_SETTINGS and runs[0].options.get(name) != runs[1].options.get(name)
    }


def _definitions(run: _Run, metrics: Sequence[str]) -> dict[str, str]:
    return {
        **{metric: run.definitions[metric] for metric in metrics},
        "silent": run.definitions["silent"],
        "mean, median": "of the differences B - A over the tracks that count",
        "all": "difference of a track: the mean of those of its stems that count",
        "interval": f"{aggregate.CONFIDENCE:.0%} percentile bootstrap over tracks, "
        f"{aggregate.RESAMPLES} draws",
        "p": "Wilcoxon signed-rank test of the differences, two-sided, without zeros, exact up to "
        f"{EXACT} tracks; not corrected for the number of tests",
        "wins, losses, ties": "tracks in which B is better, worse, equal",
    }


def _statistics(
    pair: Sequence[Scores], stems: Sequence[str], metrics: Sequence[str], seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {stem: {metric: statistics}}, with "all" as the last stem; pair: (tracks, S, M)."""
    counts = np.isfinite(pair).all(0)
    a, b = (_append_track_mean(np.where(counts, scores, np.nan)) for scores in pair)
    differences = b - a
    columns = {
        "tracks": np.isfinite(differences).sum(0),
        "a": aggregate.mean(a),
        "b": aggregate.mean(b),
    }
    statistics: dict[str, Statistic] = {"mean": aggregate.mean, "median": aggregate.median}
    for name, statistic in statistics.items():
        columns[name] = statistic(differences)
        columns[f"{name}_interval"] = aggregate.bootstrap(differences, statistic, seed)
    columns["p"] = np.apply_along_axis(wilcoxon, 0, differences)
    columns |= {
        "wins": (differences > 0).sum(0),
        "losses": (differences < 0).sum(0),
        "ties": (differences == 0).sum(0),
    }
    lists = {name: values.tolist() for name, values in columns.items()}
    return {
        stem: {
            metric: {name: values[i][j] for name, values in lists.items()}
            for j, metric in enumerate(metrics)
        }
        for i, stem in enumerate([*stems, ALL])
    }


def _append_track_mean(scores: Scores) -> Scores:
    """(tracks, S, M) -> (tracks, S + 1, M): the mean of each track's stems that are not NaN."""
    total = np.nansum(scores, axis=1, keepdims=True)
    count = np.isfinite(scores).sum(1, keepdims=True)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return np.concatenate([scores, mean], axis=1)


def wilcoxon(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; NaN if no difference is left.

    Zeros and NaN are left out, and equal differences share their mean rank. p is exact, by counting
    all signs; above `EXACT` differences, the sum of ranks is taken as normally distributed.
    """
    differences = differences[np.isfinite(differences) & (differences != 0)]
    if not len(differences):
        return math.nan
    _, inverse, counts = np.unique(np.abs(differences), return_inverse=True, return_counts=True)
    ranks = (2 * np.cumsum(counts) - counts + 1)[inverse]  # doubled, so that they are integers
    positive, total = int(ranks[differences > 0].sum()), int(ranks.sum())
    smaller = min(positive, total - positive)
    if len(ranks) > EXACT:
        deviation = math.sqrt(float(np.square(ranks).sum()) / 4)
        return math.erfc((total / 2 - smaller) / deviation / math.sqrt(2))
    chances = np.zeros(smaller + 1)  # of each sum of the ranks with a positive sign
    chances[0] = 1
    for rank in ranks:
        with_rank = np.zeros_like(chances)
        with_rank[rank:] = chances[: max(0, len(chances) - rank)]
        chances = (chances + with_rank) / 2
    return min(1.0, 2 * float(chances.sum()))
