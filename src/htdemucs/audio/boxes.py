"""The boxes that an MP4 file is made of (ISO/IEC 14496-12): finding one, and adding one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = 8  # bytes: size and kind, 4 each
_LONG_HEADER = 16  # bytes: with the size in 8 bytes of its own


class Box(NamedTuple):
    """A box's place, in bytes from the file's start."""

    kind: bytes  # four characters
    start: int
    content: int  # where the content begins
    end: int


def find_box(file: BinaryIO, *kinds: bytes) -> Box | None:
    """Find the first box of the first kind, in it the first of the second, and so on.

    Raises ValueError on a box that is larger than what it is in.
    """
    found = Box(b"", 0, 0, file.seek(0, os.SEEK_END))
    for kind in kinds:
        inside = _boxes(file, found.content, found.end)
        match = next((box for box in inside if box.kind == kind), None)
        if match is None:
            return None
        found = match
    return found


def add_user_data(path: Path, kind: bytes, content: bytes) -> None:
    """Add a box to the user data of the movie, `moov/udta`, which is made if need be.

    The audio must lie before `moov`, as FFmpeg writes it: then no part of it moves, and the
    chunk offsets stay right. Raises ValueError where it does not, and OSError.
    """
    with path.open("r+b") as file:
        moov = find_box(file, b"moov")
        if moov is None or moov.end != file.seek(0, os.SEEK_END):
            raise ValueError("the file does not end with its moov box")
        udta = find_box(file, b"moov", b"udta")
        added = _packed(kind, content)
        if udta is None:
            added = _packed(b"udta", added)
        place = udta.end if udta else moov.end
        file.seek(place)
        rest = file.read()
        file.seek(place)
        file.write(added + rest)
        for box in (udta, moov):
            if box is not None:
                file.seek(box.start)
                file.write((box.end - box.start + len(added)).to_bytes(4, "big"))


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    while end - start >= _HEADER:
        file.seek(start)
        size = int.from_bytes(file.read(4), "big")
        kind = file.read(4)
        content = start + _HEADER
        if size == 0:
            size = end - start
        elif size == 1:
            size = int.from_bytes(file.read(8), "big")
            content = start + _LONG_HEADER
        if not content - start <= size <= end - start:
            raise ValueError(f"the box at byte {start} has an impossible size")
        yield Box(kind, start, content, start + size)
        start += size


def _packed(kind: bytes, content: bytes) -> bytes:
    return (_HEADER + len(content)).to_bytes(4, "big") + kind + content
