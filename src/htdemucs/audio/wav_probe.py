"""WAV headers of integer samples: what FFmpeg takes for others, and what it need not doubt.

FFmpeg goes by the number of bits that are valid, though samples lie in containers that may be
larger (24 of 32 bits, from sound cards), and reads the big-endian RIFX like RIFF: both give noise.
"""

import struct
from typing import BinaryIO

import numpy as np

_HEAD = 1 << 16  # bytes in which the format is looked for
_TWO_GB = 1 << 31  # bytes
_NEAR = 1 << 16  # bytes
_EXTENSIBLE = 0xFFFE
_INTEGERS = bytes.fromhex("0100000000001000800000aa00389b71")  # the format's GUID
_SEARCHED = 1 << 19  # bytes: as many as FFmpeg tries its codecs on
# DTS' sync words, of 16 and of 14 bits, in both orders; FFmpeg wants four of them.
_DTS = (0x7FFE8001, 0xFE7F0180, 0x1FFFE800, 0xFF1F00E8)
_FEWEST_DTS = 4
_CODECS = {1: "pcm_u8", 2: "pcm_s16", 3: "pcm_s24", 4: "pcm_s32"}  # by bytes of a container


def pcm_codec(file: BinaryIO, start: int) -> str | None:
    """Return FFmpeg's name of the codec that a WAV file at byte `start` has.

    None if it is no WAV file of integers, or FFmpeg knows it well.
    """
    head = _read(file, start, _HEAD)
    order, form = _format(head)
    if not form:
        return None
    is_big = order == ">"
    tag, channels, _, _, block, _ = struct.unpack_from(order + "HHIIHH", form)
    is_extensible = tag == _EXTENSIBLE and form[24:40] == _INTEGERS
    if not channels or not (is_extensible or (is_big and tag == 1)):
        return None
    codec = _CODECS.get(block // channels)
    if codec is None or codec == "pcm_u8":
        return codec
    return codec + ("be" if is_big else "le")


def is_plain(file: BinaryIO, start: int) -> bool:
    """Whether a WAV file at byte `start` has 16-bit samples that are nothing else.

    CDs of DTS give WAV files that call it 16-bit samples, the first track after much silence. So
    FFmpeg tries its codecs on half a megabyte of 16-bit samples, which takes it long.
    """
    head = _read(file, start, _SEARCHED)
    order, form = _format(head)
    if order == ">" or not form:
        return False
    tag, *_, bits = struct.unpack_from("<HHIIHH", form)
    if (tag, bits) != (1, 16):
        return False
    samples = np.frombuffer(head, ">u2", len(head) // 2).astype(np.uint32)
    pairs = samples[:-1] << 16 | samples[1:]
    return sum(int((pairs == word).sum()) for word in _DTS) < _FEWEST_DTS


def is_endless(head: bytes) -> bool:
    """Whether a WAV header's length stands for "unknown": its writer could not come back to it.

    sox writes 0x7FFFF000, arecord about 2 GB, FFmpeg and others 0xFFFFFFFF or 0.
    """
    order = ">" if head.startswith(b"RIFX") else "<"
    place = head.find(b"data", 12)
    if not head.startswith((b"RIFF", b"RIFX")) or not 0 <= place <= len(head) - 8:
        return False
    (size,) = struct.unpack_from(f"{order}I", head, place + 4)
    return size in (0, 0xFFFFFFFF) or abs(size - _TWO_GB) <= _NEAR


def is_whole(head: bytes) -> bool:
    """Whether a WAV file's first bytes reach to its samples; of other formats 4 are enough."""
    if len(head) < 4 or not head.startswith((b"RIFF", b"RIFX", b"RF64", b"BW64")):
        return len(head) >= 4
    return 0 <= head.find(b"data", 12) <= len(head) - 8 or len(head) >= _HEAD


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _format(head: bytes) -> tuple[str, bytes]:
    """Return a WAV file's byte order and the chunk that says its format; empty if there is none."""
    order = ">" if head.startswith(b"RIFX") else "<"
    is_wave = head.startswith((b"RIFF", b"RIFX", b"RF64", b"BW64")) and head[8:12] == b"WAVE"
    form = _chunk(head, b"fmt ", order) if is_wave else b""
    return order, form if len(form) >= 16 else b""


def _chunk(head: bytes, wanted: bytes, order: str) -> bytes:
    place = 12
    while place + 8 <= len(head):
        kind, size = struct.unpack_from(f"{order}4sI", head, place)
        if kind == wanted:
            return head[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    return b""
