"""The boxes that an MP4 file is made of (ISO/IEC 14496-12): finding one, and adding one.

MERGED: Native Instruments' Stems: one MP4 file with the mixture and four stems, for DJ software.

Such a file is an MP4 whose first audio track is the mixture, which any player plays, whose four
other tracks are the stems, and whose box `moov/udta/stem` holds JSON: the stems' names and colours
and the settings of a compressor and a limiter for their sum.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from htdemucs.audio.ffmpeg import printable, reporting
from htdemucs.audio.formats import AudioEncoding
from htdemucs.audio.read import check_regular_file
from htdemucs.audio.write import MediaWriter
from htdemucs.errors import AudioError

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


# The format is made for four stems; the colours are those of NI's own tool, in its order: drums,
# bass, other, vocals.
_COLORS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
# NI's defaults, switched off: the stems add up to the mixture without them.
_MASTERING = {
    "compressor": {
        "enabled": False,
        "ratio": 3.0,
        "output_gain": 0.5,
        "release": 0.3,
        "attack": 0.003,
        "input_gain": 0.5,
        "threshold": 0.0,
        "hp_cutoff": 300,
        "dry_wet": 50,
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0.0, "ceiling": -0.35},
}
_MAX_METADATA = 2**20  # bytes; about 500 are usual


class StemFileWriter(MediaWriter):
    """Encodes a mixture and its four stems into one Stems file; name it `<track>.stem.mp4`.

    All five are stereo AAC of the same length. The mixture is the track that players play; the
    stems' tracks are disabled, which DJ software ignores. Every sample written comes back when
    the file is read, in all five, and no more. The file is reproducible bit by bit.

    Renaming on `close()`, errors, rates and memory are as in `AudioWriter`. `finish` sees the
    complete file with its stem metadata: `write_tags(..., format="m4a")` keeps them.

    Args:
        path: the file; DJ software wants its name to end with ".stem.mp4".
        sample_rate: of what is written, Hz; stored as it is from 8 to 96 kHz where AAC can.
        stems: the names of exactly four stems, in the file's order.
        bitrate: kbit/s of each of the five tracks, 16 to 512; None takes 256.
        finish, temporary: as in `AudioWriter`.

    Raises AudioError for any other number of stems, and where `AudioWriter` does.
    """

    # The mixture first: FFmpeg enables the first track, and no other.
    _stream_count = 1 + len(_COLORS)

    def __init__(
        self,
        path: str | PathLike[str],
        sample_rate: int,
        stems: Sequence[str],
        *,
        bitrate: int | None = None,
        finish: Callable[[Path], None] | None = None,
        temporary: Path | None = None,
    ) -> None:
        self.stems = tuple(stems)
        if len(set(self.stems)) != len(_COLORS) or len(self.stems) != len(_COLORS):
            raise AudioError(
                f"{printable(Path(path))} takes exactly {len(_COLORS)} different stems, not "
                f"{', '.join(self.stems) or 'none'}; choose a model with four, or another format"
            )
        super().__init__(
            path,
            sample_rate,
            2,
            AudioEncoding("m4a", bitrate=bitrate),
            finish=self._complete,
            temporary=temporary,
        )
        self._finish_outside = finish

    def write(self, mixture: Tensor, stems: Mapping[str, Tensor]) -> None:
        """Append blocks (2, L), or (1, L) for both sides, of the mixture and of each stem.

        L may be anything, also 0, but is the same for all five.
        """
        if set(stems) != set(self.stems):
            raise AudioError(
                f"{printable(self.path)} takes the stems {', '.join(self.stems)}, "
                f"not {', '.join(stems) or 'none'}"
            )
        blocks = [mixture, *(stems[name] for name in self.stems)]
        for block in blocks:
            fits = block.ndim == 2 and block.shape[0] in (1, 2)
            if not fits or block.shape[1] != mixture.shape[1]:
                raise AudioError(
                    f"{printable(self.path)} takes blocks of shape (2, L) or (1, L) with the same "
                    f"L, not {', '.join(str(tuple(block.shape)) for block in blocks)}"
                )
        self._append(torch.cat([block.detach().to("cpu").expand(2, -1) for block in blocks]))

    def _complete(self, temporary: Path) -> None:
        metadata = {
            "mastering_dsp": _MASTERING,
            "version": 1,
            "stems": [
                {"color": color, "name": name.capitalize()}
                for name, color in zip(self.stems, _COLORS, strict=True)
            ],
        }
        with self._reporting():
            add_user_data(temporary, b"stem", json.dumps(metadata).encode("ascii"))
        if self._finish_outside is not None:
            self._finish_outside(temporary)


def read_stem_metadata(path: str | PathLike[str]) -> dict[str, Any]:
    """Read what a Stems file says of its stems: the JSON object in its box `moov/udta/stem`.

    Raises AudioError if the file is missing, unreadable or damaged, or has no such box.
    """
    path = Path(path)
    check_regular_file(path)
    with reporting(path, "cannot be read", "check that it is an undamaged .stem.mp4 file"):
        with path.open("rb") as file:
            box = find_box(file, b"moov", b"udta", b"stem")
            if box is None:
                raise AudioError(f"{printable(path)} has no stem metadata; it is not a Stems file")
            if box.end - box.content > _MAX_METADATA:
                raise ValueError("its stem metadata is too long")
            file.seek(box.content)
            content = file.read(box.end - box.content)
        try:
            metadata = json.loads(content.rstrip(b"\0"))  # some writers end it as in C
        except RecursionError:
            metadata = None
        if not isinstance(metadata, dict):
            raise ValueError("its stem metadata is not a JSON object")
    return metadata
