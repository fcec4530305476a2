"""The number of bits that a file's samples need."""

import re

from av.audio.codeccontext import AudioCodecContext

_PCM_BITS = re.compile(r"pcm_[usf](\d+)")
_LOSSLESS = frozenset(
    {
        *("alac", "ape", "flac", "mlp", "mp4als", "pcm_bluray", "pcm_dvd", "s302m", "shorten"),
        *("tak", "truehd", "tta", "wavpack", "wmalossless"),
    }
)
_DSD = ("dsd_", "dst")  # one bit at a very high rate, which is usually converted to 24 bits
_SAMPLE_FORMAT_BITS = {"u8": 16, "s16": 16, "s32": 24}  # unless a header says more than 24


def bit_depth(context: AudioCodecContext, packet: bytes) -> int | None:
    """Return 16, 24 or 32, the least that holds every sample; None for lossy codecs.

    `packet` is the stream's first one.
    """
    codec = context.codec.canonical_name
    if pcm := _PCM_BITS.match(codec):
        return next((depth for depth in (16, 24) if int(pcm[1]) <= depth), 32)
    if codec.startswith(_DSD):
        return 24
    if codec not in _LOSSLESS:
        return None
    if header_bits(codec, context.extradata or b"", packet) > 24:
        return 32
    return _SAMPLE_FORMAT_BITS.get(context.format.name.removesuffix("p"), 32)


def header_bits(codec: str, header: bytes, packet: bytes) -> int:
    """Return the bit depth that the codec's own header states; 0 if it states none.

    FFmpeg decodes 24 and 32 bits to the same sample format.
    """
    if codec == "flac" and len(header) > 13:  # STREAMINFO: 5 bits that hold the number - 1
        return ((header[12] & 1) << 4 | header[13] >> 4) + 1
    if codec == "alac" and len(header) > 17:
        return header[17]
    if codec == "wavpack" and packet.startswith(b"wvpk") and len(packet) > 27:
        flags = int.from_bytes(packet[24:28], "little")
        return 8 * ((flags & 3) + 1) - (flags >> 13 & 31)  # bytes, less the bits that are always 0
    return 0
