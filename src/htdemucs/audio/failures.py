"""Turning what the operating system and FFmpeg report into one plain line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from htdemucs.errors import AudioError


def printable(path: Path) -> str:
    """Make a path fit for a one-line message, whatever bytes its name holds."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(character if character.isprintable() else "?" for character in text)


def reason(error: Exception) -> str:
    """Say what went wrong, without the error's number and the paths it repeats."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def reporting(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise what FFmpeg or the system refuses as "<path> <problem> (<reason>); <remedy>"."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"{printable(path)} {problem} ({reason(error)}); {remedy}") from error
