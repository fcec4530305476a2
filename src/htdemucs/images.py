"""Pictures of numbers: levels to PNG, as data URIs for pages without other files."""

import base64
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

HEAT = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


def heat_map(levels: NDArray[np.uint8]) -> str:
    """Return (rows, columns), the first row below, as a picture; 0 is dark, 255 is bright."""
    position = np.linspace(0, len(HEAT) - 1, 256)
    channels = [np.interp(position, range(len(HEAT)), c) for c in zip(*HEAT, strict=True)]
    palette = np.stack([np.full(256, 255), *channels], axis=1).round().astype(np.uint8)  # ARGB
    paletted: Any = (np.ascontiguousarray(levels[::-1]), palette)  # PyAV's annotations lack this
    frame = av.VideoFrame.from_ndarray(paletted, format="pal8")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "pal8"
    encoder.time_base = Fraction(1)
    png = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    return data_uri(png, "image/png")


def data_uri(content: bytes, mime_type: str) -> str:
    """Return a file as the URI that contains it."""
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"
