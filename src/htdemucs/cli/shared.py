"""Options and output that several commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from htdemucs.separation import Progress

Name = Annotated[
    str,
    typer.Option(
        "-n",
        "--name",
        help="Model: an official name or signature, hf://namespace/name, or a path.",
    ),
]
Repo = Annotated[
    Path | None,
    typer.Option("--repo", help="Folder of .th/.safetensors and .yaml files to take NAME from."),
]


class Precision(str, Enum):
    """Of the network's products."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@cache
def messages() -> "Console":
    """Standard error: everything said beside the results."""
    from rich.console import Console

    return Console(stderr=True)


def table_console() -> "Console":
    """A console on standard output that cuts no table where that is no terminal."""
    from rich.console import Console

    output = Console()
    return output if output.is_terminal else Console(width=160)


@contextmanager
def progress_bar(label: str) -> Iterator[Any]:
    """A bar on standard error; give what must be told how far it is."""
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

        def on_progress(progress: "Progress") -> None:
            elapsed = bars.tasks[task].elapsed or 0
            speed = f"{progress.done / elapsed:.1f}x" if elapsed else ""
            bars.update(task, completed=progress.done, total=progress.total, speed=speed)

        yield on_progress


@contextmanager
def download_bars(shown: bool) -> Iterator[None]:
    """Show or hide the bars of the hub's client."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def print_error(message: str) -> None:
    """One line on standard error, even when quiet."""
    from rich.console import Console

    Console(stderr=True).print(
        f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True
    )
