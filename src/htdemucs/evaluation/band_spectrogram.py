"""Coarse spectrograms for the report, of stems and of the errors of their estimates."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BANDS = 96
LOWEST = 40.0  # Hz, the lower edge of the lowest band
COLUMNS = 4  # per second
N_FFT = 4096  # samples; resolves bass notes


class BandSpectrogram:
    """Measures the power of signals in logarithmic bands, four columns per second."""

    def __init__(self, sample_rate: int) -> None:
        self._window = torch.hann_window(N_FFT)
        self._hop_length = max(1, sample_rate // (2 * COLUMNS))  # two windows a column
        self._bands = _bands(sample_rate)
        self._columns: list[Tensor] = []

    def push(self, frame: Tensor) -> None:
        """Add (S, C, L), up to a second."""
        missing = max(0, N_FFT - frame.shape[-1])
        padded = F.pad(frame, (0, missing))
        windows = padded.unfold(-1, N_FFT, self._hop_length) * self._window
        power = torch.fft.rfft(windows).abs().square().mean(1)  # (S, T, F)
        bands = power @ self._bands.T
        count = max(1, round(frame.shape[-1] / (2 * self._hop_length)))
        self._columns.append(
            F.adaptive_avg_pool1d(bands.mT, count)  # (S, BANDS, count)
        )

    def powers(self) -> Tensor:
        """Return (S, BANDS, columns), low bands first."""
        return torch.cat(self._columns, dim=-1)


def _bands(sample_rate: int) -> Tensor:
    """Return (BANDS, bins), 1 for the bins of each band; every band has at least one bin."""
    top = sample_rate / 2
    edges = torch.logspace(math.log10(min(LOWEST, top / 2)), math.log10(top), BANDS + 1)
    bins = torch.arange(N_FFT // 2 + 1) * sample_rate / N_FFT
    low, high = edges[:-1, None], edges[1:, None]
    inside = (bins >= low) & (bins < high)
    nearest = (bins - (low * high).sqrt()).abs().argmin(1)
    inside[torch.arange(BANDS), nearest] = True
    return inside.float()
