"""The STFT and its inverse, with their frames, windows and padding."""

import math
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class Spectrogram(nn.Module):
    """The STFT of waveforms, with complex numbers as channels, and its inverse.

    Frames are aligned with hops: L samples give exactly ceil(L / hop_length) frames, and frame i is
    centred on the middle of hop i. The Nyquist bin is dropped, so there are n_fft / 2 bins. The
    transform is orthonormal with a periodic Hann window.
    """

    window: Tensor

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = n_fft // 4
        self.edge = 3 * self.hop_length // 2  # samples of a frame on each side of its own hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def frames(self, length: int) -> int:
        """Return how many frames `length` samples give."""
        return math.ceil(length / self.hop_length)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, C, L) -> (B, 2C, F, T), real and imaginary parts in neighbouring channels."""
        spectrum = self.analyse(waveform)[..., :-1]
        return rearrange(torch.view_as_real(spectrum), "b c t f ri -> b (c ri) f t")

    def analyse(self, waveform: Tensor) -> Tensor:
        """(B, C, L) -> complex (B, C, T, F + 1), with the Nyquist bin."""
        missing = self.frames(waveform.shape[-1]) * self.hop_length - waveform.shape[-1]
        padded = self._pad(waveform, self.edge, self.edge + missing)
        frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window
        return torch.fft.rfft(frames, norm="ortho")

    def _pad(self, waveform: Tensor, left: int, right: int) -> Tensor:
        return _reflect(waveform, left, right)

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """(..., 2C, F, T) -> (..., C, L), the first `length` samples.

        A spectrogram has no frames centred outside the signal, so the first and last `edge` samples
        fade in and out. Every other sample lies under four Hann windows, a quarter apart, whose
        squares sum to 3/2.
        """
        frames = self._synthesise(spectrogram)
        return self._overlap_add(frames)[..., self.edge : self.edge + length]

    def _synthesise(self, spectrogram: Tensor) -> Tensor:
        """(..., 2C, F, T) -> (..., C, T, n_fft), weighted by the window"""
        parts = rearrange(spectrogram, "... (c ri) f t -> ... c t f ri", ri=2)
        spectrum = F.pad(torch.view_as_complex(parts.contiguous()), (0, 1))  # Nyquist: silent
        return torch.fft.irfft(spectrum, self.n_fft, norm="ortho") * (self.window * (2 / 3))

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(..., T, n_fft) -> (..., (T + 3) * hop_length)

        Each sample that `inverse` returns lies under four frames; those outside the spectrogram are
        silent.
        """
        quarters = rearrange(frames, "... t (q h) -> ... t q h", q=4).unbind(-2)
        hops = reduce(
            torch.add, (F.pad(quarter, (0, 0, q, 3 - q)) for q, quarter in enumerate(quarters))
        )
        return rearrange(hops, "... t h -> ... (t h)")


class Spectrogram2021(Spectrogram):
    """The STFT of some networks for the Music Demixing Challenge of 2021.

    The waveform is padded with zeros instead of its reflection, and the inverse is late by `edge`
    samples. The networks were trained with this delay and compensate for it.
    """

    def _pad(self, waveform: Tensor, left: int, right: int) -> Tensor:
        return F.pad(waveform, (left, right))

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """(..., 2C, F, T) -> (..., C, L)

        Samples of the first hop lie under three windows only, and are divided by their sum.
        """
        waveform = self._overlap_add(self._synthesise(spectrogram))[..., :length]
        fourth = self.window[-self.hop_length :].square()
        gain = F.pad(1.5 / (1.5 - fourth), (0, max(0, length - self.hop_length)), value=1.0)
        return waveform * gain[:length]


def _reflect(waveform: Tensor, left: int, right: int) -> Tensor:
    """Pad the last axis by reflection.

    Reflection needs one sample more than it pads. A shorter waveform is first padded with zeros to
    that length: on the right, by at most `right`, and then on the left.
    """
    shortage = max(left, right) + 1 - waveform.shape[-1]
    if shortage > 0:
        zeros_right = min(right, shortage)
        zeros_left = shortage - zeros_right
        waveform = F.pad(waveform, (zeros_left, zeros_right))
        left, right = left - zeros_left, right - zeros_right
    return F.pad(waveform, (left, right), mode="reflect")
