"""`htdemucs evaluate`: score a model, or stems on disk, against the true stems."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.listeners import Terminal
from htdemucs.cli.shared import print_error, print_table, say, set_verbosity
from htdemucs.errors import EvaluationError

if TYPE_CHECKING:
    from htdemucs.evaluation import Evaluation, EvaluationOptions


@dataclass(frozen=True)
class ScoredEngine(opt.EngineOptions):
    """The engine's options; by default in fp32, so that scores are the same on every machine."""

    precision: opt.Precision = "fp32"


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Model: an official name or signature, hf://namespace/name, or a path. With "
            "--estimates: any name for them, or nothing."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Argument(help="MUSDB18-HQ, or any folder with files TRACK/STEM.wav (or flac)."),
    ] = None,
    repo: opt.Repo = None,
    estimates: Annotated[
        Path | None,
        typer.Option(help="Score the stems in this folder; separate nothing.", metavar="DIR"),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT", help="Write every score and all settings."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with pictures.")
    ] = None,
    stems: Annotated[
        str | None, typer.Option(help="Score only these, such as vocals,drums.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the tracks; the result is the same.")
    ] = 1,
    no_oracle: Annotated[
        bool, typer.Option("--no-oracle", help="Do not score the ideal ratio mask.")
    ] = False,
    device: opt.Device = None,
    *,
    engine: ScoredEngine,
    quiet: opt.Quiet = False,
) -> None:
    """Score a model, or stems separated earlier, against the true stems."""
    set_verbosity(quiet)
    if data is None:
        if estimates is None:
            raise typer.BadParameter("name a folder of tracks after the model", param_hint="DATA")
        model, data = estimates.resolve().name, Path(model)
    for path in (json_path, report):
        _check_target(path)
    from htdemucs.evaluation import EvaluationOptions, write_document, write_report

    options = EvaluationOptions(
        model=model,
        repo=repo,
        estimates=estimates,
        stems=tuple(stem.strip() for stem in stems.split(",")) if stems else None,
        device=device,
        **engine.settings(),
        oracle=not no_oracle,
        spectra=report is not None,
        workers=workers,
    )
    evaluation = _evaluate(data, options)
    if evaluation.results:
        if json_path:
            write_document(evaluation, json_path)
        if report:
            write_report(evaluation, report)
        if not quiet:
            _print_scores(evaluation)
    _conclude(evaluation)


def _evaluate(data: Path, options: "EvaluationOptions") -> "Evaluation":
    from htdemucs.evaluation import evaluate as evaluate_tracks
    from htdemucs.evaluation import find_multitracks

    find_multitracks(data)  # a wrong path is refused before anything is downloaded
    label = f"{options.model} on {data.name or data.resolve().name}"
    with Terminal(label) as terminal:
        return evaluate_tracks(data, options, on_progress=terminal)


def _check_target(path: Path | None) -> None:
    """Raise EvaluationError now, not after hours of work, if a file cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise EvaluationError(f"{path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"cannot write {path}: {error.strerror or error}") from error
    if not os.access(path.parent, os.W_OK):
        raise EvaluationError(f"cannot write {path}: no permission to write in its folder")


def _print_scores(evaluation: "Evaluation") -> None:
    from rich.markup import escape
    from rich.table import Table

    from htdemucs.evaluation import METRICS
    from htdemucs.evaluation.document import rows, statistics, to_document

    document = to_document(evaluation)
    tracks = document["data"]["tracks"]
    table = Table()
    table.add_column("stem")
    table.add_column("")
    for metric in METRICS:
        table.add_column(f"{metric}\nmean", justify="right")
        table.add_column("\nmedian", justify="right")
    for stem in (*evaluation.stems, "all"):
        table.add_section()
        for row, label in rows(evaluation).items():
            mean, median = statistics(row)
            pairs = ((document[mean][stem][m], document[median][stem][m]) for m in METRICS)
            table.add_row(
                escape(stem) if row == "model" else "",
                label,
                *(_decibels(value) for pair in pairs for value in pair),
                style="bold" if row == "model" else "dim",
            )
    print_table(table, f"{evaluation.options.model}: dB over {tracks} tracks")
    for line in _remarks(document):
        print(line)


def _remarks(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines below the table: intervals of means, undefined scores, time and memory."""
    from htdemucs.evaluation import METRICS

    bounds = {metric: document["mean_interval"]["all"][metric] for metric in METRICS}
    known = [
        f"{metric} {_decibels(low)} to {_decibels(high)}"
        for metric, (low, high) in bounds.items()
        if low is not None
    ]
    if known:
        yield f"95 % interval of the mean of all stems: {', '.join(known)}"
    for metric in METRICS:
        counts = [
            f"{stem} in {count} ({kind})"
            for stem, metrics in document["undefined"]["model"].items()
            for kind, count in metrics[metric].items()
            if count
        ]
        if counts:
            yield f"tracks left out of {metric}: {', '.join(counts)}"
    tracks = document["data"]["tracks"]
    silent = [
        f"{s} in {count} of {tracks} tracks" for s, count in document["silent"].items() if count
    ]
    if silent:
        yield f"silent, and left out of the averages: {', '.join(silent)}"
    run = document["run"]
    usage = [f"{document['data']['duration'] / 60:.1f} minutes of audio in {run['seconds']:.0f} s"]
    if run["real_time_factor"] is not None:
        usage.append(f"real-time factor of the separation {run['real_time_factor']:.3g}")
    if run["peak_memory"]:
        usage.append(f"peak memory {run['peak_memory'] / 1e9:.2f} GB")
    if run["peak_device_memory"]:
        usage.append(f"peak GPU memory {run['peak_device_memory'] / 1e9:.2f} GB")
    yield "; ".join(usage)


def _conclude(evaluation: "Evaluation") -> None:
    """Print notes and failures; exit with 1 if a track failed."""
    for note in evaluation.notes:
        say(f"note: {note}")
    for result in evaluation.results:
        for note in result.notes:
            say(f"note: {result.name}: {note}")
    for name, message in evaluation.failures.items():
        print_error(f"{name}: {message}")
    if evaluation.failures:
        names = ", ".join(evaluation.failures)
        print_error(f"{len(evaluation.failures)} not scored: {names}")
        raise typer.Exit(1)


def _decibels(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
