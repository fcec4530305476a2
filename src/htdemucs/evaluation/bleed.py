"""The scores `bleedless` and `fullness`: what an estimate has too much of, and what it lacks.

Both are those of Music-Source-Separation-Training (https://github.com/ZFTurbo), where they are
compared at 44.1 kHz. They compare the levels of estimate and reference in mel bands.
"""

import math
import tempfile

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import SampleCache

N_FFT = 4096  # samples
HOP_LENGTH = 1024
BANDS = 512
RANGE = 80.0  # dB below the loudest level of a signal, where its levels are cut off
FAINTEST = 1e-10  # the magnitude of silence, -200 dB
BLOCK = 64  # STFT frames of all signals in memory at a time

BREAK = 1000.0  # Hz; Slaney's mel scale is linear below and logarithmic above
MELS_PER_HZ = 3 / 200
MELS_PER_NEPER = 27 / math.log(6.4)


class BleedMeter:
    """Computes bleedless and fullness of R rows of estimates of S stems, block by block.

    The levels of a signal are cut off 80 dB below its loudest one, which is known only at the end.
    Until then they are in a temporary file, so that memory does not depend on the length. Close the
    meter to delete the file.
    """

    def __init__(self, sample_rate: int) -> None:
        self._window = torch.hann_window(N_FFT)
        self._filters = mel_filters(sample_rate)
        self._signals = torch.zeros(())  # (1 + R, S, C, L), from the next window's start on
        self._peaks = torch.tensor(-math.inf)  # (1 + R, S), dB
        self._levels: SampleCache | None = None

    def close(self) -> None:
        """Delete the temporary file."""
        if self._levels:
            self._levels.close()

    def push(self, references: Tensor, estimates: Tensor) -> None:
        """Add (S, C, L), and the estimates of all rows, (R, S, C, L).

        Raises:
            AudioError: the temporary file cannot be written.
        """
        signals = torch.cat([references[None], estimates])
        if self._levels is None:
            bands = signals[..., 0].numel() * BANDS
            self._levels = SampleCache(tempfile.gettempdir(), bands)
            signals = F.pad(signals, (N_FFT // 2, 0))  # the first frame is centred on sample 0
        else:
            signals = torch.cat([self._signals, signals], dim=-1)
        self._signals = signals
        if signals.shape[-1] < N_FFT:
            return
        windows = signals.unfold(-1, N_FFT, HOP_LENGTH) * self._window
        self._signals = signals[..., windows.shape[-2] * HOP_LENGTH :]
        magnitudes = torch.fft.rfft(windows).abs()  # (1 + R, S, C, T, F)
        levels = 20 * (magnitudes @ self._filters.T).clamp(min=FAINTEST).log10()
        self._peaks = torch.maximum(self._peaks, levels.amax((2, 3, 4)))
        self._levels.write(levels.mT.flatten(0, 3))

    def scores(self) -> Tensor:
        """Return (2, R, S): bleedless and fullness, from 0 to 100. Call it once, after `push`.

        bleedless is 100 / (1 + x), with x the mean, in dB, of the level of the estimate over that
        of the reference wherever it is higher; fullness likewise wherever it is lower.
        """
        assert self._levels is not None, "nothing was pushed"
        rest = F.pad(self._signals[..., :0], (0, N_FFT // 2))
        self.push(rest[0], rest[1:])
        floors = (self._peaks - RANGE)[..., None, None]
        sums, counts = torch.zeros(2, 2, *self._peaks[1:].shape, dtype=torch.float64)
        for block in self._levels.blocks(BLOCK):
            levels = block.unflatten(0, (*self._peaks.shape, -1)).maximum(floors)
            difference = levels[1:] - levels[0]
            excess = torch.stack([difference, -difference]).clamp(min=0)
            sums += excess.sum((-2, -1), dtype=torch.float64)
            counts += (excess > 0).sum((-2, -1))
        return 100 / (1 + sums / counts.clamp(min=1))


def mel_filters(sample_rate: int) -> Tensor:
    """Return (BANDS, F): Slaney's triangular mel filters of equal area, up to half the rate."""
    mels = torch.linspace(0, _mel(sample_rate / 2), BANDS + 2, dtype=torch.float64)
    above = BREAK * ((mels - _mel(BREAK)) / MELS_PER_NEPER).exp()
    edges = torch.where(mels < _mel(BREAK), mels / MELS_PER_HZ, above)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * sample_rate / N_FFT
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return (triangles.clamp(min=0) * 2 / (high - low)).float()


def _mel(frequency: float) -> float:
    if frequency <= BREAK:
        return MELS_PER_HZ * frequency
    return MELS_PER_HZ * BREAK + MELS_PER_NEPER * math.log(frequency / BREAK)
