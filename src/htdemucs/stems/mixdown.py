"""From the network's stems to the waveforms of the files."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from htdemucs.audio import AudioEncoding, AudioFile, Resampler, fitted
from htdemucs.errors import SeparationError
from htdemucs.stems.options import RESIDUAL, OutputOptions

CLAMP = 0.99  # where "clamp" cuts
MIXTURE = "mixture"
Waveforms = dict[str, Tensor]


class Mixdown:
    """Resamples, adds, subtracts and levels: stems at the model's rate in, waveforms of files out.

    The rest of the mixture and the residual are computed from the track itself at the files' rate,
    so that nothing is lost on the way to the model's rate and back.

    Args:
        stems: names of the waveforms pushed, in order.
        source: the track, at the model's rate and channels.
        sample_rate: of the files.
        options, encoding: which waveforms are written, and how.
        gain: factor for everything.

    Attributes:
        peaks: the greatest absolute sample of each waveform so far.
    """

    def __init__(
        self,
        stems: tuple[str, ...],
        source: AudioFile,
        sample_rate: int,
        options: OutputOptions,
        encoding: AudioEncoding,
        gain: float = 1.0,
    ) -> None:
        self._stems, self._options, self._gain = stems, options, gain
        self._steps = encoding.steps
        self._range = _range(options, encoding.steps)
        self._back = [Resampler(source.sample_rate, sample_rate, source.channels) for _ in stems]
        self._given = 0
        self._mixture = None
        if options.needs_mixture:
            self._mixture = _Samples(iter(source.at_rate(sample_rate)), source.channels)
        self.peaks: dict[str, float] = {}

    def push(self, stems: Tensor) -> Waveforms:
        """(S, C, L) -> each (C, L') at the files' rate; L' may be 0."""
        return self._mixed([back.push(stem) for back, stem in zip(self._back, stems, strict=True)])

    def finish(self, length: int) -> Waveforms:
        """Return the rest, `length` samples in all: resampling there and back may round by one."""
        missing = length - self._given
        tails = [back.flush() for back in self._back]
        return self._mixed([fitted(tail, missing) for tail in tails])

    def _mixed(self, stems: list[Tensor]) -> Waveforms:
        length = stems[0].shape[-1]
        self._given += length
        mixture = self._mixture.take(length) if self._mixture else stems[0]
        if self._gain != 1:
            stems, mixture = [self._gain * stem for stem in stems], self._gain * mixture
        named = dict(zip(self._stems, stems, strict=True))
        waveforms = self._wanted(named, mixture)
        if self._options.residual != "none":
            waveforms = self._completed(waveforms, mixture)
        elif self._options.clip_mode == "clamp":
            waveforms = {n: waveform.clamp(-CLAMP, CLAMP) for n, waveform in waveforms.items()}
        if self._options.stem_file:
            waveforms = {MIXTURE: mixture, **waveforms}
        for name, waveform in waveforms.items():
            lowest, highest = waveform.aminmax() if length else (0.0, 0.0)
            self.peaks[name] = max(self.peaks.get(name, 0.0), -float(lowest), float(highest))
        return waveforms

    def _wanted(self, stems: Waveforms, mixture: Tensor) -> Waveforms:
        wanted, method = self._options.two_stems, self._options.other_method
        if wanted is None:
            return stems
        waveforms = {wanted: stems[wanted]}
        if method == "add":
            others = [stem for name, stem in stems.items() if name != wanted]
            waveforms["no_" + wanted] = torch.stack(others).sum(0)
        elif method == "minus":
            waveforms["minus_" + wanted] = mixture - stems[wanted]
        return waveforms

    def _completed(self, waveforms: Waveforms, mixture: Tensor) -> Waveforms:
        """Return waveforms that add up to the mixture, within the range of the files.

        All are at the file's own steps but the last one, which is the difference, so that rounding
        adds up to nothing where the mixture is at these steps itself. What it cannot hold goes to
        the one before it, and so on.

        Raises:
            SeparationError: the mixture is louder than all files at their limit.
        """
        if self._options.residual == "spread":
            total = torch.stack(list(waveforms.values())).double().sum(0)
            share = ((mixture - total) / len(waveforms)).float()
            waveforms = {name: waveform + share for name, waveform in waveforms.items()}
        else:
            waveforms = {**waveforms, RESIDUAL: torch.zeros_like(mixture)}
        held = {
            name: self._rounded(waveform).double().clamp(*self._range)
            for name, waveform in waveforms.items()
        }
        rest = mixture - torch.stack(list(held.values())).sum(0)
        for name in reversed(held):
            whole = held[name] + rest
            held[name] = whole.clamp(*self._range)
            rest = whole - held[name]
            if not (rest.abs() > 0).any():
                return {name: waveform.float() for name, waveform in held.items()}
        raise SeparationError(
            f"the track is too loud for {len(held)} files to add up to it without clipping; "
            "set the clip mode to rescale"
        )

    def _rounded(self, waveform: Tensor) -> Tensor:
        """Return the waveform at the file's integer steps, where it has any."""
        if self._steps is None:
            return waveform
        return (waveform * self._steps).round() / self._steps


def _range(options: OutputOptions, steps: int | None) -> tuple[float, float]:
    """Return the lowest and highest sample of files with so many integer steps, if any."""
    if options.clip_mode == "clamp":
        highest = CLAMP if steps is None else math.floor(CLAMP * steps) / steps
        return -highest, highest
    if options.clip_mode == "none" and steps is not None:
        return -1.0, (steps - 1) / steps
    return -math.inf, math.inf  # floats and lossy formats hold more; "rescale" needs the true peaks


class _Samples:
    """A track's samples in any portions, silent after its end."""

    def __init__(self, blocks: Iterator[Tensor], channels: int) -> None:
        self._blocks = blocks
        self._held = torch.zeros(channels, 0)

    def take(self, count: int) -> Tensor:
        """Return the next samples, (C, count)."""
        while self._held.shape[-1] < count and (block := next(self._blocks, None)) is not None:
            self._held = torch.cat([self._held, block], dim=-1)
        taken, self._held = self._held[:, :count], self._held[:, count:]
        return fitted(taken, count)
