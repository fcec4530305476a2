"""WAV headers of integer samples that FFmpeg takes for others, and gives noise.

It goes by the number of bits that are valid, though samples lie in containers that may be larger
(24 of 32 bits, from sound cards), and reads the big-endian RIFX like RIFF.
"""

import struct
from typing import BinaryIO

_HEAD = 1 << 16  # bytes in which the format is looked for
_EXTENSIBLE = 0xFFFE
_INTEGERS = bytes.fromhex("0100000000001000800000aa00389b71")  # the format's GUID
_CODECS = {1: "pcm_u8", 2: "pcm_s16", 3: "pcm_s24", 4: "pcm_s32"}  # by bytes of a container


def pcm_codec(file: BinaryIO, start: int) -> str | None:
    """Return FFmpeg's name of the codec that a WAV file at byte `start` has.

    None if it is no WAV file of integers, or FFmpeg knows it well.
    """
    file.seek(start)
    head = file.read(_HEAD)
    is_big = head.startswith(b"RIFX")
    if (not is_big and not head.startswith((b"RIFF", b"RF64", b"BW64"))) or head[8:12] != b"WAVE":
        return None
    order = ">" if is_big else "<"
    form = _chunk(head, b"fmt ", order)
    if len(form) < 16:
        return None
    tag, channels, _, _, block, _ = struct.unpack_from(order + "HHIIHH", form)
    is_extensible = tag == _EXTENSIBLE and form[24:40] == _INTEGERS
    if not channels or not (is_extensible or (is_big and tag == 1)):
        return None
    codec = _CODECS.get(block // channels)
    if codec is None or codec == "pcm_u8":
        return codec
    return codec + ("be" if is_big else "le")


def _chunk(head: bytes, wanted: bytes, order: str) -> bytes:
    place = 12
    while place + 8 <= len(head):
        kind, size = struct.unpack_from(f"{order}4sI", head, place)
        if kind == wanted:
            return head[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    return b""
