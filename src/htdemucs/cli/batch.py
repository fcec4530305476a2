"""`htdemucs batch`: libraries of any size, on all of a machine or of a Ray cluster."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.shared import Name, Precision, Repo, download_bars, messages, print_error
from htdemucs.cli.tracks import folder_name, stopping

if TYPE_CHECKING:
    from htdemucs.batch.cluster import Task, Workers
    from htdemucs.batch.report import Row
    from htdemucs.batch.work import Plan

REPORT = "report.parquet"
TOLD = 20  # failures told one by one


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
    name: Name = "htdemucs",
    repo: Repo = None,
    column: Annotated[
        str | None, typer.Option(help="Of a table: where the paths are; by default path.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="By default one a GPU or, without any, one a machine.", min=1),
    ] = None,
    gpu_sharing: Annotated[
        int, typer.Option(help="Workers on each GPU; 2 hide the time of transfers.", min=1)
    ] = 1,
    device: Annotated[
        str | None, typer.Option("-d", "--device", help="cuda or cpu; by default cuda if there.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="Of a Ray cluster, such as auto on one of its machines; by default this machine.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            help=f"File or URL of a table with a row a track; by default OUT/{REPORT}.",
            metavar="PATH",
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder on each machine for copies of what is elsewhere."),
    ] = None,
    filename: opt.Filename = "{track}/{stem}.{ext}",
    shifts: opt.Shifts = 1,
    overlap: opt.Overlap = 0.25,
    segment: opt.Segment = None,
    stems: opt.Stems = None,
    two_stems: opt.TwoStems = None,
    other_method: opt.Other = opt.OtherMethod.add,
    residual: opt.WithResidual = opt.Residual.none,
    sample_rate: opt.SampleRate = "keep",
    bit_depth: opt.BitDepth = None,
    int24: opt.Int24 = False,
    float32: opt.Float32 = False,
    clip_mode: opt.Clip = opt.ClipMode.rescale,
    file_format: opt.FileFormat = None,
    flac: opt.Flac = False,
    mp3: opt.Mp3 = False,
    mp3_bitrate: opt.Mp3Bitrate = 320,
    mp3_preset: opt.Mp3Preset = 2,
    bitrate: opt.Bitrate = None,
    stem_file: opt.StemFile = False,
    skip_existing: opt.SkipExisting = True,
    batch_size: opt.BatchSize = None,
    precision: opt.WithPrecision = Precision.auto,
    compiled: opt.Compile = False,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Separate thousands of songs or millions; the same command again goes on."""
    messages().quiet = quiet
    options = opt.output_options(
        filename=filename,
        two_stems=two_stems,
        other_method=other_method,
        residual=residual,
        sample_rate=sample_rate,
        bit_depth=bit_depth,
        int24=int24,
        float32=float32,
        clip_mode=clip_mode,
        file_format=file_format,
        flac=flac,
        mp3=mp3,
        mp3_bitrate=mp3_bitrate,
        mp3_preset=mp3_preset,
        bitrate=bitrate,
        stem_file=stem_file,
    )
    wanted = opt.wanted_stems(stems, options)
    from htdemucs.batch.work import Plan

    plan = Plan(
        name=name,
        repo=repo,
        options=options,
        stems=tuple(wanted) if wanted else None,
        settings={
            "overlap": overlap,
            "shifts": shifts,
            "segment": segment,
            "batch_size": batch_size,
            "seed": seed,
            "precision": precision.value,
            "compiled": compiled,
        },
        out=out,
        folder=folder_name(name),
        device=device,
        skip_existing=skip_existing,
        scratch=scratch,
    )
    run = _Run(plan, report or _below(out, REPORT))
    run.prepare(source, column)
    run.separate(address, workers, gpu_sharing)
    run.conclude(as_json)


class _Run:
    """A library on its way, and what became of it so far."""

    def __init__(self, plan: "Plan", place: str) -> None:
        from htdemucs.batch.report import Report

        self.plan, self.place = plan, place
        self.report = Report()
        self.tasks: list[Task] = []
        self.signal: int | None = None
        self.started = time.monotonic()

    def prepare(self, source: str, column: str | None) -> None:
        """Find what there is to do, and everything that would spoil the work before it begins."""
        from htdemucs.batch.cluster import place_all, require
        from htdemucs.batch.report import Row
        from htdemucs.batch.sources import find_sources
        from htdemucs.batch.storage import check_writable

        require()
        found = list(find_sources(source, self.plan.out, column))
        self.tasks, failures = place_all(found, self.plan)
        check_writable(self.plan.out)
        check_writable(_above(self.place))
        with download_bars(shown=not messages().quiet):
            self.plan.check()
        for number, outcome in failures:
            self._add(Row(number, outcome))

    def separate(self, address: str | None, workers: int | None, gpu_sharing: int) -> None:
        """Separate all tracks, until a signal; then write the report."""
        from htdemucs.batch.cluster import separate_all, session, share_out

        # Ray has things to say on standard output, which is for results; it has log files too.
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            session(address),
            stopping(self._stop),
        ):
            try:
                crew = share_out(workers, self.plan.device, gpu_sharing)
                _say(f"{self.plan.name}: {len(self.tasks)} tracks, {_described(crew)}")
                with (
                    self._bar() as advance,
                    closing(separate_all(self.tasks, self.plan, crew)) as rows,
                ):
                    for row in rows:
                        self._add(row)
                        advance()
            except KeyboardInterrupt:
                _say("stopped; run the same command again to go on")
            finally:
                self.report.write(self.place)

    def conclude(self, as_json: bool) -> None:
        """Say what became of the tracks, and exit unless all is well."""
        words = ("separated", "skipped", "failed")
        counts = {word: self.report.counts[word] for word in words}
        if as_json:
            summary = {
                "format": "htdemucs-batch",
                "version": 1,
                **counts,
                "duration": self.report.duration,
                "seconds": round(time.monotonic() - self.started, 3),
                "report": self.place,
                "stopped": self.signal is not None,
            }
            print(json.dumps(summary, indent=2))
        line = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
        _say(f"{sum(counts.values())} tracks: {line}; each has a row in {self.place}")
        if self.signal is not None:
            raise typer.Exit(128 + self.signal)
        if counts["failed"]:
            raise typer.Exit(1)

    def _stop(self, number: int) -> None:
        self.signal = number

    def _add(self, row: "Row") -> None:
        self.report.add(row)
        if row.outcome.status == "failed":
            if self.report.counts["failed"] <= TOLD:
                print_error(row.outcome.reason or "")
            elif self.report.counts["failed"] == TOLD + 1:
                print_error("more tracks failed: their reasons will be in the report")

    @contextmanager
    def _bar(self) -> Iterator[Callable[[], None]]:
        """A bar of tracks on standard error; give what must be called after each."""
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
            task = bars.add_task("", total=len(self.tasks), speed="")

            def advance() -> None:
                speed = self.report.duration / (time.monotonic() - started)
                bars.update(task, advance=1, speed=f"{speed:.1f}x")

            yield advance


def _described(crew: "Workers") -> str:
    many = "s" if crew.count > 1 else ""
    if crew.gpus:
        return f"{crew.count} worker{many}, {round(1 / crew.gpus)} a GPU"
    return f"{crew.count} worker{many} with {crew.cpus:g} of the cores"


def _below(place: str, name: str) -> str:
    return f"{place.rstrip('/')}/{name}" if "://" in place else str(Path(place, name))


def _above(place: str) -> str:
    return place.rpartition("/")[0] if "://" in place else str(Path(place).parent)


def _say(text: str) -> None:
    messages().print(text, highlight=False, markup=False, soft_wrap=True)
