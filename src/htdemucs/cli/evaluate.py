"""`htdemucs evaluate`: score a model, or stems on disk, against the true stems."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_error, print_status, print_table, set_verbosity
from htdemucs.cli.progress import ConsoleReporter
from htdemucs.errors import EvaluationError
from htdemucs.results import counted

if TYPE_CHECKING:
    from htdemucs.evaluation import Evaluation


EXAMPLES = """
htdemucs evaluate mini musdb18hq/test
htdemucs evaluate htdemucs musdb18hq/test --json scores.json --report scores.html
htdemucs evaluate --estimates stems/ musdb18hq/test
"""


@opt.command("evaluate", examples=EXAMPLES)
@click.argument("model")
@click.argument("data", required=False, type=click.Path(path_type=Path))
@opt.option(
    "--estimates",
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="FOLDER",
    help="Score the stems in this folder instead of separating.",
)
@opt.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="FILE",
    help="Write all scores and settings as JSON.",
)
@opt.option(
    "--report",
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="FILE.html",
    help="Write a report with plots.",
)
@opt.option("--stems", heading=opt.OUTPUT, metavar="STEM,...", help="Score only these stems.")
@opt.flag("--no-oracle", heading=opt.OUTPUT, help="Do not score the ideal ratio mask.")
@opt.repo_option
@opt.device_option
@opt.engine_options(precision="fp32")
@opt.option(
    "--workers",
    type=int,
    callback=opt.number(1),
    default=1,
    heading=opt.QUALITY,
    metavar="N",
    help="Processes that share the tracks; the result is the same.",
)
@opt.quiet_option
def evaluate(
    *,
    model: str,
    data: Path | None,
    repo: Path | None,
    estimates: Path | None,
    json_path: Path | None,
    report: Path | None,
    stems: str | None,
    workers: int,
    no_oracle: bool,
    device: str | None,
    engine: dict[str, Any],
    quiet: bool,
) -> None:
    """Score a model, or existing stems, against the true stems.

    MODEL is a name, a signature, hf://namespace/name or a path; with --estimates it is an optional
    label. DATA is MUSDB18-HQ, or any folder of files TRACK/STEM.wav (or flac).
    By default the precision is fp32, so that scores are the same on every machine.
    """
    set_verbosity(quiet=quiet)
    if data is None:
        if estimates is None:
            raise click.UsageError("specify a folder of tracks after the model")
        model, data = estimates.resolve().name, Path(model)
    for path in (json_path, report):
        _check_target(path)
    from htdemucs.evaluation import (
        EvaluationOptions,
        find_multitracks,
        write_document,
        write_report,
    )
    from htdemucs.evaluation import evaluate as evaluate_tracks

    options = EvaluationOptions(
        model=model,
        repo=repo,
        estimates=estimates,
        stems=opt.split_list(stems),
        device=device,
        **engine,
        oracle=not no_oracle,
        spectra=report is not None,
        workers=workers,
    )
    find_multitracks(data)  # reject a wrong path before a model is downloaded
    label = f"{options.model} on {data.name or data.resolve().name}"
    with ConsoleReporter(label) as reporter:
        evaluation = evaluate_tracks(data, options, on_progress=reporter)
    if evaluation.results:
        if json_path:
            write_document(evaluation, json_path)
        if report:
            write_report(evaluation, report)
        if not quiet:
            _print_scores(evaluation)
    _print_notes_and_failures(evaluation)


def _check_target(path: Path | None) -> None:
    """Raise EvaluationError if a file cannot be written, before hours of work."""
    if path is None:
        return
    if path.is_dir():
        raise EvaluationError(f"{path} is a folder; specify a file in it")
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
    from htdemucs.evaluation.json_report import rows, statistics, to_document

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
                *(_format_score(value) for pair in pairs for value in pair),
                style="bold" if row == "model" else "dim",
            )
    print_table(table, f"{evaluation.options.model}: dB over {counted(tracks, 'track')}")
    for line in _footnotes(document):
        print(line)


def _footnotes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines below the table: intervals, undefined scores, time and memory."""
    from htdemucs.evaluation import METRICS

    bounds = {metric: document["mean_interval"]["all"][metric] for metric in METRICS}
    known = [
        f"{metric} {_format_score(low)} to {_format_score(high)}"
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
    tracks = counted(document["data"]["tracks"], "track")
    silent = [f"{s} in {count} of {tracks}" for s, count in document["silent"].items() if count]
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


def _print_notes_and_failures(evaluation: "Evaluation") -> None:
    """Print notes and failures; exit with 1 if a track failed."""
    for note in evaluation.notes:
        print_status(f"note: {note}")
    for result in evaluation.results:
        for note in result.notes:
            print_status(f"note: {result.name}: {note}")
    for name, message in evaluation.failures.items():
        print_error(f"{name}: {message}")
    if evaluation.failures:
        names = ", ".join(evaluation.failures)
        print_error(f"{len(evaluation.failures)} not scored: {names}")
        raise click.exceptions.Exit(1)


def _format_score(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
