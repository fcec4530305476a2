"""From any channel layout to stereo or mono."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from htdemucs.errors import AudioError

MINUS_3_DB = sqrt(1 / 2)

# (left, right) gain of each channel, by FFmpeg's name. The centre and the surrounds at -3 dB are
# ITU-R BS.775's; the one back centre is shared by both sides, so it has 3 dB less on each. The
# sum is not scaled down: the samples are floats, so nothing clips and no level changes.
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
}


def mixing_matrix(channel_names: Sequence[str], channels: int) -> Tensor | None:
    """Give the gains (channels, len(channel_names)) of a conversion; None if there is none.

    Mono is copied to both sides; two channels are taken as left and right; more are mixed down
    to stereo by `STEREO_GAINS`, or, if a name is not known, by their mean on both sides. Mono is
    the mean of that stereo.

    Raises AudioError for a conversion to another number of channels than 1 or 2.
    """
    count = len(channel_names)
    if count == channels:
        return None
    if channels not in (1, 2):
        raise AudioError(f"cannot turn {count} channels into {channels}; ask for 1 or 2")
    stereo = _stereo_matrix(channel_names)
    return stereo if channels == 2 else stereo.mean(dim=0, keepdim=True)


def _stereo_matrix(channel_names: Sequence[str]) -> Tensor:
    count = len(channel_names)
    if count == 1:
        return torch.ones(2, 1)
    if count == 2:
        return torch.eye(2)
    if any(name not in STEREO_GAINS for name in channel_names):
        return torch.full((2, count), 1 / count)
    return torch.tensor([STEREO_GAINS[name] for name in channel_names]).T.contiguous()
