"""Options and rules of the commands that read standard input and write standard output."""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.audio import RawFormat

BROKEN_PIPE = 141  # exit code: 128 and the number of SIGPIPE

Raw = Annotated[
    str | None,
    typer.Option(
        metavar="SAMPLES,HZ,CHANNELS",
        help="Standard input has no header, as in s16le,44100,2.",
    ),
]
PipeFormat = Annotated[
    Literal["wav", "raw"],
    typer.Option("--format", help="raw: samples without a header."),
]
PipeDepth = Annotated[Literal["16", "24", "32"], typer.Option(help="Bits of a sample; 32: floats.")]


def raw_format(text: str | None) -> "RawFormat | None":
    """Return the format that `--raw` names."""
    from htdemucs.audio import RawFormat

    if text is None:
        return None
    match = re.fullmatch(r"(\w+),(\d{1,7}),(\d{1,2})", text)
    if not match:
        raise SeparationError(f"--raw must be like s16le,44100,2, not {text}")
    return RawFormat(match[1], int(match[2]), int(match[3]))


def refuse_terminals() -> None:
    """Raise SeparationError if nobody sends or takes audio."""
    if sys.stdin.isatty():
        raise SeparationError("standard input is a terminal; send audio to it")
    if sys.stdout.isatty():
        raise SeparationError("standard output is a terminal; send it to a player or a file")
