"""WAV headers that FFmpeg misreads, and samples on which it need not try its codecs.

FFmpeg goes by the number of valid bits, though samples lie in containers that may be larger
(24 of 32 bits, from sound cards), and reads the big-endian RIFX like RIFF: both result in noise.
"""

import struct
from typing import BinaryIO

import numpy as np

_MAX_HEADER = 1 << 16  # bytes
_FORMAT_INTEGER, _FORMAT_EXTENSIBLE = 1, 0xFFFE
_INTEGER_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
_CODECS = {1: "pcm_u8", 2: "pcm_s16", 3: "pcm_s24", 4: "pcm_s32"}  # by bytes of a container
_DTS_SEARCH = 1 << 19  # bytes: as many as FFmpeg tries its codecs on
# Sync words of DTS in 16 and 14 bits, in both byte orders; FFmpeg looks for four of them.
_DTS_SYNC = (0x7FFE8001, 0xFE7F0180, 0x1FFFE800, 0xFF1F00E8)
_MIN_DTS_SYNCS = 4
_TWO_GB = 1 << 31  # bytes
_TWO_GB_TOLERANCE = 1 << 16  # bytes


def pcm_codec(file: BinaryIO, start: int) -> str | None:
    """Return FFmpeg's name of the codec of the WAV file that begins at byte `start`.

    None if it is not a WAV file of integers, or if FFmpeg reads it correctly.
    """
    order, form = _format_chunk(_read(file, start, _MAX_HEADER))
    if not form:
        return None
    is_big_endian = order == ">"
    tag, channels, _, _, frame_bytes, _ = struct.unpack_from(order + "HHIIHH", form)
    is_integer = (is_big_endian and tag == _FORMAT_INTEGER) or (
        tag == _FORMAT_EXTENSIBLE and form[24:40] == _INTEGER_GUID
    )
    if not channels or not is_integer:
        return None
    codec = _CODECS.get(frame_bytes // channels)
    if codec is None or codec == "pcm_u8":
        return codec
    return codec + ("be" if is_big_endian else "le")


def is_plain_pcm(file: BinaryIO, start: int) -> bool:
    """Whether the WAV file that begins at byte `start` has 16-bit samples that are not DTS.

    Copies of DTS CDs are WAV files that declare 16-bit samples, and may begin with silence.
    FFmpeg therefore tries its codecs on half a megabyte of 16-bit samples, which is slow.
    """
    data = _read(file, start, _DTS_SEARCH)
    order, form = _format_chunk(data)
    if order == ">" or not form:
        return False
    tag, *_, bits = struct.unpack_from("<HHIIHH", form)
    if (tag, bits) != (_FORMAT_INTEGER, 16):
        return False
    words = np.frombuffer(data, ">u2", len(data) // 2).astype(np.uint32)
    pairs = words[:-1] << 16 | words[1:]
    return sum(int((pairs == sync).sum()) for sync in _DTS_SYNC) < _MIN_DTS_SYNCS


def has_unknown_length(head: bytes) -> bool:
    """Whether a WAV header's length means "unknown", because its writer could not seek.

    sox writes 0x7FFFF000, arecord about 2 GB, FFmpeg and others 0xFFFFFFFF or 0.
    """
    order = ">" if head.startswith(b"RIFX") else "<"
    data = head.find(b"data", 12)
    if not head.startswith((b"RIFF", b"RIFX")) or not 0 <= data <= len(head) - 8:
        return False
    (size,) = struct.unpack_from(f"{order}I", head, data + 4)
    return size in (0, 0xFFFFFFFF) or abs(size - _TWO_GB) <= _TWO_GB_TOLERANCE


def is_complete_header(head: bytes) -> bool:
    """Whether a file's first bytes contain its WAV header; for other formats 4 bytes are enough."""
    if len(head) < 4 or not head.startswith((b"RIFF", b"RIFX", b"RF64", b"BW64")):
        return len(head) >= 4
    return 0 <= head.find(b"data", 12) <= len(head) - 8 or len(head) >= _MAX_HEADER


def _format_chunk(head: bytes) -> tuple[str, bytes]:
    """Return a WAV file's byte order and its chunk "fmt "; empty if none is found."""
    order = ">" if head.startswith(b"RIFX") else "<"
    offset = 12
    is_wave = head.startswith((b"RIFF", b"RIFX", b"RF64", b"BW64")) and head[8:12] == b"WAVE"
    while is_wave and offset + 8 <= len(head):
        kind, size = struct.unpack_from(f"{order}4sI", head, offset)
        if kind == b"fmt ":
            chunk = head[offset + 8 : offset + 8 + size]
            return order, chunk if len(chunk) >= 16 else b""
        offset += 8 + size + size % 2
    return order, b""


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)
