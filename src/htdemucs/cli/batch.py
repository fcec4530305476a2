"""`htdemucs batch`: separate libraries of any size, on this machine or on a Ray cluster."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import SignalHandler, print_error, print_status, status_console
from htdemucs.cli.progress import ConsoleReporter, event_reporter
from htdemucs.events import (
    Downloading,
    Event,
    EventCallback,
    Failed,
    Found,
    Loaded,
    result_events,
)
from htdemucs.fsutil import model_folder
from htdemucs.results import STATUSES, TrackResult, counted

if TYPE_CHECKING:
    from htdemucs.batch import Track
    from htdemucs.batch.plan import Plan
    from htdemucs.batch.ray_cluster import WorkerInfo, Workers

TABLE = "results.parquet"
MAX_PRINTED = 20  # failures that are printed one by one

EXAMPLES = """
htdemucs batch songs/ stems
htdemucs batch list.txt s3://bucket/stems --format flac
htdemucs batch table.parquet out --column file --workers 8 --address auto
"""


@opt.command("batch", examples=EXAMPLES)
@click.argument("source")
@click.argument("out")
@opt.output_options
@opt.name_option
@opt.repo_option
@opt.option(
    "-d",
    "--device",
    heading=opt.MODEL,
    metavar="cuda|cpu",
    help="By default cuda if there is one.",
)
@opt.engine_options()
@opt.compile_option
@opt.skip_existing_option
@opt.option(
    "--column", heading=opt.MANY, metavar="NAME", help="Column of paths in a table; default path."
)
@opt.option(
    "--workers",
    type=int,
    callback=opt.number(1),
    heading=opt.MANY,
    metavar="N",
    help="By default one for each GPU or, without GPUs, for each machine.",
)
@opt.option(
    "--gpu-sharing",
    type=int,
    callback=opt.number(1),
    default=1,
    heading=opt.MANY,
    metavar="N",
    help="Workers on each GPU; with 2, one computes while the other copies files.",
)
@opt.option(
    "--address",
    envvar="RAY_ADDRESS",
    heading=opt.MANY,
    metavar="ADDRESS",
    help="Ray cluster: auto on one of its machines; by default this machine alone.",
)
@opt.option(
    "--table",
    heading=opt.MANY,
    metavar="PATH",
    help=f"File or URL for a table with a row for each track; by default OUT/{TABLE}.",
)
@opt.option(
    "--scratch",
    type=click.Path(path_type=Path),
    heading=opt.MANY,
    metavar="FOLDER",
    help="On each machine, for copies of remote files.",
)
@opt.json_option
@opt.progress_option
@opt.quiet_option
def batch(
    *,
    source: str,
    out: str,
    name: str,
    repo: Path | None,
    column: str | None,
    workers: int | None,
    gpu_sharing: int,
    device: str | None,
    address: str | None,
    table: str | None,
    scratch: Path | None,
    engine: dict[str, Any],
    compiled: bool,
    skip_existing: bool,
    as_json: bool,
    progress: str,
    quiet: bool,
    **output: Any,
) -> None:
    """Separate thousands or millions of songs on Ray; an interrupted command resumes.

    SOURCE is a file, folder, 'pattern' or playlist; a list (.txt) or table (.parquet) of paths and
    URLs; or a URL such as s3://bucket/prefix. OUT is a folder or its URL: stems go to
    OUT/MODEL/TRACK/STEM.EXT.
    """
    with event_reporter(progress, quiet=quiet, console=_BriefReporter()) as on_event:
        stems, options = opt.wanted_stems(**output), opt.output_settings(**output)
        from htdemucs.batch.plan import Plan

        plan = Plan(
            name=name,
            repo=repo,
            options=options,
            stems=stems,
            settings=engine | {"compiled": compiled},
            out=_join(out, model_folder(name)),
            device=device,
            skip_existing=skip_existing,
            scratch=scratch,
        ).checked()
        run = _Run(plan, table or _join(out, TABLE), on_event)
        run.prepare(source, [out, plan.out], column)
        run.separate(address, workers, gpu_sharing)
        run.conclude(as_json)


class _BriefReporter(ConsoleReporter):
    """Shows downloads and the first failures. One bar for all tracks shows the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._failures = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Failed():
                self._failures += 1
                if self._failures <= MAX_PRINTED:
                    super().__call__(event)
                elif self._failures == MAX_PRINTED + 1:
                    print_error("more tracks failed; see the table")
            case Downloading() | Loaded():
                super().__call__(event)


class _Run:
    """One run of the command: finds the tracks, separates them and writes the table."""

    def __init__(self, plan: "Plan", table_path: str, on_event: EventCallback) -> None:
        from htdemucs.batch.ray_cluster import ResultTable

        self.plan, self.table_path, self.on_event = plan, table_path, on_event
        self.table = ResultTable()
        self.tracks: dict[int, Track] = {}  # by position in the list
        self.signals = SignalHandler()
        self.started = time.monotonic()

    def prepare(self, source: str, exclude: list[str], column: str | None) -> None:
        """Find the tracks, and raise errors now that would otherwise stop the work later."""
        from htdemucs.batch.inputs import find_batch_tracks
        from htdemucs.batch.ray_cluster import assign_outputs, check_installed
        from htdemucs.batch.remote import check_writable

        check_installed()
        found = list(find_batch_tracks(source, exclude, column))
        self.on_event(Found(len(found)))
        self.tracks, failures = assign_outputs(found, self.plan)
        for location in (self.plan.out, self.table_path):
            check_writable(_parent(location))
        self.plan.check(self.on_event)
        for position, result in failures.items():
            self._add(position, result)

    def separate(self, address: str | None, workers: int | None, gpu_sharing: int) -> None:
        """Separate all tracks, until a signal; then write the table."""
        from htdemucs.batch.ray_cluster import divide_cluster, separate_on_cluster, session

        # Ray also prints its log on standard output, which is for results.
        with (
            Path(os.devnull).open("w", encoding="utf-8") as null,
            redirect_stdout(null),
            session(address),
            self.signals,
        ):
            try:
                shares = divide_cluster(workers, self.plan.device, gpu_sharing)
                print_status(
                    f"{self.plan.name}: {counted(len(self.tracks), 'track')}, {_describe(shares)}"
                )
                with (
                    self._bar() as advance,
                    closing(separate_on_cluster(self.tracks, self.plan, shares)) as results,
                ):
                    for position, result, worker_info in results:
                        self._add(position, result, worker_info)
                        advance()
            except KeyboardInterrupt:
                print_status("stopped; run the same command again to resume")
            finally:
                self.table.write(self.table_path)

    def conclude(self, as_json: bool) -> None:
        """Print the counts; exit with an error if a track failed or a signal stopped the run."""
        counts: dict[str, int] = {status: self.table.counts[status] for status in STATUSES}
        if as_json:
            summary = {
                "format": "htdemucs-batch",
                "version": 1,
                **counts,
                "duration": self.table.duration,
                "seconds": round(time.monotonic() - self.started, 3),
                "table": self.table_path,
                "stopped": self.signals.signal is not None,
            }
            print(json.dumps(summary, indent=2))
        line = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        total = counted(sum(counts.values()), "track")
        print_status(f"{total}: {line}; each has a row in {self.table_path}")
        if self.signals.signal is not None:
            raise click.exceptions.Exit(self.signals.exit_code)
        if counts["failed"]:
            raise click.exceptions.Exit(1)

    def _add(
        self, position: int, result: TrackResult, worker_info: "WorkerInfo | None" = None
    ) -> None:
        self.table.add(position, result, worker_info)
        for event in result_events(result):
            self.on_event(event)

    @contextmanager
    def _bar(self) -> Iterator[Callable[[], None]]:
        """Show a bar of tracks on standard error; yield the function to call after each track."""
        from rich import progress

        columns = (
            progress.TextColumn("tracks"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]}"),
            progress.TimeRemainingColumn(),
        )
        started = time.monotonic()
        with progress.Progress(*columns, console=status_console(), redirect_stdout=False) as bars:
            task = bars.add_task("", total=len(self.tracks), speed="")

            def advance() -> None:
                speed = self.table.duration / (time.monotonic() - started)
                bars.update(task, advance=1, speed=f"{speed:.1f}x")

            yield advance


def _describe(workers: "Workers") -> str:
    many = "s" if workers.count > 1 else ""
    if workers.gpus:
        return f"{workers.count} worker{many}, {round(1 / workers.gpus)} a GPU"
    return f"{workers.count} worker{many} with {workers.cpus:g} of the cores"


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else str(Path(folder, name))


def _parent(location: str) -> str:
    return location.rpartition("/")[0] if "://" in location else str(Path(location).parent)
