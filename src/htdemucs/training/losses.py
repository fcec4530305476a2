"""The loss: the error of the estimates, in the waveform and optionally in STFT magnitudes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from htdemucs.training.config import OptimConfig

# (B, S, C, L) of errors -> (S,)
ERRORS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda error: error.abs().mean(dim=(0, 2, 3)),
    "mse": lambda error: error.square().mean(dim=(0, 2, 3)),
    # Quiet examples weigh more than in "mse". The constant keeps gradients finite at 0.
    "rms": lambda error: (error.square().mean(dim=(2, 3)) + 1e-8).sqrt().mean(dim=0),
}
RESOLUTIONS = ((4096, 1024), (2048, 512), (512, 128))  # n_fft and hop of the STFT loss
LONGEST_STFT = 4096  # samples; a shorter signal cannot be transformed


class SourceLoss(nn.Module):
    """Error of the waveforms, optionally with a multi-resolution STFT loss.

    Args:
        sources: count of sources.
        kind: key of `ERRORS`.
        source_weights: weight of each source; equal by default.
        stft_weight: weight of the STFT loss; 0 omits it.
        region: begin and end of the part that counts, in samples before an example's end; by
            default everything counts.
    """

    weights: Tensor

    def __init__(
        self,
        sources: int,
        kind: str = "l1",
        source_weights: Sequence[float] = (),
        stft_weight: float = 0.0,
        region: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.error = ERRORS[kind]
        weights = torch.tensor(source_weights or [1.0] * sources)
        self.register_buffer("weights", weights / weights.sum())
        self.stft_weight, self.region = stft_weight, region

    def forward(self, estimates: Tensor, sources: Tensor) -> Tensor:
        """(B, S, C, L), (B, S, C, L) -> ()"""
        if self.region:
            first, last = (sources.shape[-1] - distance for distance in self.region)
            estimates, sources = estimates[..., first:last], sources[..., first:last]
        loss = (self.weights * self.error(estimates - sources)).sum()
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
