"""The ideal ratio mask of SiSEC 2018, the "oracle": the scores that a perfect mask would have.

The mask is each stem's share of the power in every bin of the mixture's spectrogram. With power 2
it is the Wiener filter: the real-valued mask with the least mean square error for stems of
independent phase, and nsdr measures the mean square error. SiSEC's settings (Hann window of 2048
samples, half overlapped, each channel separately) make the scores comparable with published ones.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.evaluation.dataset import Frame

N_FFT = 2048  # samples; 46 ms at 44.1 kHz
HOP_LENGTH = N_FFT // 2
POWER = 2


def ideal_ratio_masks(frames: Iterable[Frame]) -> Iterator[Tensor]:
    """Yield the mask's estimates of all stems as blocks (S, C, L), from a multitrack's frames.

    The blocks' lengths differ from the frames', but not their sum. The part of the mixture that no
    stem contains has a share of the mask too.
    """
    stream = _MaskStream()
    for frame in frames:
        block = stream.push(frame)
        if block.shape[-1]:
            yield block
    yield stream.flush()


class _MaskStream:
    """A streaming STFT, mask and inverse STFT of the mixture, stems and rest, (S + 2, C, L).

    Half a window of silence precedes the signals, so that two windows cover every sample. The first
    hop of the output is that silence and is dropped.
    """

    def __init__(self) -> None:
        self._window = torch.hann_window(N_FFT)
        first, second = self._window.square().split(HOP_LENGTH)
        self._gain = 1 / (first + second)
        self._signals: Tensor | None = None  # from the next window's start on
        self._tail: Tensor | None = None  # the second half of the last window
        self._read = self._written = 0  # samples

    def push(self, frame: Frame) -> Tensor:
        """Add a frame; return (S, C, L), where L may be 0."""
        self._read += frame.mixture.shape[-1]
        rest = frame.mixture - frame.stems.sum(0)
        return self._advance(torch.cat([frame.mixture[None], frame.stems, rest[None]]))

    def flush(self) -> Tensor:
        """Return the last block, (S, C, L)."""
        assert self._signals is not None, "no frames"
        missing = -self._read % HOP_LENGTH + HOP_LENGTH
        last = self._advance(F.pad(self._signals[..., :0], (0, missing)))
        return last[..., : last.shape[-1] + self._read - self._written]

    def _advance(self, signals: Tensor) -> Tensor:
        if self._signals is None:
            self._signals = signals.new_zeros(*signals.shape[:-1], HOP_LENGTH)
        self._signals = torch.cat([self._signals, signals], dim=-1)
        if self._signals.shape[-1] < N_FFT:
            return signals[1:-1, :, :0]
        windows = self._masked(self._signals.unfold(-1, N_FFT, HOP_LENGTH) * self._window)
        self._signals = self._signals[..., windows.shape[-2] * HOP_LENGTH :]
        finished = self._add(windows)
        self._written += finished.shape[-1]
        return finished

    def _masked(self, windows: Tensor) -> Tensor:
        """(S + 2, C, T, n_fft) of signals -> (S, C, T, n_fft) of estimates"""
        spectra = torch.fft.rfft(windows)
        shares = spectra[1:].abs() ** POWER
        total = shares.sum(0).clamp(min=torch.finfo(shares.dtype).tiny)  # 0 / 0 is silence
        masks = shares[:-1] / total
        return torch.fft.irfft(masks * spectra[0], N_FFT) * self._window

    def _add(self, windows: Tensor) -> Tensor:
        """(S, C, T, n_fft) -> (S, C, L), each hop the sum of two windows' halves."""
        first, second = windows.split(HOP_LENGTH, dim=-1)
        before, self._tail = self._tail, second[..., -1:, :]
        if before is None:  # the hop of silence before the signals
            first, before = first[..., 1:, :], second[..., :0, :]
        hops = (first + torch.cat([before, second[..., :-1, :]], dim=-2)) * self._gain
        return hops.flatten(-2)
