"""Conversion of channels and of sample rates.

`mixing_matrix` mixes any channel layout down to stereo or mono. `Resampler` converts the sample
rate of a waveform that comes in blocks, with an exact length.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from htdemucs.errors import AudioError

SAMPLE_RATES = range(1_000, 768_001)  # Hz; a header with another rate is damaged
SOXR_QUALITY = "VHQ"  # 28 bits of precision; about 3 ms for a second of stereo
MINUS_3_DB = sqrt(1 / 2)

# (left, right) gain of each channel, by FFmpeg's name. The centre and the surrounds at -3 dB follow
# ITU-R BS.775. Channels in the middle of the back, the ceiling and the floor go to both sides, at
# 3 dB less. Ambisonic's W is omnidirectional. The sum is not scaled down: the samples are floats,
# so nothing clips and no level changes.
STEREO_GAINS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (MINUS_3_DB, MINUS_3_DB),
    "LFE": (0.0, 0.0),
    "BL": (MINUS_3_DB, 0.0),
    "BR": (0.0, MINUS_3_DB),
    "SL": (MINUS_3_DB, 0.0),
    "SR": (0.0, MINUS_3_DB),
    "BC": (0.5, 0.5),
    "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
    "TFL": (MINUS_3_DB, 0.0),
    "TFR": (0.0, MINUS_3_DB),
    "TBL": (MINUS_3_DB, 0.0),
    "TBR": (0.0, MINUS_3_DB),
    "TSL": (MINUS_3_DB, 0.0),
    "TSR": (0.0, MINUS_3_DB),
    "WL": (MINUS_3_DB, 0.0),
    "WR": (0.0, MINUS_3_DB),
    "SDL": (MINUS_3_DB, 0.0),
    "SDR": (0.0, MINUS_3_DB),
    "BFL": (MINUS_3_DB, 0.0),
    "BFR": (0.0, MINUS_3_DB),
    "TC": (0.5, 0.5),
    "TFC": (0.5, 0.5),
    "TBC": (0.5, 0.5),
    "BFC": (0.5, 0.5),
    "LFE2": (0.0, 0.0),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
    "AMBI0": (1.0, 1.0),
}
UNKNOWN_CHANNEL = "NONE"  # FFmpeg's name for a channel without a known position
# FFmpeg's default layout for each number of channels; but four are quad, as in FLAC and Windows'
# WAV files.
_SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")
_HEIGHT = ("TFL", "TFR", "TBL", "TBR")
DEFAULT_LAYOUTS = {
    3: ("2.1", ("FL", "FR", "LFE")),
    4: ("quad", ("FL", "FR", "BL", "BR")),
    5: ("5.0", ("FL", "FR", "FC", "BL", "BR")),
    6: ("5.1", _SURROUND[:6]),
    7: ("6.1", ("FL", "FR", "FC", "LFE", "BC", "SL", "SR")),
    8: ("7.1", _SURROUND),
    10: ("5.1.4", ("FL", "FR", "FC", "LFE", "SL", "SR", *_HEIGHT)),
    12: ("7.1.4", (*_SURROUND, *_HEIGHT)),
    14: ("9.1.4", (*_SURROUND[:6], "FLC", "FRC", "SL", "SR", *_HEIGHT)),
    16: ("9.1.6", (*_SURROUND[:6], "FLC", "FRC", "SL", "SR", *_HEIGHT, "TSL", "TSR")),
    24: (
        "22.2",
        (
            *(*_SURROUND[:6], "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR"),
            *("TBL", "TBC", "TBR", "LFE2", "TSL", "TSR", "BFC", "BFL", "BFR"),
        ),
    ),
}


def mixing_matrix(channel_names: Sequence[str], channels: int) -> Tensor | None:
    """Return the gains (channels, len(channel_names)); None if the number of channels is the same.

    Mono is copied to both sides. Two channels are left and right. More are mixed down to stereo by
    `STEREO_GAINS`. If no channel has a known position, the default layout for their number is
    assumed, or if there is none, that the first two are left and right. If only some have one, the
    others are left out. Mono is the mean of the stereo.

    Raises AudioError for a conversion to another number of channels than 1 or 2.
    """
    count = len(channel_names)
    if count == channels:
        return None
    if channels not in (1, 2):
        raise AudioError(f"cannot turn {count} channels into {channels}; ask for 1 or 2")
    if count == 1:
        stereo = torch.ones(2, 1)
    elif count == 2:
        stereo = torch.eye(2)
    else:
        names, _ = _assumed_names(channel_names)
        gains = [STEREO_GAINS.get(name, (0.0, 0.0)) for name in names]
        stereo = torch.tensor(gains).T.contiguous()
    return stereo if channels == 2 else stereo.mean(dim=0, keepdim=True)


def layout_warning(channel_names: Sequence[str], channels: int) -> str | None:
    """Return a sentence on what `mixing_matrix` had to assume; None if nothing."""
    return None if len(channel_names) == channels else _assumed_names(channel_names)[1]


def _assumed_names(channel_names: Sequence[str]) -> tuple[Sequence[str], str | None]:
    """Return the names to mix by, and a sentence if they are assumed."""
    count = len(channel_names)
    unknown = sum(name not in STEREO_GAINS for name in channel_names)
    if count <= 2 or not unknown:
        return channel_names, None
    if "AMBI0" in channel_names:
        return channel_names, "the sound is ambisonic; W, which has no direction, is on both sides"
    if any(any(STEREO_GAINS.get(name, ())) for name in channel_names):
        return (
            channel_names,
            f"{unknown} of {count} channels do not say where they belong; left out",
        )
    problem = f"the {count} channels do not say where they belong"
    if count in DEFAULT_LAYOUTS:
        layout, names = DEFAULT_LAYOUTS[count]
        return names, f"{problem}; {layout} was assumed"
    first_two = ("FL", "FR", *channel_names[2:])
    return first_two, f"{problem}; the first two were taken as left and right"


def interleaved(samples: NDArray[Any]) -> NDArray[Any]:
    """(C, L) -> (L, C), contiguous; for two channels several times faster than copying `.T`."""
    return np.stack(list(samples), axis=-1)


def resampled_length(length: int, source_rate: int, target_rate: int) -> int:
    """Return length * target_rate / source_rate in samples, halves rounded up."""
    return (2 * length * target_rate + source_rate) // (2 * source_rate)


def pad_or_trim(waveform: Tensor, length: int) -> Tensor:
    """(..., L) -> (..., length), with zeros at the end if L is smaller."""
    return F.pad(waveform, (0, length - waveform.shape[-1]))


class Resampler:
    """Converts one waveform, given in blocks, from `source_rate` to `target_rate` (Hz).

    Push blocks, then flush once. The output has no delay, does not depend on the sizes of the
    blocks, and has `resampled_length` samples in all.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._input_length = 0
        self._output_length = 0
        self._channels = channels
        self._stream: soxr.ResampleStream | None = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(
                source_rate, target_rate, channels, dtype="float32", quality=SOXR_QUALITY
            )

    def push(self, block: Tensor) -> Tensor:
        """(C, L) -> (C, L'), float32; L' may be 0 while the filter fills."""
        if self._stream is None:
            return block
        self._input_length += block.shape[1]
        resampled = self._convert(self._stream, block, last=False)
        self._output_length += resampled.shape[1]
        return resampled

    def flush(self) -> Tensor:
        """Return the tail, (C, L')."""
        if self._stream is None:
            return torch.zeros(self._channels, 0)
        # With silence after the waveform the tail is at least one sample too long, then cut.
        silence = torch.zeros(self._channels, self.source_rate // self.target_rate + 2)
        tail = self._convert(self._stream, silence, last=True)
        length = resampled_length(self._input_length, self.source_rate, self.target_rate)
        return tail[:, : length - self._output_length]

    @staticmethod
    def _convert(stream: soxr.ResampleStream, block: Tensor, *, last: bool) -> Tensor:
        frames = interleaved(block.numpy())
        return torch.from_numpy(np.ascontiguousarray(stream.resample_chunk(frames, last).T))
