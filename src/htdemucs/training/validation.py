"""Validation: scores of a model on whole tracks during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from htdemucs.errors import TrainingError
from htdemucs.evaluation import nsdr
from htdemucs.evaluation.metrics import SILENCE
from htdemucs.model import Network
from htdemucs.separation import Separator
from htdemucs.training.dataset import Recording
from htdemucs.training.losses import waveform_error
from htdemucs.training.reading import read_stem

Scores = dict[str, float]


class Validation:
    """Separates the validation recordings and scores the sources whose weight is not 0.

    Args:
        recordings: the music; each process scores a part of it.
        weights: weight of each source in `loss` and `nsdr`; those of weight 0 are not scored.
        loss: key of `losses.ERRORS`, or weights of several.
        seconds: score this much from the middle of each track; None scores all of it.
        accelerator: the processes.

    Attributes:
        conditions: what the scores depend on, by name.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        weights: Sequence[float],
        loss: str | Mapping[str, Any],
        seconds: float | None,
        accelerator: Accelerator,
    ) -> None:
        self._recordings, self._seconds, self._accelerator = recordings, seconds, accelerator
        self._loss = loss
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self.conditions = {
            "optim.loss": loss,
            "optim.source_weights": list(weights),
            "data.valid_seconds": seconds,
            "the validation tracks": [[r.name, r.length, r.mean, r.std] for r in recordings],
        }

    def __call__(self, model: Network) -> Scores:
        """Return means over all tracks: `loss`, `nsdr` (dB), and the nsdr of each source.

        A source that is silent in a track has no nsdr there, only a loss.

        Raises:
            TrainingError: all sources are silent in every track.
        """
        share = self._recordings[self._accelerator.process_index :: self._accelerator.num_processes]
        separator = Separator(model, shifts=0, precision="fp32")
        rows = [self._score(model, separator, recording) for recording in share]
        table = torch.tensor(gather_object(rows), dtype=torch.float64)  # (track, loss/nsdr, S)
        table = table.sort(0).values  # sums must not depend on the number of processes
        loss, score = table[:, 0].mean(0), table[:, 1].nanmean(0)
        scored = self._weights * score.isfinite()
        if not scored.any():
            raise TrainingError(
                "the validation tracks are silent; specify other tracks in data.valid"
            )
        named = zip(model.sources, score.tolist(), scored.tolist(), strict=True)
        return {
            "loss": float((loss * self._weights).sum() / self._weights.sum()),
            "nsdr": float((score.nan_to_num() * scored).sum() / scored.sum()),
        } | {f"nsdr {name}": value for name, value, weight in named if weight}

    def _score(
        self, model: Network, separator: Separator, recording: Recording
    ) -> list[list[float]]:
        sources = torch.stack([self._read(model, recording, name) for name in model.sources])
        silent = sources.square().mean(dim=(1, 2)) < SILENCE
        mixture = recording.normalize(sources.sum(0))
        sources = recording.normalize(sources)
        stems = separator.separate(mixture, model.sample_rate)
        estimates = torch.stack([stems[name] for name in model.sources])
        error = waveform_error(self._loss, model.sample_rate)
        losses = error(estimates.unsqueeze(0), sources.unsqueeze(0))[0]
        scores = nsdr(sources, estimates).masked_fill(silent, math.nan)
        return [losses.tolist(), scores.tolist()]

    def _read(self, model: Network, recording: Recording, name: str) -> Tensor:
        length = recording.length
        if self._seconds is not None:
            length = min(length, int(self._seconds * model.sample_rate))
        start = (recording.length - length) // 2
        files = recording.files[name]
        return read_stem(files, start, length, model.audio_channels, model.sample_rate)
