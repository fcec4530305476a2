"""Scoring a model on whole tracks while it trains."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from htdemucs.evaluation import nsdr
from htdemucs.model import HTDemucs
from htdemucs.separation import Separator
from htdemucs.training.examples import read_excerpt
from htdemucs.training.library import Track
from htdemucs.training.losses import ERRORS

Scores = dict[str, float]


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
        """Means over all tracks: `loss`, `nsdr` (dB), and the nsdr of each source."""
        mine = self._tracks[self._accelerator.process_index :: self._accelerator.num_processes]
        rows = [self._scored(model, track) for track in mine]
        table = torch.tensor(gather_object(rows), dtype=torch.float64)  # (track, loss/nsdr, S)
        loss, score = table.sort(0).values.mean(0)  # sorted: whichever process scored what
        counted = self._weights > 0
        named = zip(model.sources, score.tolist(), counted.tolist(), strict=True)
        total = self._weights.sum()
        return {
            "loss": float((loss * self._weights).sum() / total),
            "nsdr": float((score * self._weights).sum() / total),
        } | {f"nsdr {name}": value for name, value, counts in named if counts}

    def _scored(self, model: HTDemucs, track: Track) -> list[list[float]]:
        sources = torch.stack([self._read(model, track, name) for name in model.sources])
        stems = Separator(model, shifts=0, precision="fp32").separate(
            sources.sum(0), model.sample_rate
        )
        estimates = torch.stack([stems[name] for name in model.sources])
        losses = self._error((estimates - sources).unsqueeze(0))
        return [losses.tolist(), nsdr(sources, estimates).tolist()]

    def _read(self, model: HTDemucs, track: Track, name: str) -> Tensor:
        length = track.length
        if self._seconds is not None:
            length = min(length, int(self._seconds * model.sample_rate))
        start = (track.length - length) // 2
        return read_excerpt(track.files[name], start, length, model.audio_channels)
