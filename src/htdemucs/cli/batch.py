"""`htdemucs batch`: separate libraries of any size, on this machine or on a Ray cluster."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.listeners import Terminal, listening
from htdemucs.cli.shared import Interruption, messages, print_error, say
from htdemucs.events import Downloading, Event, Failed, Found, Listener, Loaded
from htdemucs.files import model_folder

if TYPE_CHECKING:
    from htdemucs.batch import Track
    from htdemucs.batch.cluster import Plan, Workers
    from htdemucs.batch.table import Row

TABLE = "outcomes.parquet"
PRINTED = 20  # failures that are printed one by one


def batch(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, folder, 'pattern' or playlist; a list (.txt) or table (.parquet) of "
            "paths and URLs; or a URL such as s3://bucket/prefix."
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(help="Folder or its URL; stems go to OUT/MODEL/TRACK/STEM.EXT."),
    ],
    name: opt.Name = "htdemucs",
    repo: opt.Repo = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a table with the paths; by default path.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of workers; by default one for each GPU or, without GPUs, machine.", min=1
        ),
    ] = None,
    gpu_sharing: Annotated[
        int, typer.Option(help="Workers on each GPU; with 2 a GPU works during transfers.", min=1)
    ] = 1,
    device: Annotated[
        str | None, typer.Option("-d", "--device", help="cuda or cpu; by default cuda if there.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="Ray cluster: auto on one of its machines; by default this machine alone.",
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help=f"File or URL for a table with a row for each track; by default OUT/{TABLE}.",
            metavar="PATH",
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder on each machine for copies of remote files."),
    ] = None,
    *,
    engine: opt.EngineOptions,
    compiled: opt.Compile = False,
    output: opt.OutputFlags,
    skip_existing: opt.SkipExisting = True,
    as_json: opt.AsJson = False,
    progress: opt.ShowProgress = "bar",  # noqa: ARG001  `wants_json` has read it
    quiet: opt.Quiet = False,
) -> None:
    """Separate thousands or millions of songs; the same command again resumes."""
    options, stems = output.options(), output.wanted_stems()
    from htdemucs.batch.cluster import Plan

    plan = Plan(
        name=name,
        repo=repo,
        options=options,
        stems=stems,
        settings=engine.settings() | {"compiled": compiled},
        out=_below(out, model_folder(name)),
        device=device,
        skip_existing=skip_existing,
        scratch=scratch,
    )
    with listening(_FewLines(), quiet=quiet) as tell:
        run = _Run(plan, table or _below(out, TABLE), tell)
        run.prepare(source, [out, plan.out], column)
        run.separate(address, workers, gpu_sharing)
        run.conclude(as_json)


class _FewLines(Terminal):
    """Shows downloads and the first failures: one bar for all tracks shows the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._failures = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Failed():
                self._failures += 1
                if self._failures <= PRINTED:
                    super().__call__(event)
                elif self._failures == PRINTED + 1:
                    print_error("more tracks failed: their reasons will be in the table")
            case Downloading() | Loaded():
                super().__call__(event)


class _Run:
    """Tells the progress of a large run, and collects its outcomes for the table."""

    def __init__(self, plan: "Plan", place: str, tell: Listener) -> None:
        from htdemucs.batch.table import OutcomeTable

        self.plan, self.place, self.tell = plan, place, tell
        self.table = OutcomeTable()
        self.placed: dict[int, Track] = {}
        self.interruption = Interruption()
        self.started = time.monotonic()

    def prepare(self, source: str, without: list[str], column: str | None) -> None:
        """Find the tracks, and raise errors now that would otherwise stop the work later."""
        from htdemucs.batch.cluster import place_all, require
        from htdemucs.batch.sources import find_sources
        from htdemucs.batch.storage import check_writable
        from htdemucs.batch.table import Row

        require()
        tracks = list(find_sources(source, without, column))
        self.tell(Found(len(tracks)))
        self.placed, failures = place_all(tracks, self.plan)
        for place in (self.plan.out, self.place):
            check_writable(_above(place))
        self.plan.check(self.tell)
        for position, outcome in failures.items():
            self._add(Row(position, outcome))

    def separate(self, address: str | None, workers: int | None, gpu_sharing: int) -> None:
        """Separate all tracks, until a signal; then write the table."""
        from htdemucs.batch.cluster import separate_all, session, share_out

        # Ray also prints its log on standard output, which is for results.
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            session(address),
            self.interruption,
        ):
            try:
                shares = share_out(workers, self.plan.device, gpu_sharing)
                say(f"{self.plan.name}: {len(self.placed)} tracks, {_described(shares)}")
                with (
                    self._bar() as advance,
                    closing(separate_all(self.placed, self.plan, shares)) as rows,
                ):
                    for row in rows:
                        self._add(row)
                        advance()
            except KeyboardInterrupt:
                say("stopped; run the same command again to resume")
            finally:
                self.table.write(self.place)

    def conclude(self, as_json: bool) -> None:
        """Print the counts; exit with an error if a track failed or a signal stopped the run."""
        from htdemucs.batch.outcomes import STATUSES

        counts: dict[str, int] = {status: self.table.counts[status] for status in STATUSES}
        number = self.interruption.signal
        if as_json:
            summary = {
                "format": "htdemucs-batch",
                "version": 1,
                **counts,
                "duration": self.table.duration,
                "seconds": round(time.monotonic() - self.started, 3),
                "table": self.place,
                "stopped": number is not None,
            }
            print(json.dumps(summary, indent=2))
        line = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        say(f"{sum(counts.values())} tracks: {line}; each has a row in {self.place}")
        if number is not None:
            raise typer.Exit(128 + number)
        if counts["failed"]:
            raise typer.Exit(1)

    def _add(self, row: "Row") -> None:
        self.table.add(row)
        for event in row.outcome.events():
            self.tell(event)

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
        with progress.Progress(*columns, console=messages(), redirect_stdout=False) as bars:
            task = bars.add_task("", total=len(self.placed), speed="")

            def advance() -> None:
                speed = self.table.duration / (time.monotonic() - started)
                bars.update(task, advance=1, speed=f"{speed:.1f}x")

            yield advance


def _described(workers: "Workers") -> str:
    many = "s" if workers.count > 1 else ""
    if workers.gpus:
        return f"{workers.count} worker{many}, {round(1 / workers.gpus)} a GPU"
    return f"{workers.count} worker{many} with {workers.cpus:g} of the cores"


def _below(place: str, name: str) -> str:
    return f"{place.rstrip('/')}/{name}" if "://" in place else str(Path(place, name))


def _above(place: str) -> str:
    return place.rpartition("/")[0] if "://" in place else str(Path(place).parent)
