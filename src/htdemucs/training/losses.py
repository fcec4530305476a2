"""The loss: errors of the estimates' waveforms and, optionally, of their STFT magnitudes.

The functions of `ERRORS` return a number for each source of each example, the lower the better:
estimates and sources (B, S, C, L) -> (B, S). All of them, and their gradients, are finite for
silent sources and for perfect estimates.

They are written here because torch-l1-snr 0.2 and torch-log-wmse 1.1 import torchaudio, whose last
release (2.11) cannot be loaded with a CPU build of PyTorch 2.13, and because auraloss 0.4's SI-SDR
has no gradient where the source is silent.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from htdemucs.training.config import OptimConfig, loss_weights

Error = Callable[[Tensor, Tensor], Tensor]  # (B, S, C, L), (B, S, C, L) -> (B, S)

RESOLUTIONS = ((4096, 1024), (2048, 512), (512, 128))  # n_fft and hop of the STFT loss
MIN_STFT_LENGTH = max(n_fft for n_fft, _ in RESOLUTIONS)  # samples; a whole window
L1_FLOOR = 1e-3  # mean absolute amplitude below which "l1_snr" counts little
POWER_FLOOR = 1e-8  # mean square below which a signal counts as silent
SILENCE = -60.0  # dB: the level below which "l1_snr_db" regards a source as silent
COMPLEX_STFT = (2048, 512)  # n_fft and hop of "l1_snr_stft"
EAR_RATE = 44_100  # Hz: the sample rate that the filters of "log_wmse" are defined for


def l1(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return the mean absolute error."""
    return (estimates - sources).abs().mean(dim=(2, 3))


def mse(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return the mean square error."""
    return (estimates - sources).square().mean(dim=(2, 3))


def rms(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return the root of the mean square error; quiet examples weigh more than in `mse`."""
    # The constant keeps gradients finite at 0.
    return (mse(estimates, sources) + POWER_FLOOR).sqrt()


def l1_snr(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return the mean absolute error relative to the source's mean absolute value, in dB.

    The waveform's part of the loss of BandIt (Watcharasupat et al., "A Generalized Bandsplit Neural
    Network for Cinematic Audio Source Separation", arXiv 2309.02539), with means in place of sums
    and the constant 1e-3, as in the authors' program.
    """
    return _l1_ratio(estimates - sources, sources)


def l1_snr_db(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return `l1_snr` plus the weighted difference of the RMS levels, in dB.

    The weight rises where the estimate of an audible source is too quiet, so that silence is no
    good estimate (Watcharasupat and Lerch, "Separate This, and All of these Things Around It",
    arXiv 2501.16171). Weights of 0.1 to 1 and -60 dB as the level of silence are the defaults of
    torch-l1-snr.
    """
    estimated, true = _level(estimates), _level(sources)
    difference = (estimated - true).abs()
    with torch.no_grad():
        too_quiet = true > estimated.clamp(min=SILENCE)
        share = (difference / (true - SILENCE)).clamp(0, 1)
        weight = 0.1 + 0.9 * torch.where(too_quiet, share, 0.0)
    return l1_snr(estimates, sources) + weight * difference


def l1_snr_stft(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return the sum of `l1_snr` of the STFT's real and of its imaginary part, in dB.

    The spectrogram's part of the loss of BandIt (see `l1_snr`).
    """
    pairs = zip(estimates.unbind(1), sources.unbind(1), strict=True)  # saves memory
    return torch.stack([_complex_l1_ratio(estimate, source) for estimate, source in pairs], 1)


def si_sdr(estimates: Tensor, sources: Tensor) -> Tensor:
    """Return the negative scale-invariant SDR in dB, with one scale for all channels.

    Le Roux et al., "SDR - half-baked or well done?", arXiv 1811.02508. For a silent source, this is
    the estimate's level relative to the floor of -80 dB.
    """
    scale = (estimates * sources).mean(dim=(2, 3), keepdim=True)
    scale = scale / (sources.square().mean(dim=(2, 3), keepdim=True) + POWER_FLOOR)
    return _level(estimates - scale * sources) - _level(scale * sources)


def log_wmse(estimates: Tensor, sources: Tensor, sample_rate: int = EAR_RATE) -> Tensor:
    """Return 4 times the logarithm of the mean square error relative to the mixture's mean square.

    Both are weighted by the ear's sensitivity (`ear_sensitivity`). The mean over channels of the
    metric of Jordal (2023, log-wmse-audio-quality), negative and without its gate, which ignores
    samples below -68 dB. The mixture is the sum of the sources.
    """
    weights = _spectral_weights(sources.shape[-1], sample_rate, sources.device)
    mixture = _weighted_power(sources.sum(1, keepdim=True), weights)
    error = _weighted_power(estimates - sources, weights)
    return 4 * torch.log(error / mixture.clamp(min=POWER_FLOOR**2) + POWER_FLOOR).mean(-1)


ERRORS: Mapping[str, Error] = {
    "l1": l1,
    "mse": mse,
    "rms": rms,
    "l1_snr": l1_snr,
    "l1_snr_db": l1_snr_db,
    "l1_snr_stft": l1_snr_stft,
    "si_sdr": si_sdr,
    "log_wmse": log_wmse,
}


def waveform_error(loss: str | Mapping[str, Any], sample_rate: int) -> Error:
    """Return the error that `optim.loss` names, or the weighted sum of several."""
    errors: dict[str, Error] = {**ERRORS, "log_wmse": partial(log_wmse, sample_rate=sample_rate)}
    weighted = [(weight, errors[name]) for name, weight in loss_weights(loss).items()]

    def weighted_sum(estimates: Tensor, sources: Tensor) -> Tensor:
        return torch.stack([w * error(estimates, sources) for w, error in weighted]).sum(0)

    return weighted_sum


class SourceLoss(nn.Module):
    """Error of the waveforms, optionally with a multi-resolution STFT loss.

    Args:
        sources: count of sources.
        loss: key of `ERRORS`, or weights of several.
        source_weights: weight of each source; equal by default.
        stft_weight: weight of the STFT loss; 0 omits it.
        region: begin and end of the part that counts, in samples before an example's end; by
            default everything counts.
        sample_rate: of the waveforms, in Hz.
    """

    weights: Tensor

    def __init__(
        self,
        sources: int,
        loss: str | Mapping[str, Any] = "l1",
        source_weights: Sequence[float] = (),
        stft_weight: float = 0.0,
        region: tuple[int, int] | None = None,
        sample_rate: int = 44_100,
    ) -> None:
        super().__init__()
        self.error = waveform_error(loss, sample_rate)
        weights = torch.tensor(source_weights or [1.0] * sources)
        self.register_buffer("weights", weights / weights.sum())
        self.stft_weight, self.region = stft_weight, region

    def forward(self, estimates: Tensor, sources: Tensor) -> Tensor:
        """(B, S, C, L), (B, S, C, L) -> ()"""
        if self.region:
            first, last = (sources.shape[-1] - distance for distance in self.region)
            estimates, sources = estimates[..., first:last], sources[..., first:last]
        loss = (self.weights * self.error(estimates, sources).mean(0)).sum()
        if self.stft_weight:
            loss = loss + self.stft_weight * self._spectral_loss(estimates, sources)
        return loss

    def _spectral_loss(self, estimates: Tensor, sources: Tensor) -> Tensor:
        """Return the mean absolute error of magnitudes, relative to the sources' own."""
        total = estimates.new_zeros(())
        for n_fft, hop_length in RESOLUTIONS:
            estimated, true = (_magnitudes(x, n_fft, hop_length) for x in (estimates, sources))
            error = (estimated - true).abs().mean(dim=(0, 2, 3, 4))
            total = total + (self.weights * error).sum() / (true.mean() + 1e-8)
        return total / len(RESOLUTIONS)


def loss_region(config: OptimConfig, sample_rate: int) -> tuple[int, int] | None:
    """Return `optim.loss_region` in samples before the end; None if everything counts."""
    if not config.loss_region:
        return None
    first, last = (round(seconds * sample_rate) for seconds in config.loss_region)
    return first, last


def _magnitudes(waveforms: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """(B, S, C, L) -> (B, S, C, F, T)"""
    window = torch.hann_window(n_fft, device=waveforms.device)
    spectrum = torch.stft(
        waveforms.flatten(0, 2).float(), n_fft, hop_length, window=window, return_complex=True
    )
    return spectrum.abs().unflatten(0, waveforms.shape[:3])


def ear_sensitivity(frequency: Tensor) -> Tensor:
    """Return the squared gain of log-wmse-audio-quality's filters at frequencies in Hz.

    A high shelf (5 dB from 1.5 kHz, Q 0.71) and a bell (2.5 dB at 500 Hz, Q 1.06), both of the
    Audio EQ Cookbook, a Butterworth high-pass (120 Hz, second order) and a low-pass (10 kHz, first
    order, applied forwards and backwards), at 44.1 kHz. Each is a function of the frequency
    relative to its own, both warped by the bilinear transform.
    """
    warped = torch.tan(math.pi / EAR_RATE * frequency.double().clamp(max=EAR_RATE / 2))

    def relative_to(hertz: float) -> Tensor:
        return (warped / math.tan(math.pi / EAR_RATE * hertz)).square()

    x, a = relative_to(1500), 10 ** (5 / 40)
    q = 1 / math.sqrt(2)
    shelf = ((1 - a * x).square() + a * x / q**2) / ((a - x).square() + a * x / q**2) * a**2
    x, a = relative_to(500), 10 ** (2.5 / 40)
    q = 1.5 / math.sqrt(2)
    bell = ((1 - x).square() + x * (a / q) ** 2) / ((1 - x).square() + x / (a * q) ** 2)
    highpass = relative_to(120).square() / (1 + relative_to(120).square())
    lowpass = 1 / (1 + relative_to(10_000)).square()
    return shelf * bell * highpass * lowpass


@lru_cache(maxsize=8)
def _spectral_weights(length: int, sample_rate: int, device: torch.device) -> Tensor:
    """Return the weight of each bin of a signal's power spectrum in its weighted mean square."""
    weights = ear_sensitivity(torch.fft.rfftfreq(length, 1 / sample_rate)) * (2 / length**2)
    weights[0] /= 2
    if length % 2 == 0:
        weights[-1] /= 2  # the Nyquist bin occurs once
    return weights.float().to(device)


def _weighted_power(waveforms: Tensor, weights: Tensor) -> Tensor:
    """(..., L) -> (...)"""
    return (torch.view_as_real(torch.fft.rfft(waveforms)).square().sum(-1) * weights).sum(-1)


def _level(waveforms: Tensor) -> Tensor:
    """(B, S, C, L) -> (B, S): RMS level in dB, at least -80."""
    return 10 * torch.log10(waveforms.square().mean(dim=(2, 3)) + POWER_FLOOR)


def _l1_ratio(error: Tensor, source: Tensor) -> Tensor:
    """(B, ..., C, L) -> (B, ...): ratio of mean absolute values, in dB."""
    above, below = (x.abs().mean(dim=(-2, -1)) + L1_FLOOR for x in (error, source))
    return 10 * torch.log10(above / below)


def _complex_l1_ratio(estimate: Tensor, source: Tensor) -> Tensor:
    """(B, C, L) -> (B)"""
    n_fft, hop_length = COMPLEX_STFT
    window = torch.hann_window(n_fft, device=source.device)
    window = window / window.square().sum().sqrt()  # a spectrogram of noise is as loud as the noise

    def parts(waveforms: Tensor) -> Tensor:  # (2, B, C, F * T): real and imaginary
        spectrum = torch.stft(
            waveforms.flatten(0, 1), n_fft, hop_length, window=window, return_complex=True,
            pad_mode="constant",  # signals may be shorter than the window
        )  # fmt: skip
        separate = torch.view_as_real(spectrum).movedim(-1, 0)
        return separate.flatten(2).unflatten(1, waveforms.shape[:2])

    estimated, true = parts(estimate), parts(source)
    return _l1_ratio(estimated - true, true).sum(0)
