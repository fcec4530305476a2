"""Shows events (`htdemucs.events`) on standard error: as bars and lines, or as lines of JSON."""

import json
import logging
import math
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TextIO

import click

from htdemucs.cli.console import print_error, print_status, progress_bar, set_verbosity
from htdemucs.errors import (
    ConfigError,
    HTDemucsError,
    ModelNotFoundError,
    SeparationError,
    is_out_of_memory,
)
from htdemucs.events import (
    Downloading,
    Ended,
    Event,
    EventCallback,
    Failed,
    Finished,
    Found,
    Loaded,
    Noted,
    Progress,
    Reading,
    Started,
    Waiting,
    Warned,
)
from htdemucs.fsutil import error_line
from htdemucs.results import TrackResult


@contextmanager
def event_reporter(
    progress: str = "bar",
    *,
    quiet: bool = False,
    verbose: bool = False,
    console: "ConsoleReporter | None" = None,
) -> Iterator[EventCallback]:
    """Yield the callback that shows events as `--progress` requests.

    With "json" the log, warnings and errors become events too, and the last event is `Ended`.

    Args:
        progress: "bar" or "json".
        quiet: show errors only; JSON is not shortened.
        verbose: show the details of the log.
        console: the callback for "bar".
    """
    if progress == "json":
        set_verbosity(quiet=True, verbose=verbose)
        with _json_lines() as reporter:
            yield reporter
    else:
        set_verbosity(quiet=quiet, verbose=verbose)
        with console or ConsoleReporter() as reporter:
            yield reporter


class ConsoleReporter:
    """Shows events on standard error: a bar for running work, a line for each result.

    Args:
        label: the label of the bar for progress without a track.
        bars: whether progress is shown. Tracks on several devices would share one bar.
    """

    def __init__(self, label: str = "", bars: bool = True) -> None:
        self._label, self._bars = label, bars
        self._tracks = self._started = 0
        self._shown: str | None = None
        self._bar = ExitStack()
        self._update: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Found(tracks):
                self._tracks = tracks
            case Started():
                self._started += 1
            case Downloading(file, done, total):
                self._show(file, done, total, f"{done / 1e6:.1f} MB")
            case Reading(track, done, total) if self._bars and done:  # not for a moment
                self._show(f"reading {Path(track).name}", done, total, "")
            case Progress(track, done, total, speed) if self._bars:
                label = Path(track).name if track else self._label
                if self._tracks > 1:
                    label = f"{self._started} of {self._tracks}  {label}"
                self._show(label, done, total, f"{speed:.1f}x" if speed else "")
            case Loaded():
                self._close()
            case Waiting(track):
                self._close()
                name = Path(track).name
                print_status(f"{name}: another htdemucs is separating it; waiting for it to finish")
            case Warned(_, text):
                self._close()
                print_status(f"  warning: {text}")
            case Failed(_, error):
                self._close()
                print_error(error)
            case Finished(result):
                self._close()
                _print_result(result)

    def _show(self, label: str, done: float, total: float | None, speed: str) -> None:
        if label != self._shown:
            self._close()
            self._shown = label
            self._update = self._bar.enter_context(progress_bar(label))
        self._update(done, total, speed)

    def _close(self) -> None:
        self._shown = None
        self._bar.close()


def _print_result(result: TrackResult) -> None:
    folders = sorted(
        {"standard output" if p == "-" else str(Path(p).parent) for p in result.files.values()}
    )
    prefix = "  already there: " if result.status == "skipped" else "  "
    text = f"{prefix}{', '.join(result.files)} -> {', '.join(folders)}"
    if result.status == "separated" and result.duration:
        text += f"  ({_time(result.seconds)}, {result.duration / result.seconds:.1f}x real time)"
    print_status(text)
    if result.gain not in (None, 1.0):
        decibels = -20 * math.log10(result.gain or 1.0)
        print_status(f"  all stems lowered by {decibels:.1f} dB to avoid clipping")


def _time(seconds: float) -> str:
    """Return a duration, as in 8.2 s or 3:05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02} min"


class JsonReporter:
    """Writes each event as a line of JSON, from any thread. Errors of the stream are ignored."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write an event."""
        line = json.dumps(event.as_json()) + "\n"
        with self._lock, suppress(OSError):
            self._file.write(line)
            self._file.flush()


@contextmanager
def _json_lines() -> Iterator[JsonReporter]:
    """Report the log, warnings and errors as events, and the exit code as the last one."""
    reporter = JsonReporter(sys.stderr)

    class LogHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reporter(Noted(self.format(record)))

    def show_warning(message: Warning | str, *_: object, **__: object) -> None:
        reporter(Warned(None, " ".join(str(message).split())))

    log, handler = logging.getLogger("htdemucs"), LogHandler()
    log.addHandler(handler)
    original, warnings.showwarning = warnings.showwarning, show_warning
    code = 1
    try:
        yield reporter
        code = 0
    except click.exceptions.Exit as ending:
        code = ending.exit_code
        raise
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
        raise
    except Exception as error:
        message = one_line(error)
        if message is None:
            for line in "".join(traceback.format_exception(error)).splitlines():
                reporter(Noted(line))
            message = f"unexpected {type(error).__name__} ({error}); please report it"
        reporter(Failed(None, message))
        code = exit_code(error)
        sys.exit(code)
    finally:
        log.removeHandler(handler)
        warnings.showwarning = original
        reporter(Ended(code))


def exit_code(error: Exception) -> int:
    """Return the exit code for an error that ends the command: 2 for invalid arguments, else 1."""
    arguments = click.ClickException | ConfigError | ModelNotFoundError | SeparationError
    return 2 if isinstance(error, arguments) else 1


def one_line(error: Exception) -> str | None:
    """Return the message of an expected error; None for a mistake of this program.

    For invalid arguments it ends with the command that prints help.
    """
    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "htdemucs"
            return f"{' '.join(error.format_message().split())} (see: {path} --help)"
        case HTDemucsError() | click.ClickException():
            return str(error)
        case OSError():
            return error_line(error)
    if is_out_of_memory(error):
        return "out of memory; close other programs, or choose a shorter segment or model"
    return None
