"""Scoring a model on whole tracks while it trains."""

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from htdemucs.errors import TrainingError
from htdemucs.evaluation import nsdr
from htdemucs.model import HTDemucs
from htdemucs.separation import Separator
from htdemucs.training.examples import read_excerpt
from htdemucs.training.library import Track
from htdemucs.training.losses import ERRORS

Scores = dict[str, float]
SILENCE = 1e-8  # mean square: a source softer than -80 dB is not scored in dB


class Validation:
    """Separates the validation tracks and scores the sources that count.

    Args:
        tracks: to separate; the processes share them.
        weights: of each source in `loss` and `nsdr`; those that weigh nothing are not scored.
        loss: kind of error, of `losses.ERRORS`.
        seconds: score this much from the middle of each track; None scores all of it.
        accelerator: the processes.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        weights: Sequence[float],
        loss: str,
        seconds: float | None,
        accelerator: Accelerator,
    ) -> None:
        self._tracks, self._seconds, self._accelerator = tracks, seconds, accelerator
        self._error = ERRORS[loss]
        self._weights = torch.tensor(weights, dtype=torch.float64)

    def __call__(self, model: HTDemucs) -> Scores:
        """Means over all tracks: `loss`, `nsdr` (dB), and the nsdr of each source.

        Where a source is silent it counts in the loss alone: whatever leaks into it would be tens
        of dB below nothing.

        Raises:
            TrainingError: no source is heard in any track.
        """
        mine = self._tracks[self._accelerator.process_index :: self._accelerator.num_processes]
        rows = [self._scored(model, track) for track in mine]
        table = torch.tensor(gather_object(rows), dtype=torch.float64)  # (track, loss/nsdr, S)
        table = table.sort(0).values  # whichever process scored what
        loss, score = table[:, 0].mean(0), table[:, 1].nanmean(0)
        heard = self._weights * score.isfinite()
        if not heard.any():
            raise TrainingError("the validation tracks are silent; name others in data.valid")
        named = zip(model.sources, score.tolist(), heard.tolist(), strict=True)
        return {
            "loss": float((loss * self._weights).sum() / self._weights.sum()),
            "nsdr": float((score.nan_to_num() * heard).sum() / heard.sum()),
        } | {f"nsdr {name}": value for name, value, weight in named if weight}

    def _scored(self, model: HTDemucs, track: Track) -> list[list[float]]:
        sources = torch.stack([self._read(model, track, name) for name in model.sources])
        stems = Separator(model, shifts=0, precision="fp32").separate(
            sources.sum(0), model.sample_rate
        )
        estimates = torch.stack([stems[name] for name in model.sources])
        losses = self._error((estimates - sources).unsqueeze(0))
        silent = sources.square().mean(dim=(1, 2)) < SILENCE
        scores = nsdr(sources, estimates).masked_fill(silent, math.nan)
        return [losses.tolist(), scores.tolist()]

    def _read(self, model: HTDemucs, track: Track, name: str) -> Tensor:
        length = track.length
        if self._seconds is not None:
            length = min(length, int(self._seconds * model.sample_rate))
        start = (track.length - length) // 2
        return read_excerpt(track.files[name], start, length, model.audio_channels)
