"""Native Instruments' Stems: one MP4 file with the mixture and four stems, for DJ software.

The first audio track is the mixture, which any player plays; the other four are the stems. The box
`moov/udta/stem` contains JSON: the stems' names and colours, and the settings of a compressor and
a limiter for their sum. MP4 boxes are specified in ISO/IEC 14496-12.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from htdemucs.audio.encoding import AudioEncoding
from htdemucs.audio.ffmpeg import display_path
from htdemucs.audio.write import MediaWriter
from htdemucs.errors import AudioError

# The format requires four stems. The colours are those of NI's own tool, in its order: drums, bass,
# other, vocals.
_COLORS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
# NI's defaults, but disabled: without them the stems add up to the mixture.
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


class StemFileWriter(MediaWriter):
    """Encodes a mixture and its four stems into one Stems file; name it `<track>.stem.mp4`.

    All five are stereo AAC of the same length. Players play the mixture; the tracks of the stems
    are marked as disabled, which DJ software ignores. Reading returns exactly as many samples as
    were written, in all five. The same samples give the same bytes.

    Renaming on `close()`, errors, rates and memory are as in `AudioWriter`. `finish` sees the
    complete file with its stem metadata: `write_tags(..., format="m4a")` keeps them.

    Args:
        path: the file; DJ software requires a name that ends with ".stem.mp4".
        sample_rate: of the blocks, Hz; also of the file if AAC has it (8 to 96 kHz).
        stems: the names of exactly four stems, in the file's order.
        bitrate: kbit/s of each of the five tracks, 16 to 512; None takes 256.
        finish, temporary: as in `AudioWriter`.

    Raises AudioError for any other number of stems, and as `AudioWriter` does.
    """

    # The mixture is the first track, the only one that FFmpeg enables.
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
                f"{display_path(Path(path))} takes exactly {len(_COLORS)} different stems, not "
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
        self._user_finish = finish

    def write(self, mixture: Tensor, stems: Mapping[str, Tensor]) -> None:
        """Append blocks (2, L), or (1, L) for both sides, of the mixture and of each stem.

        L may be anything, also 0, but is the same for all five.
        """
        if set(stems) != set(self.stems):
            raise AudioError(
                f"{display_path(self.path)} takes the stems {', '.join(self.stems)}, "
                f"not {', '.join(stems) or 'none'}"
            )
        blocks = [mixture, *(stems[name] for name in self.stems)]
        for block in blocks:
            fits = block.ndim == 2 and block.shape[0] in (1, 2)
            if not fits or block.shape[1] != mixture.shape[1]:
                raise AudioError(
                    f"{display_path(self.path)} takes blocks of shape (2, L) or (1, L) with the "
                    f"same L, not {', '.join(str(tuple(block.shape)) for block in blocks)}"
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
        with self._audio_errors():
            add_user_data(temporary, b"stem", json.dumps(metadata).encode("ascii"))
        if self._user_finish is not None:
            self._user_finish(temporary)


_HEADER = 8  # bytes: size and kind, 4 each
_LONG_HEADER = 16  # bytes: followed by a size of 8 bytes


class _Box(NamedTuple):
    """A box of an MP4 file. Offsets are from the start of the file, in bytes."""

    kind: bytes  # four characters
    start: int
    content: int
    end: int


def find_box(file: BinaryIO, *path: bytes) -> _Box | None:
    """Return the box at a path of kinds, the first of each kind in the one before.

    Raises ValueError for a box that is larger than the one around it.
    """
    box = _Box(b"", 0, 0, file.seek(0, os.SEEK_END))
    for kind in path:
        children = _boxes(file, box.content, box.end)
        child = next((child for child in children if child.kind == kind), None)
        if child is None:
            return None
        box = child
    return box


def add_user_data(path: Path, kind: bytes, content: bytes) -> None:
    """Add a box to `moov/udta`, which is created if it does not exist.

    The audio must lie before `moov`, as FFmpeg writes it: then it does not move, and the
    chunk offsets stay valid. Raises ValueError if it does not, and OSError.
    """
    with path.open("r+b") as file:
        moov = find_box(file, b"moov")
        if moov is None or moov.end != file.seek(0, os.SEEK_END):
            raise ValueError("the file does not end with its moov box")
        udta = find_box(file, b"moov", b"udta")
        added = _to_bytes(kind, content)
        if udta is None:
            added = _to_bytes(b"udta", added)
        offset = udta.end if udta else moov.end
        file.seek(offset)
        rest = file.read()
        file.seek(offset)
        file.write(added + rest)
        for box in (udta, moov):
            if box is not None:
                file.seek(box.start)
                file.write((box.end - box.start + len(added)).to_bytes(4, "big"))


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    while end - start >= _HEADER:
        file.seek(start)
        size = int.from_bytes(file.read(4), "big")
        kind = file.read(4)
        content = start + _HEADER
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
            content = start + _LONG_HEADER
        if not content - start <= size <= end - start:
            raise ValueError(f"the box at byte {start} has an impossible size")
        yield _Box(kind, start, content, start + size)
        start += size


def _to_bytes(kind: bytes, content: bytes) -> bytes:
    return (_HEADER + len(content)).to_bytes(4, "big") + kind + content
