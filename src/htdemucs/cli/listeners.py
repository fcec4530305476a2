"""Listeners of the work's events: bars and lines for people, JSON lines for programs."""

import json
import logging
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TextIO

from htdemucs.cli.options import in_flags
from htdemucs.cli.shared import print_error, progress_bar, say, set_verbosity
from htdemucs.events import (
    Downloading,
    Ended,
    Event,
    Failed,
    Finished,
    Listener,
    Loaded,
    Noted,
    Progress,
    Warned,
)

_END = "\0"  # the line after which nothing of standard error is left to note


class Terminal:
    """Shows events on standard error: a bar for what is under way, a line for what has happened.

    Args:
        label: of the bar of progress that belongs to no single track.
        bars: whether progress is shown; the tracks of several devices would share one bar.
    """

    def __init__(self, label: str = "", bars: bool = True) -> None:
        self._label, self._bars = label, bars
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
            case Downloading(file, done, total):
                self._show(file, done, total, f"{done / 1e6:.1f} MB")
            case Progress(track, done, total, speed) if self._bars:
                label = Path(track).name if track else self._label
                self._show(label, done, total, f"{speed:.1f}x" if speed else "")
            case Loaded():
                self._close()
            case Warned(_, text):
                self._close()
                say(f"  warning: {in_flags(text)}")
            case Failed(_, reason):
                self._close()
                print_error(reason)
            case Finished():
                self._close()
                _say_finished(event)

    def _show(self, label: str, done: float, total: float | None, speed: str) -> None:
        if label != self._shown:
            self._close()
            self._shown = label
            self._update = self._bar.enter_context(progress_bar(label))
        self._update(done, total, speed)

    def _close(self) -> None:
        self._shown = None
        self._bar.close()


def _say_finished(event: Finished) -> None:
    folders = sorted({"standard output" if p == "-" else _folder(p) for p in event.files.values()})
    prefix = "  already there: " if event.status == "skipped" else "  "
    say(f"{prefix}{', '.join(event.files)} -> {', '.join(folders)}")
    if event.gain not in (None, 1.0):
        decibels = -20 * math.log10(event.gain or 1.0)
        say(f"  all stems lowered by {decibels:.1f} dB to avoid clipping")


def _folder(path: str) -> str:
    return str(Path(path).parent)


class JsonLines:
    """Writes each event as a line of JSON, from any thread. A reader that leaves stops nothing.

    Attributes:
        exit_code: the command's, once it has ended.
    """

    def __init__(self, file: TextIO) -> None:
        self.exit_code = 1
        self._file = file
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write an event."""
        match event:
            case Warned(_, text):
                event = replace(event, text=in_flags(text))
            case Failed(_, reason):
                event = replace(event, reason=in_flags(reason))
        line = json.dumps(event.as_json()) + "\n"
        with self._lock, suppress(OSError):
            self._file.write(line)
            self._file.flush()


_lines: JsonLines | None = None  # of this process, while standard error holds nothing else


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON lines; also one that makes no other sense."""
    return "--progress=json" in words or ("--progress", "json") in pairwise(words)


@contextmanager
def only_json() -> Iterator[JsonLines]:
    """Let standard error hold nothing but JSON lines, of which `Ended` is the last.

    What others write there, also below Python, becomes `Noted`; warnings become `Warned`.
    """
    global _lines  # noqa: PLW0603
    with ExitStack() as stack:
        error = sys.stderr
        descriptor = _descriptor(error)
        own = error
        if descriptor is not None:
            own = os.fdopen(os.dup(descriptor), "w")
            stack.callback(_close, own)
        lines = JsonLines(own)
        reading, writing = os.pipe()
        written = stack.enter_context(os.fdopen(writing, "w", 1, errors="backslashreplace"))
        thread = threading.Thread(target=_note, args=(reading, lines), daemon=True)
        thread.start()
        show, warnings.showwarning = warnings.showwarning, _warner(lines)
        try:
            if descriptor is not None:
                os.dup2(writing, descriptor)
            _lines = lines
            with redirect_stderr(written):
                yield lines
        finally:
            _lines, warnings.showwarning = None, show
            if descriptor is not None:
                os.dup2(own.fileno(), descriptor)
            written.write(f"{_END}\n")
            thread.join()
            lines(Ended(lines.exit_code))


def _descriptor(file: TextIO) -> int | None:
    """Return the descriptor below a stream; None for one that exists in Python only."""
    try:
        return file.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _close(file: TextIO) -> None:
    with suppress(OSError):  # a reader that has left
        file.close()


def _note(reading: int, lines: JsonLines) -> None:
    with os.fdopen(reading, errors="backslashreplace") as file:
        for line in file:
            if line.rstrip("\n") == _END:
                return
            if text := line.strip():
                lines(Noted(text))


def _warner(lines: JsonLines) -> Any:
    def warn(message: Warning | str, *_: object, **__: object) -> None:
        lines(Warned(None, " ".join(str(message).split())))

    return warn


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if _lines:
            _lines(Noted(self.format(record)))


@contextmanager
def listening(
    terminal: Terminal, *, quiet: bool = False, verbose: bool = False
) -> Iterator[Listener]:
    """Give the listener that the command line asks for, and let the package's log go there too.

    Args:
        terminal: listens unless JSON lines are asked for.
        quiet: show errors only; JSON lines leave out nothing.
        verbose: show the log's details.
    """
    set_verbosity(quiet or _lines is not None, verbose)
    if _lines is None:
        with terminal:
            yield terminal
        return
    log, handler = logging.getLogger("htdemucs"), _LogLines()
    log.addHandler(handler)
    try:
        yield _lines
    finally:
        log.removeHandler(handler)
