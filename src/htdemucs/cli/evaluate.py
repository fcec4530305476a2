"""`htdemucs evaluate`: score a model, or stems on disk, and compare two sets of scores."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
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
htdemucs evaluate --compare a.json b.json
"""
COLUMNS = 3  # metrics in a table of 80 columns


@opt.command("evaluate", examples=EXAMPLES)
@click.argument("model", required=False)
@click.argument("data", required=False, type=click.Path(path_type=Path))
@opt.option(
    "--estimates",
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="FOLDER",
    help="Score the stems in this folder instead of separating.",
)
@opt.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="A.json B.json",
    help="Compare the scores of two evaluations over the same tracks; no MODEL and no DATA.",
)
@opt.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="FILE",
    help="Write all scores and settings, or the comparison, as JSON.",
)
@opt.option(
    "--report",
    type=click.Path(path_type=Path),
    heading=opt.OUTPUT,
    metavar="FILE.html",
    help="Write a report with plots.",
)
@opt.option("--stems", heading=opt.OUTPUT, metavar="STEM,...", help="Score only these stems.")
@opt.option(
    "--metrics",
    heading=opt.OUTPUT,
    metavar="METRIC,...",
    help="nsdr, museval_sdr, si_sdr, and bleedless and fullness, which take longer; by default "
    "the first three or, in a comparison, all.",
)
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
    model: str | None,
    data: Path | None,
    repo: Path | None,
    estimates: Path | None,
    compare: tuple[Path, Path] | None,
    json_path: Path | None,
    report: Path | None,
    stems: str | None,
    metrics: str | None,
    workers: int,
    no_oracle: bool,
    device: str | None,
    engine: dict[str, Any],
    quiet: bool,
) -> None:
    """Score a model, or existing stems, against the true stems.

    MODEL is a name, a signature, hf://namespace/name or a path; with --estimates it is an optional
    label. DATA is MUSDB18-HQ, or any folder of files TRACK/STEM.wav (or flac).
    With --compare, scores of two evaluations are compared, track by track.
    By default the precision is fp32, so that scores are the same on every machine.
    """
    set_verbosity(quiet=quiet)
    for path in (json_path, report):
        _check_target(path)
    written = [path.resolve() for path in (json_path, report) if path]
    for path in compare or ():
        if path.resolve() in written:
            raise click.UsageError(f"{path} is read; write to another file")
    if len(set(written)) < len(written):
        raise click.UsageError("--json and --report must be different files")
    names = opt.split_list(metrics)
    if compare:
        if model or estimates:
            raise click.UsageError("--compare takes two JSON files and no model, data or estimates")
        _compare(compare, opt.split_list(stems), names, engine["seed"], json_path, report, quiet)
        return
    if model is None:
        raise click.UsageError("specify a model and a folder of tracks")
    if data is None:
        if estimates is None:
            raise click.UsageError("specify a folder of tracks after the model")
        model, data = estimates.resolve().name, Path(model)
    from htdemucs.evaluation import (
        DEFAULT_METRICS,
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
        metrics=names or DEFAULT_METRICS,
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


def _compare(
    files: tuple[Path, Path],
    stems: tuple[str, ...] | None,
    metrics: tuple[str, ...] | None,
    seed: int,
    json_path: Path | None,
    report: Path | None,
    quiet: bool,
) -> None:
    """Compare two JSON files; write and print the comparison."""
    from htdemucs.evaluation import compare, write_comparison_report, write_json

    comparison = compare(*files, stems=stems, metrics=metrics, seed=seed)
    if json_path:
        write_json(comparison, json_path)
    if report:
        write_comparison_report(comparison, report)
    if not quiet:
        _print_comparison(comparison)
    for note in comparison["notes"]:
        print_status(f"note: {note}")


def _print_comparison(comparison: Mapping[str, Any]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from htdemucs.evaluation.report import format_p, units

    for name, run in comparison["runs"].items():
        print(f"{name.upper()}: {run['model']} ({run['file']})")
    for option, values in comparison["settings"].items():
        print(f"{option}: {values['a']} in A, {values['b']} in B")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("")
    for heading in ("A", "B", "B - A", "95 % interval", "median", "p", "won:lost"):
        table.add_column(heading, justify="right")
    for metric in comparison["metrics"]:
        table.add_section()
        table.add_row(metric, style="bold")
        for stem, by_metric in comparison["statistics"].items():
            row = by_metric[metric]
            low, high = map(_format_score, row["mean_interval"])
            table.add_row(
                escape(stem),
                *(_format_score(row[name]) for name in ("a", "b", "mean")),
                "–" if row["mean_interval"][0] is None else f"{low} to {high}",
                _format_score(row["median"]),
                format_p(row["p"]),
                f"{row['wins']}:{row['losses']}",
            )
    tracks = counted(len(comparison["differences"]), "track")
    print_table(table, f"B - A: {units(comparison['metrics'])} over {tracks}")
    for metric in comparison["metrics"]:
        left_out = [
            f"{stem} in {len(comparison['differences']) - by_metric[metric]['tracks']}"
            for stem, by_metric in comparison["statistics"].items()
            if by_metric[metric]["tracks"] < len(comparison["differences"])
        ]
        if left_out:
            print(fill(f"tracks left out of {metric}: {', '.join(left_out)}", 80))
    print("A, B and B - A are means; the interval is the bootstrap's of the mean of B - A;")
    print("p is that of Wilcoxon's signed-rank test; won and lost are tracks, seen from B")


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

    from htdemucs.evaluation.json_report import rows, statistics, to_document
    from htdemucs.evaluation.report import units

    document = to_document(evaluation)
    tracks = counted(document["data"]["tracks"], "track")
    all_metrics = evaluation.options.metrics
    for start in range(0, len(all_metrics), COLUMNS):
        metrics = all_metrics[start : start + COLUMNS]
        table = Table()
        table.add_column("stem")
        table.add_column("")
        for metric in metrics:
            table.add_column(f"{metric}\nmean", justify="right")
            table.add_column("\nmedian", justify="right")
        for stem in (*evaluation.stems, "all"):
            table.add_section()
            for row, label in rows(evaluation).items():
                mean, median = statistics(row)
                pairs = ((document[mean][stem][m], document[median][stem][m]) for m in metrics)
                table.add_row(
                    escape(stem) if row == "model" else "",
                    label,
                    *(_format_score(value) for pair in pairs for value in pair),
                    style="bold" if row == "model" else "dim",
                )
        print_table(table, f"{evaluation.options.model}: {units(metrics)} over {tracks}")
    for line in _footnotes(document):
        print(line)


def _footnotes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines below the table: intervals, undefined scores, time and memory."""
    metrics = document["options"]["metrics"]
    bounds = {metric: document["mean_interval"]["all"][metric] for metric in metrics}
    known = [
        f"{metric} {_format_score(low)} to {_format_score(high)}"
        for metric, (low, high) in bounds.items()
        if low is not None
    ]
    if known:
        yield f"95 % interval of the mean of all stems: {', '.join(known)}"
    for metric in metrics:
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
