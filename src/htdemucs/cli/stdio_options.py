"""What the commands share that read standard input and write standard output."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import SignalHandler
from htdemucs.cli.standard_streams import StandardOutput
from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.audio import PipeWriter, RawFormat

raw_option = opt.option(
    "--raw",
    metavar="SAMPLES,HZ,CHANNELS",
    heading=opt.OUTPUT,
    help="Read samples without a header from standard input, such as s16le,44100,2.",
)
pipe_format_option = opt.option(
    "--format",
    "file_format",
    type=opt.choice("wav", "raw"),
    default="wav",
    heading=opt.OUTPUT,
    help="Of standard output; raw: samples without a header.",
)
pipe_depth_option = opt.option(
    "--bit-depth",
    type=opt.choice("16", "24", "32"),
    default="16",
    heading=opt.OUTPUT,
    help="Of standard output; 32: float.",
)


def raw_format(text: str | None) -> "RawFormat | None":
    """Return the format that `--raw` names."""
    from htdemucs.audio import RawFormat

    if text is None:
        return None
    match = re.fullmatch(r"(\w+),(\d{1,7}),(\d{1,2})", text)
    if not match:
        raise click.UsageError(f"--raw must be like s16le,44100,2, not {text}")
    return RawFormat(match[1], int(match[2]), int(match[3]))


def refuse_terminals() -> None:
    """Raise SeparationError if standard input or output is a terminal."""
    if sys.stdin.isatty():
        raise SeparationError("standard input is a terminal; send audio to it")
    if sys.stdout.isatty():
        raise SeparationError("standard output is a terminal; send it to a player or a file")


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """End the command with the usual exit code on a signal."""
    signals = SignalHandler()
    with signals:
        try:
            yield
        except KeyboardInterrupt:
            raise click.exceptions.Exit(signals.exit_code) from None


def standard_input() -> BinaryIO:
    """Return standard input without a buffer.

    A thread that waits for input holds a buffer's lock, without which Python does not exit.
    """
    try:
        return open(sys.stdin.fileno(), "rb", 0, closefd=False)
    except OSError:  # a stream of Python's own, as in a test
        return sys.stdin.buffer


@contextmanager
def standard_output(
    rate: int, channels: int, file_format: str, bit_depth: str
) -> Iterator["PipeWriter"]:
    """Give a writer to standard output; each block is written immediately."""
    from htdemucs.audio import PipeWriter

    raw, depth = file_format == "raw", int(bit_depth)
    with (
        StandardOutput() as file,
        PipeWriter(file, rate, channels, depth, raw=raw) as writer,
    ):
        yield writer
