"""The tracks of one `htdemucs separate`: one after another, or as many at once as devices."""

import json
import math
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from queue import Queue
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from htdemucs.cli.shared import messages, print_error, progress_bar
from htdemucs.errors import HTDemucsError, SeparationError

if TYPE_CHECKING:
    from htdemucs.batch import Library, Outcome
    from htdemucs.batch.library import Job
    from htdemucs.separation import OutputOptions, Progress, Separator

    Bar = Callable[[str], AbstractContextManager[Callable[[Progress], None] | None]]

STANDARD_STREAM = Path("-")


def separate_tracks(
    words: list[Path],
    separators: "list[Separator]",
    options: "OutputOptions",
    out: Path,
    *,
    name: str,
    repo: Path | None,
    skip_existing: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Separate what the words name; exit with 1 if anything failed, 128 + N after signal N."""
    from htdemucs.batch import Library
    from htdemucs.provenance import weights_sha256

    with ExitStack() as stack:
        to_stream = out == STANDARD_STREAM
        if to_stream:
            _check_one_output(options, separators[0], words)
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-")))
        if STANDARD_STREAM in words:
            words = [_standard_input(stack) if word == STANDARD_STREAM else word for word in words]
        library = Library(
            name,
            weights_sha256(name, repo),
            options,
            out / folder_name(name),
            skip_existing=skip_existing,
        )
        run = _Run(library, separators, to_stream)
        if dry_run:
            run.list(words, without=out)
            return
        with stopping(run.stop):
            try:
                run.separate(words, without=out)
            except KeyboardInterrupt:
                messages().print("stopped; run the same command again to go on")
        run.conclude(as_json)
        if to_stream:
            [[file]] = [outcome.files.values() for outcome in run.outcomes]
            with Path(file).open("rb") as stem:
                shutil.copyfileobj(stem, sys.stdout.buffer)


def _check_one_output(options: "OutputOptions", separator: "Separator", words: list[Path]) -> None:
    """Refuse what is not one file, since standard output is one."""
    if not options.stem_file and len(options.output_names(separator.stems)) != 1:
        raise SeparationError(
            "standard output takes one stem: add --stems or --two-stems STEM --other-method none"
        )
    if len(words) != 1 or words[0].is_dir():
        raise SeparationError("standard output takes one track; name one file")


class _Run:
    """What became of the tracks so far."""

    def __init__(self, library: "Library", separators: "list[Separator]", to_stream: bool) -> None:
        self.library, self.separators, self.to_stream = library, separators, to_stream
        self.outcomes: list[Outcome] = []
        self.signal: int | None = None

    def stop(self, number: int) -> None:
        """Note the signal that ends the run."""
        self.signal = number

    def separate(self, words: Iterable[Path], without: Path) -> None:
        """Separate all tracks, as many at once as there are devices."""
        if len(self.separators) == 1:
            for job in self._jobs(words, without):
                self._separate(job, self.separators[0], progress_bar)
            return
        idle: Queue[Separator] = Queue()
        for separator in self.separators:
            idle.put(separator)
        stopping = threading.Event()

        def on_progress(_: "Progress") -> None:
            if stopping.is_set():
                raise KeyboardInterrupt

        def separate_on_the_next(job: "Job") -> None:
            separator = idle.get()
            try:
                self._separate(job, separator, lambda _: nullcontext(on_progress))
            finally:
                idle.put(separator)

        with ThreadPoolExecutor(len(self.separators)) as pool:
            try:
                jobs = self._jobs(words, without)
                for future in [pool.submit(separate_on_the_next, job) for job in jobs]:
                    future.result()
            finally:  # after a signal too: tracks not begun are not begun
                stopping.set()
                pool.shutdown(cancel_futures=True)

    def list(self, words: Iterable[Path], without: Path) -> None:
        """Say what would be done."""
        for job in self._jobs(words, without):
            try:
                state = self.library.state(job, self.separators[0])
            except HTDemucsError as error:
                self._add(_failed(job.track.path, error))
            else:
                stems = self.library.options.targets(job.places, self.separators[0].stems)
                files = ", ".join(str(path) for path in stems.values())
                print(f"{state:8}  {job.track.path}  ->  {files}")
        self._leave_if_failed()

    def conclude(self, as_json: bool) -> None:
        """Say what became of the tracks, and exit unless all is well."""
        from htdemucs.batch.library import summary

        counts = summary(self.outcomes)
        if as_json:
            print(json.dumps({**counts, "stopped": self.signal is not None}, indent=2))
        failures = [o for o in self.outcomes if o.status == "failed"]
        if len(self.outcomes) > 1:
            words = ("separated", "skipped", "failed")
            line = ", ".join(f"{counts[word]} {word}" for word in words if counts[word])
            _say(f"{len(self.outcomes)} tracks: {line}")
            for failure in failures:
                print_error(failure.reason or "")
        if self.signal is not None:
            raise typer.Exit(128 + self.signal)
        self._leave_if_failed()

    def _leave_if_failed(self) -> None:
        if any(o.status == "failed" for o in self.outcomes):
            raise typer.Exit(1)

    def _jobs(self, words: Iterable[Path], without: Path) -> "Iterator[Job]":
        """The tracks, each with its place; what leads nowhere is noted and told."""
        from htdemucs.batch import find_tracks

        for found in find_tracks(words, without):
            if isinstance(found, HTDemucsError):
                self._add(_failed(None, found))
                continue
            try:
                yield self.library.place(found)
            except HTDemucsError as error:
                self._add(_failed(found.path, error))

    def _separate(self, job: "Job", separator: "Separator", bar: "Bar") -> None:
        with bar(job.track.path.name) as on_progress:
            outcome = self.library.separate(job, separator, on_progress)
        self._add(outcome)

    def _add(self, outcome: "Outcome") -> None:
        self.outcomes.append(outcome)
        if outcome.status == "failed":
            print_error(outcome.reason or "")
            return
        folders = sorted({str(Path(path).parent) for path in outcome.files.values()})
        if self.to_stream:
            folders = ["standard output"]
        done = "  already there: " if outcome.status == "skipped" else "  "
        _say(f"{done}{', '.join(outcome.files)} -> {', '.join(folders)}")
        for warning in outcome.warnings:
            _say(f"  warning: {warning}")
        if outcome.gain not in (None, 1.0):
            _say(f"  all stems softer by {-_decibels(outcome.gain or 1.0):.1f} dB, or one clips")


def _failed(track: Path | None, error: HTDemucsError) -> "Outcome":
    from htdemucs.batch.library import failed

    return failed(track, error)


def _say(text: str) -> None:
    messages().print(text, highlight=False, markup=False, soft_wrap=True)


def _decibels(gain: float) -> float:
    return 20 * math.log10(gain)


@contextmanager
def stopping(note: Callable[[int], None]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt, once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        note(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses
        before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _standard_input(stack: ExitStack) -> Path:
    """All of standard input, as a file."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-"))
    path = Path(folder) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def folder_name(name: str) -> str:
    """What a model's stems are filed under: its name, without what a file name cannot hold."""
    if not name.startswith("hf://") and Path(name).exists():
        return Path(name).resolve().stem or "model"
    return name.removeprefix("hf://").replace("/", "_").lstrip(".") or "model"
