"""The parts of a file that FFmpeg has to read one by one, found by a few bytes of their headers.

FFmpeg takes a file for one stream from its first byte to its last. Files that were put together
from several, as radio recorders and `cat` do, are read with samples too many at each seam, or not
at all where the second has another rate; a container behind an ID3 tag is not recognised.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from htdemucs.audio.wav_probe import is_plain, pcm_codec

_CHUNK = 1 << 20  # bytes searched at a time
_MAGIC = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"BW64",
    b"riff",
    b"FORM",
    b"caff",
    b"fLaC",
    b"DSD ",
    b"FRM8",
    b"wvpk",
    b"MAC ",
)
_ID3_HEADER = 10  # bytes
_PAGE_HEADER = 27  # bytes of an Ogg page before its table of segments
_FIRST_PAGE, _LAST_PAGE = 2, 4  # flags of an Ogg page
_HEADER_PAGES = 64  # more than any Vorbis stream has before its audio
_NEAR = 4_096  # bytes: an MP3 header frame this near the beginning belongs to the first part


class Part(NamedTuple):
    """A span of bytes that is a file of its own."""

    start: int
    end: int
    samples: int | None = None  # its exact length, where FFmpeg takes a wrong one
    codec: str | None = None  # FFmpeg's name of its codec, where FFmpeg may take another
    is_plain: bool = False  # FFmpeg need not try its codecs on it
    container: str | None = None  # FFmpeg's name of its format, where FFmpeg may take another


class _Page(NamedTuple):
    """The header of an Ogg page."""

    flags: int
    granule: int  # samples until its end; -1 where no packet ends in it
    content: int  # where its content begins
    end: int


def find_parts(path: Path) -> list[Part]:
    """Return the parts of a file in their order; mostly one, the whole file. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = _after_id3(file, 0)
        head = _read(file, start, 8)
        if head.startswith(b"OggS"):
            return _ogg_parts(file, start, size)
        if head.startswith(_MAGIC) or head.endswith(b"ftyp"):
            codec = pcm_codec(file, start)
            return [Part(start, size, None, codec, codec is not None or is_plain(file, start))]
        if len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0:
            return _mp3_parts(file, start, size)
        return [Part(0, size)]


def _ogg_parts(file: BinaryIO, start: int, size: int) -> list[Part]:
    """Find the links of a chain: each begins with the first pages of its streams."""
    seams = [start]
    end = start
    for place in _places(file, b"OggS\0" + bytes([_FIRST_PAGE]), start):
        page = _page(file, place)
        if page is None or _read(file, page.end, 4) not in (b"OggS", b""):
            continue
        if place != end and end != start:
            seams.append(place)
        end = page.end
    spans = zip(seams, [*seams[1:], size], strict=True)
    return [Part(begin, end, _short_vorbis(file, begin)) for begin, end in spans]


def _short_vorbis(file: BinaryIO, place: int) -> int | None:
    """Return the length of a Vorbis stream whose audio is on one page, else None."""
    page = _page(file, place)
    if page is None or _read(file, page.content, 7) != b"\x01vorbis":
        return None
    for _ in range(_HEADER_PAGES):
        page = _page(file, page.end)
        if page is None:
            return None
        if page.granule > 0:
            return page.granule if page.flags & _LAST_PAGE else None
    return None


def _page(file: BinaryIO, place: int) -> _Page | None:
    header = _read(file, place, _PAGE_HEADER)
    if len(header) < _PAGE_HEADER or not header.startswith(b"OggS"):
        return None
    table = file.read(header[26])
    content = place + _PAGE_HEADER + len(table)
    granule = int.from_bytes(header[6:14], "little", signed=True)
    return _Page(header[5], granule, content, content + sum(table))


def _mp3_parts(file: BinaryIO, start: int, size: int) -> list[Part]:
    """Find the header frames, Xing's or LAME's, that begin a file inside the file.

    FFmpeg recognises MP3 by seven frames in a row: it takes a shorter one for a film at times.
    """
    words = sorted(p for word in (b"Xing", b"Info") for p in _places(file, word, start))
    frames = [frame for word in words if (frame := _header_frame(file, word)) is not None]
    seams = [frame for frame in frames if frame > start + _NEAR]
    if seams:
        tags = {_id3_end(file, place): place for place in _places(file, b"ID3", start)}
        seams = [tags.get(frame, frame) for frame in seams]
    container = "mp3" if _is_layer_three(_read(file, start, 4)) else None
    spans = zip([0, *seams], [*seams, size], strict=True)
    return [Part(begin, end, container=container) for begin, end in spans]


def _header_frame(file: BinaryIO, word: int) -> int | None:
    """Return where the MPEG frame begins that has this word behind its side information."""
    for side in (32, 17, 9):
        place = word - 4 - side
        if place < 0:
            continue
        frame = _read(file, place, 4)
        if not _is_layer_three(frame):
            continue
        first_version, mono = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3
        if side == (17 if first_version == mono else 32 if first_version else 9):
            return place
    return None


def _is_layer_three(frame: bytes) -> bool:
    """Return whether this is the beginning of an MPEG audio frame of layer III."""
    return frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2


def _after_id3(file: BinaryIO, place: int) -> int:
    """Return where the ID3v2 tags end that begin here; the place itself if there are none."""
    while (end := _id3_end(file, place)) is not None:
        place = end
    return place


def _id3_end(file: BinaryIO, place: int) -> int | None:
    """Return where the one ID3v2 tag ends that begins here."""
    header = _read(file, place, _ID3_HEADER)
    if len(header) < _ID3_HEADER or not header.startswith(b"ID3") or max(header[6:]) >= 0x80:
        return None
    size = sum(byte << 7 * (3 - index) for index, byte in enumerate(header[6:]))
    footer = _ID3_HEADER if header[5] & 0x10 else 0
    return place + _ID3_HEADER + size + footer


def _places(file: BinaryIO, word: bytes, start: int) -> Iterator[int]:
    """Yield where a word is found from `start` on; the file may be read elsewhere in between."""
    held = b""
    while chunk := _read(file, start, _CHUNK):
        searched = held + chunk
        begin = start - len(held)
        found = searched.find(word)
        while found >= 0:
            yield begin + found
            found = searched.find(word, found + 1)
        held = searched[-(len(word) - 1) :]
        start += len(chunk)


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
