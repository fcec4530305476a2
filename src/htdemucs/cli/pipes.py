"""Options and rules of the commands that read standard input and write standard output."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from htdemucs.cli.listeners import Terminal, listening
from htdemucs.cli.shared import Interruption
from htdemucs.errors import SeparationError
from htdemucs.events import Listener

if TYPE_CHECKING:
    from htdemucs.audio import PipeWriter, RawFormat

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


@contextmanager
def told(terminal: Terminal, *, quiet: bool) -> Iterator[Listener]:
    """Give who hears of progress; a signal or a broken pipe ends the command."""
    interruption = Interruption()
    with listening(terminal, quiet=quiet) as tell, interruption:
        try:
            yield tell
        except KeyboardInterrupt:
            raise typer.Exit(128 + (interruption.signal or 2)) from None
        except BrokenPipeError:
            raise typer.Exit(BROKEN_PIPE) from None


@contextmanager
def standard_output(
    rate: int, channels: int, file_format: str, bit_depth: str
) -> Iterator["PipeWriter"]:
    """Give a writer to standard output; each block goes out at once."""
    from htdemucs.audio import PipeWriter

    raw, depth = file_format == "raw", int(bit_depth)
    with (
        open(sys.stdout.fileno(), "wb", 0, closefd=False) as file,
        PipeWriter(file, rate, channels, depth, raw=raw) as writer,
    ):
        yield writer
