"""WAV chunks with which audio editors place a file: read from a track, written to stems.

- `bext` (EBU Tech 3285): the time of the first sample, in samples since midnight.
- `iXML`: the same and more, as XML.
- `cue `, `LIST` of the kind `adtl`, `smpl`: markers, their labels, and loops.
- `acid`: tempo and beats.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from htdemucs.audio.ffmpeg import audio_errors

_KINDS = (b"bext", b"iXML", b"cue ", b"smpl", b"acid", b"LIST")
_MAX_BYTES = 1 << 22  # of one chunk
_MAX_RIFF = 2**32 - 2**26  # bytes; a larger WAV file is RF64, and gets no chunks
_TIME = 338  # offset of the time in `bext`: 64 bits
_UMID = 348  # offset of the identifier of this very sound, 64 bytes, and of five loudness values
_NO_LOUDNESS = struct.pack("<5H", *[0x7FFF] * 5)  # "not used"


def read_wav_chunks(path: Path) -> dict[bytes, bytes]:
    """Return those chunks of a WAV file that stems should have, too; none if it is damaged."""
    try:
        with path.open("rb") as file:
            return dict(_chunks(file))
    except (OSError, struct.error):
        return {}


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    riff, _, wave = struct.unpack("<4sI4s", file.read(12))
    if riff not in (b"RIFF", b"RF64", b"BW64") or wave != b"WAVE":
        return
    long_size = None
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        start = file.tell()
        if kind == b"ds64":
            _, long_size = struct.unpack("<QQ", file.read(16))
        if kind == b"data" and size == 0xFFFFFFFF and long_size is not None:
            size = long_size
        if kind in _KINDS and size <= _MAX_BYTES:
            content = file.read(size)
            if len(content) == size and (kind != b"LIST" or content.startswith(b"adtl")):
                yield kind, content
        file.seek(start + size + size % 2)


def chunks_of_stems(
    chunks: Mapping[bytes, bytes], source_rate: int, target_rate: int
) -> dict[bytes, bytes]:
    """Return a track's chunks as they are right for its stems, perhaps at another sample rate.

    Positions are converted. The identifier and the loudness of the track are removed, and iXML,
    whose positions are anywhere in its text, if the rate differs.
    """
    converted = {}
    for kind, content in chunks.items():
        try:
            if (new := _convert(kind, content, source_rate, target_rate)) is not None:
                converted[kind] = new
        except struct.error:  # damaged
            continue
    return converted


def _convert(kind: bytes, content: bytes, source_rate: int, target_rate: int) -> bytes | None:
    if kind == b"bext":
        return _bext(content, source_rate, target_rate)
    if source_rate == target_rate:
        return content
    match kind:
        case b"iXML":
            return None
        case b"cue ":
            return _with_positions(content, 4, (4, 20), source_rate, target_rate)
        case b"smpl":
            period = struct.pack("<I", round(1e9 / target_rate))
            content = content[:8] + period + content[12:]
            return _with_positions(content, 36, (8, 12), source_rate, target_rate)
    return content


def _bext(content: bytes, source_rate: int, target_rate: int) -> bytes:
    (time,) = struct.unpack_from("<Q", content, _TIME)
    time = struct.pack("<Q", min(round(time * target_rate / source_rate), 2**64 - 1))
    content = content[:_TIME] + time + content[_TIME + 8 :]
    rest = content[_UMID:]
    unique = bytes(64) + _NO_LOUDNESS
    return content[:_UMID] + unique[: len(rest)] + rest[len(unique) :]


def _with_positions(
    content: bytes, header: int, offsets: tuple[int, ...], source_rate: int, target_rate: int
) -> bytes:
    """Convert the positions at these offsets in each entry, of 24 bytes, after a header."""
    data = bytearray(content)
    for entry in range(header, len(data) - 23, 24):
        for offset in offsets:
            (position,) = struct.unpack_from("<I", data, entry + offset)
            position = min(round(position * target_rate / source_rate), 2**32 - 1)
            struct.pack_into("<I", data, entry + offset, position)
    return bytes(data)


def write_wav_chunks(path: Path, chunks: Mapping[bytes, bytes]) -> None:
    """Append chunks to a finished WAV file. Raises AudioError if it cannot be written."""
    if not chunks or path.stat().st_size > _MAX_RIFF:
        return
    with (
        audio_errors(path, "cannot be written", "check its folder and the free space"),
        path.open("r+b") as file,
    ):
        end = file.seek(0, 2)
        file.write(bytes(end % 2))
        for kind, content in chunks.items():
            file.write(struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2))
        size = file.tell() - 8
        file.seek(4)
        file.write(struct.pack("<I", size))
