"""Options and output that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Wide where output is no terminal: a table cut to 80 columns is no use to a script or a log.
console = Console(stderr=True)

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


def table_console() -> Console:
    """A console on standard output that cuts no table where that is no terminal."""
    output = Console()
    return output if output.is_terminal else Console(width=160)
