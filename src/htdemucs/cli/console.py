"""What the commands print: messages on standard error, tables on standard output."""

import logging
import os
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
def status_console() -> "Console":
    """Return the console on standard error, for everything except results."""
    from rich.console import Console

    return Console(stderr=True)


def print_status(text: str) -> None:
    """Print a line on standard error, unless the command is quiet."""
    status_console().print(text, highlight=False, markup=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error on standard error, even if the command is quiet."""
    from rich.console import Console

    Console(stderr=True).print(
        f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True
    )


def print_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning on standard error; this takes the place of `warnings.showwarning`."""
    print_status(f"warning: {' '.join(str(message).split())}")


def print_table(table: "Table", title: str = "") -> None:
    """Print a title and a table below it on standard output; a file gets 160 columns.

    The environment variable COLUMNS replaces both widths.
    """
    from rich.console import Console

    output = Console(width=table_width())
    if title:  # rich would break its own titles at the table's width
        print(title)
    output.print(table)


def table_width() -> int:
    """Return the columns that `print_table` has."""
    from rich.console import Console

    output = Console()
    return 160 if not output.is_terminal and "COLUMNS" not in os.environ else output.width


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_status(self.format(record))


def set_verbosity(*, quiet: bool = False, verbose: bool = False) -> None:
    """Print the package's log: downloads; with `verbose` everything, with `quiet` nothing."""
    status_console().quiet = quiet
    log = logging.getLogger("htdemucs")
    if not any(isinstance(handler, _LogHandler) for handler in log.handlers):
        log.addHandler(_LogHandler())
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def progress_bar(label: str) -> Iterator[Any]:
    """Show a progress bar on standard error while a block runs; yield the function that updates it.

    A long label is shortened in the middle, so that the numbers stay visible. Nothing is shown
    without a terminal.
    """
    from rich import progress
    from rich.text import Text

    console = status_console()
    columns = (
        progress.TextColumn("{task.fields[label]}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
    )
    settings: dict[str, Any] = {"transient": True, "expand": True}
    with progress.Progress(
        *columns, console=console, disable=not console.is_terminal, **settings
    ) as bars:
        short = _shorten(Text(label).plain, max(10, console.width // 2))
        task = bars.add_task("", label=short, speed="", total=None)

        def update(done: float, total: float | None, speed: str) -> None:
            bars.update(task, completed=done, total=total, speed=speed)

        yield update


def _shorten(text: str, width: int) -> str:
    """Return a text with at most `width` characters, without those in its middle."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[-end:]}"


class SignalHandler:
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

    @property
    def exit_code(self) -> int:
        """The exit code of a process that ends because of the signal."""
        return 128 + (self.signal or signal.SIGINT)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt
