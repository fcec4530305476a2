"""Output, signals and names that several commands share."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@cache
def messages() -> "Console":
    """Return the console on standard error, for everything except results."""
    from rich.console import Console

    return Console(stderr=True)


def say(text: str) -> None:
    """Print a line on standard error, unless the command is quiet."""
    messages().print(text, highlight=False, markup=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error on standard error, even if the command is quiet; arguments become flags."""
    from rich.console import Console

    from htdemucs.cli.options import in_flags

    Console(stderr=True).print(
        f"error: {in_flags(message)}", style="red", highlight=False, markup=False, soft_wrap=True
    )


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def set_verbosity(quiet: bool, verbose: bool = False) -> None:
    """Print the package's log: downloads; with `verbose` everything, with `quiet` nothing."""
    messages().quiet = quiet
    log = logging.getLogger("htdemucs")
    if not any(isinstance(handler, _Handler) for handler in log.handlers):
        log.addHandler(_Handler())
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


def print_table(table: "Table", title: str = "") -> None:
    """Print a line and a table below it; what is no terminal is taken to be wide."""
    from rich.console import Console

    output = Console()
    if not output.is_terminal:
        output = Console(width=160)
    if title:  # rich would break its own titles at the table's width
        print(title)
    output.print(table)


@contextmanager
def progress_bar(label: str) -> Iterator[Any]:
    """Show a progress bar on standard error; yield the function that updates it."""
    from rich import progress as rich_progress
    from rich.text import Text

    columns = (
        rich_progress.TextColumn("{task.fields[label]}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[speed]}"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=messages()) as bars:
        task = bars.add_task("", label=Text(label).plain, speed="", total=None)

        def update(done: float, total: float | None, speed: str) -> None:
            bars.update(task, completed=done, total=total, speed=speed)

        yield update


class Interruption:
    """Turns the first SIGINT or SIGTERM into KeyboardInterrupt; `signal` is then its number."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows it only there
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt
