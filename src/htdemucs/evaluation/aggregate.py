"""From the scores of tracks to those of a data set, with intervals."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.evaluation.metrics import METRICS, StemScores

RESAMPLES = 2000
CONFIDENCE = 0.95
PORTION = 1 << 21  # scores drawn at a time
ALL = "all"  # the mean of the stems

Scores = NDArray[np.float64]
Table = dict[str, dict[str, Any]]  # by stem, or "all", and metric
Statistic = Callable[[Scores], Scores]


def mean(scores: Scores) -> Scores:
    """(..., tracks, S, M) -> (..., S, M), over the tracks where the score is a finite number."""
    return _finite(np.nanmean, scores)


def median(scores: Scores) -> Scores:
    """(..., tracks, S, M) -> (..., S, M), over the tracks where the score is a finite number."""
    return _finite(np.nanmedian, scores)


def score_array(tracks: Sequence[dict[str, StemScores]], stems: Sequence[str]) -> Scores:
    """(tracks, S, M)"""
    values = [[[getattr(t[s], metric) for metric in METRICS] for s in stems] for t in tracks]
    return np.array(values, dtype=np.float64).reshape(len(tracks), len(stems), len(METRICS))


def summary(scores: Scores, stems: Sequence[str], statistic: Statistic) -> Table:
    """Return {stem: {metric: dB}} with the mean of all stems as "all"; NaN where one has none."""
    return _table(with_all(statistic(scores)), stems)


def interval(scores: Scores, stems: Sequence[str], statistic: Statistic, seed: int) -> Table:
    """Return {stem: {metric: [low, high]}}: the statistic's range over other tracks of the kind.

    The 95 % percentile bootstrap: tracks are drawn again with replacement, all stems and metrics of
    a track together. NaN with fewer than two tracks, which tell nothing about others.
    """
    count = len(scores)
    if count < 2:
        return _table(np.full((len(stems) + 1, len(METRICS), 2), np.nan), stems)
    draws = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    portions = np.array_split(draws, 1 + RESAMPLES * scores.size // PORTION)
    resampled = [with_all(statistic(scores[rows])) for rows in portions]
    tail = 50 * (1 - CONFIDENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = np.nanpercentile(np.concatenate(resampled), [tail, 100 - tail], axis=0)
    return _table(np.moveaxis(bounds, 0, -1), stems)


def with_all(values: Scores) -> Scores:
    """(..., S, M) -> (..., S + 1, M), the stems' mean added."""
    return np.concatenate([values, values.mean(-2, keepdims=True)], axis=-2)


def undefined(scores: Scores, stems: Sequence[str]) -> Table:
    """Return {stem: {metric: {"nan": tracks, "inf": tracks}}}."""
    return {
        stem: {
            metric: {
                "nan": int(np.isnan(scores[:, i, j]).sum()),
                "inf": int(np.isinf(scores[:, i, j]).sum()),
            }
            for j, metric in enumerate(METRICS)
        }
        for i, stem in enumerate(stems)
    }


def _table(values: NDArray[np.float64], stems: Sequence[str]) -> Table:
    return {
        stem: dict(zip(METRICS, row.tolist(), strict=True))
        for stem, row in zip([*stems, ALL], values, strict=True)
    }


def _finite(statistic: Callable[..., Scores], scores: Scores) -> Scores:
    with warnings.catch_warnings():  # no finite number at all gives NaN, as it should
        warnings.simplefilter("ignore", RuntimeWarning)
        return statistic(np.where(np.isfinite(scores), scores, np.nan), axis=-3)
