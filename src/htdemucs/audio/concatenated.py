"""Files that FFmpeg must read in parts, found by searching for headers.

FFmpeg reads a file as one stream. For files that were joined from several, as radio recorders and
`cat` do, it returns too many samples at each joint, or fails if the second has another rate. It
also fails to recognise a container after an ID3 tag.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from htdemucs.audio.wav_probe import is_plain_pcm, pcm_codec

_CHUNK = 1 << 20  # bytes searched at a time
_MAGIC = (
    *(b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b"fLaC", b"DSD ", b"FRM8"),
    *(b"wvpk", b"MAC "),
)
_ID3_HEADER = 10  # bytes
_PAGE_HEADER = 27  # bytes of an Ogg page before its table of segments
_FIRST_PAGE, _LAST_PAGE = 2, 4  # flags of an Ogg page
_MAX_HEADER_PAGES = 64  # more than any Vorbis stream has before its audio
_FIRST_MP3_HEADER = 4_096  # bytes: an MP3 header frame before this belongs to the first part


class Part(NamedTuple):
    """A range of bytes that is a complete file.

    Attributes:
        start, end: in bytes.
        length: exact number of samples, if FFmpeg gets it wrong.
        codec: FFmpeg's name of the codec, if FFmpeg may choose another.
        is_plain_pcm: whether FFmpeg can skip trying codecs on the samples.
        container: FFmpeg's name of the format, if FFmpeg may choose another.
    """

    start: int
    end: int
    length: int | None = None
    codec: str | None = None
    is_plain_pcm: bool = False
    container: str | None = None


def find_parts(path: Path) -> list[Part]:
    """Return the parts of a file in order; usually one, the whole file. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = _skip_id3(file, 0)
        head = _read(file, start, 8)
        if head.startswith(b"OggS"):
            return _ogg_parts(file, start, size)
        if head.startswith(_MAGIC) or head.endswith(b"ftyp"):
            codec = pcm_codec(file, start)
            is_plain = codec is not None or is_plain_pcm(file, start)
            return [Part(start, size, codec=codec, is_plain_pcm=is_plain)]
        if len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0:
            return _mp3_parts(file, start, size)
        return [Part(0, size)]


class _OggPage(NamedTuple):
    """The header of an Ogg page."""

    flags: int
    granule: int  # number of samples up to its end; -1 if no packet ends in it
    content: int  # offset of its content
    end: int


def _ogg_parts(file: BinaryIO, start: int, size: int) -> list[Part]:
    """Return the links of a chain: each begins with the first pages of its streams."""
    starts = [start]
    end = start
    for offset in _find_all(file, b"OggS\0" + bytes([_FIRST_PAGE]), start):
        page = _read_page(file, offset)
        if page is None or _read(file, page.end, 4) not in (b"OggS", b""):
            continue
        if offset != end and end != start:
            starts.append(offset)
        end = page.end
    ranges = zip(starts, [*starts[1:], size], strict=True)
    return [Part(begin, end, length=_short_vorbis_length(file, begin)) for begin, end in ranges]


def _short_vorbis_length(file: BinaryIO, offset: int) -> int | None:
    """Return the length of a Vorbis stream whose audio is on one page, else None."""
    page = _read_page(file, offset)
    if page is None or _read(file, page.content, 7) != b"\x01vorbis":
        return None
    for _ in range(_MAX_HEADER_PAGES):
        page = _read_page(file, page.end)
        if page is None:
            return None
        if page.granule > 0:
            return page.granule if page.flags & _LAST_PAGE else None
    return None


def _read_page(file: BinaryIO, offset: int) -> _OggPage | None:
    header = _read(file, offset, _PAGE_HEADER)
    if len(header) < _PAGE_HEADER or not header.startswith(b"OggS"):
        return None
    segments = file.read(header[26])
    content = offset + _PAGE_HEADER + len(segments)
    granule = int.from_bytes(header[6:14], "little", signed=True)
    return _OggPage(header[5], granule, content, content + sum(segments))


def _mp3_parts(file: BinaryIO, start: int, size: int) -> list[Part]:
    """Return the parts that begin with a header frame of Xing or LAME.

    FFmpeg recognises MP3 by seven frames in a row; it may take a shorter file for a video.
    """
    tags = sorted(at for tag in (b"Xing", b"Info") for at in _find_all(file, tag, start))
    frames = [frame for tag in tags if (frame := _header_frame(file, tag)) is not None]
    starts = [frame for frame in frames if frame > start + _FIRST_MP3_HEADER]
    if starts:
        id3_starts = {_id3_end(file, at): at for at in _find_all(file, b"ID3", start)}
        starts = [id3_starts.get(frame, frame) for frame in starts]
    container = "mp3" if _is_layer_three(_read(file, start, 4)) else None
    ranges = zip([0, *starts], [*starts, size], strict=True)
    return [Part(begin, end, container=container) for begin, end in ranges]


def _header_frame(file: BinaryIO, tag: int) -> int | None:
    """Return the offset of the MPEG frame that has this tag after its side information."""
    for side_information in (32, 17, 9):  # bytes
        offset = tag - 4 - side_information
        if offset < 0:
            continue
        frame = _read(file, offset, 4)
        if not _is_layer_three(frame):
            continue
        is_version_1, is_mono = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3
        if side_information == (17 if is_version_1 == is_mono else 32 if is_version_1 else 9):
            return offset
    return None


def _is_layer_three(frame: bytes) -> bool:
    """Whether this is the beginning of an MPEG audio frame of layer III."""
    return frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2


def _skip_id3(file: BinaryIO, offset: int) -> int:
    """Return the end of the ID3v2 tags that begin at `offset`; `offset` if there are none."""
    while (end := _id3_end(file, offset)) is not None:
        offset = end
    return offset


def _id3_end(file: BinaryIO, offset: int) -> int | None:
    """Return the end of the ID3v2 tag that begins at `offset`; None if there is none."""
    header = _read(file, offset, _ID3_HEADER)
    if len(header) < _ID3_HEADER or not header.startswith(b"ID3") or max(header[6:]) >= 0x80:
        return None
    size = sum(byte << 7 * (3 - index) for index, byte in enumerate(header[6:]))
    footer = _ID3_HEADER if header[5] & 0x10 else 0
    return offset + _ID3_HEADER + size + footer


def _find_all(file: BinaryIO, pattern: bytes, start: int) -> Iterator[int]:
    """Yield the offsets of a pattern from `start` on; the caller may read the file in between."""
    tail = b""
    while chunk := _read(file, start, _CHUNK):
        searched = tail + chunk
        offset = start - len(tail)
        found = searched.find(pattern)
        while found >= 0:
            yield offset + found
            found = searched.find(pattern, found + 1)
        tail = searched[-(len(pattern) - 1) :]
        start += len(chunk)


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
