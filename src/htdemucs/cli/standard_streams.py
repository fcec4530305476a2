"""Standard streams that are closed or full: a message that cannot be written never stops work."""

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from htdemucs.errors import HTDemucsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKEN_PIPE = 141  # the usual exit code of a process ended by SIGPIPE


class StandardOutputError(HTDemucsError):
    """A result cannot be written to standard output."""


class StandardOutput(io.FileIO):
    """Standard output without a buffer. The first failure is raised; later data is dropped.

    Raises:
        click.exceptions.Exit: its reader closed it.
        StandardOutputError: it cannot be written; for example, the disk is full.
    """

    _failed = False

    def __init__(self) -> None:
        super().__init__(sys.stdout.fileno(), "wb", closefd=False)

    def write(self, data: "ReadableBuffer") -> int:
        """Write all of the data."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and not self._failed:
                rest = rest[super().write(rest) or 0 :]
        except BrokenPipeError:
            self._failed = True
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except OSError as error:
            self._failed = True
            raise StandardOutputError(f"standard output: {error.strerror}") from error
        return size


class _ErrorOutput(io.FileIO):
    """Standard error; what cannot be written to it is dropped."""

    def write(self, data: "ReadableBuffer") -> int:
        with suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes


def prepare_standard_streams() -> None:
    """Make the standard streams of this process usable, even if they are closed or full."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:  # closed: it becomes the null device
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest number, that of the stream
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout = _text(StandardOutput())  # a terminal cannot show every file name
    sys.stderr = _text(_ErrorOutput(sys.stderr.fileno(), "wb", closefd=False))


def _text(raw: io.FileIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or isinstance(raw, _ErrorOutput),
    )
