"""Options and output that several commands share."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
