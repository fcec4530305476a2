"""From any channel layout to stereo or mono, and to interleaved samples.

MERGED: Streaming sample-rate conversion with an exact length.
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

MINUS_3_DB = sqrt(1 / 2)

# (left, right) gain of each channel, by FFmpeg's name. The centre and the surrounds at -3 dB are
# ITU-R BS.775's; the ones in the middle of the back, the ceiling and the floor are shared by both
# sides, so they have 3 dB less on each. Ambisonic's W hears all directions alike. The sum is not
# scaled down: the samples are floats, so nothing clips and no level changes.
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
# FFmpeg's name for a channel that does not say where it belongs, and the layouts that it takes
# for so many of them; but four are quad, as in FLAC and Windows' WAV files.
NO_NAME = "NONE"
_SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")
_HEIGHT = ("TFL", "TFR", "TBL", "TBR")
USUAL_LAYOUTS = {
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
    """Give the gains (channels, len(channel_names)) of a conversion; None if there is none.

    Mono is copied to both sides; two channels are taken as left and right; more are mixed down
    to stereo by `STEREO_GAINS`. Channels that do not say where they belong are taken for the
    usual layout of so many, if there is one, else for left, right and others that are left out.
    So are those beside channels with a place. Mono is the mean of the stereo.

    Raises AudioError for a conversion to another number of channels than 1 or 2.
    """
    count = len(channel_names)
    if count == channels:
        return None
    if channels not in (1, 2):
        raise AudioError(f"cannot turn {count} channels into {channels}; ask for 1 or 2")
    stereo = _stereo_matrix(channel_names)
    return stereo if channels == 2 else stereo.mean(dim=0, keepdim=True)


def assumption(channel_names: Sequence[str], channels: int) -> str | None:
    """Return a sentence on what `mixing_matrix` had to assume; None where it was certain."""
    count = len(channel_names)
    return None if count == channels else _places(channel_names)[1]


def _stereo_matrix(channel_names: Sequence[str]) -> Tensor:
    count = len(channel_names)
    if count == 1:
        return torch.ones(2, 1)
    if count == 2:
        return torch.eye(2)
    names, _ = _places(channel_names)
    return torch.tensor([STEREO_GAINS.get(name, (0.0, 0.0)) for name in names]).T.contiguous()


def _places(channel_names: Sequence[str]) -> tuple[Sequence[str], str | None]:
    """Return the names to mix by, and a sentence if they are assumed."""
    count = len(channel_names)
    lost = sum(name not in STEREO_GAINS for name in channel_names)
    if count <= 2 or not lost:
        return channel_names, None
    if "AMBI0" in channel_names:
        return channel_names, "the sound is ambisonic; W, which has no direction, is on both sides"
    if any(any(STEREO_GAINS.get(name, ())) for name in channel_names):
        return channel_names, f"{lost} of {count} channels do not say where they belong; left out"
    unknown = f"the {count} channels do not say where they belong"
    if count in USUAL_LAYOUTS:
        layout, names = USUAL_LAYOUTS[count]
        return names, f"{unknown}; {layout} was assumed"
    first_two = ("FL", "FR", *channel_names[2:])
    return first_two, f"{unknown}; the first two were taken as left and right"


def interleaved(samples: NDArray[Any]) -> NDArray[Any]:
    """(C, L) -> (L, C), contiguous; for two channels several times as fast as copying `.T`."""
    return np.stack(list(samples), axis=-1)


QUALITY = "VHQ"  # 28 bits of precision; about 3 ms for a second of stereo


def resampled_length(length: int, source_rate: int, target_rate: int) -> int:
    """Convert a length in samples: length * target / source, halves rounded up."""
    return (2 * length * target_rate + source_rate) // (2 * source_rate)


def pad_or_trim(waveform: Tensor, length: int) -> Tensor:
    """(..., L) -> (..., length): resampling there and back may give a sample more or less."""
    return F.pad(waveform, (0, length - waveform.shape[-1]))


class Resampler:
    """Converts one waveform, given in blocks, from `source_rate` to `target_rate` (Hz).

    Push blocks, then flush once. What comes out has no delay, does not depend on how the
    waveform was cut into blocks, and holds `resampled_length` samples in all.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._taken = 0
        self._given = 0
        self._channels = channels
        self._stream: soxr.ResampleStream | None = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(
                source_rate, target_rate, channels, dtype="float32", quality=QUALITY
            )

    def push(self, block: Tensor) -> Tensor:
        """(C, L) -> (C, L'), float32; L' may be 0 while the filter fills."""
        if self._stream is None:
            return block
        self._taken += block.shape[1]
        resampled = self._convert(self._stream, block, last=False)
        self._given += resampled.shape[1]
        return resampled

    def flush(self) -> Tensor:
        """Give the tail, (C, L')."""
        if self._stream is None:
            return torch.zeros(self._channels, 0)
        # The silence that follows the waveform gives at least one sample too many to cut from.
        silence = torch.zeros(self._channels, self.source_rate // self.target_rate + 2)
        tail = self._convert(self._stream, silence, last=True)
        length = resampled_length(self._taken, self.source_rate, self.target_rate)
        return tail[:, : length - self._given]

    @staticmethod
    def _convert(stream: soxr.ResampleStream, block: Tensor, *, last: bool) -> Tensor:
        frames = interleaved(block.numpy())
        return torch.from_numpy(np.ascontiguousarray(stream.resample_chunk(frames, last).T))
