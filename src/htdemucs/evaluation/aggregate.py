"""Averages of scores over tracks, with bootstrap confidence intervals."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from htdemucs.evaluation.metrics import StemScores

RESAMPLES = 2000
CONFIDENCE = 0.95
PORTION = 1 << 21  # resampled scores in memory at a time
ALL = "all"  # the key of the mean of the stems

Scores = NDArray[np.float64]
Table = dict[str, dict[str, Any]]  # by stem, or "all", and metric
Statistic = Callable[[Scores], Scores]


def mean(scores: Scores) -> Scores:
    """(..., tracks, S, M) -> (..., S, M), over the tracks whose score is finite."""
    return _over_finite(np.nanmean, scores)


def median(scores: Scores) -> Scores:
    """(..., tracks, S, M) -> (..., S, M), over the tracks whose score is finite."""
    return _over_finite(np.nanmedian, scores)


def score_array(
    tracks: Sequence[Mapping[str, StemScores]], stems: Sequence[str], metrics: Sequence[str]
) -> Scores:
    """Return the scores as an array (tracks, S, M)."""
    values = [[[getattr(t[s], metric) for metric in metrics] for s in stems] for t in tracks]
    return np.array(values, dtype=np.float64).reshape(len(tracks), len(stems), len(metrics))


def summary(
    scores: Scores, stems: Sequence[str], metrics: Sequence[str], statistic: Statistic
) -> Table:
    """Return {stem: {metric: score}} with the mean of all stems as "all"; NaN if undefined."""
    return table(append_mean(statistic(scores)), [*stems, ALL], metrics)


def confidence_interval(
    scores: Scores, stems: Sequence[str], metrics: Sequence[str], statistic: Statistic, seed: int
) -> Table:
    """Return {stem: {metric: [low, high]}} of `bootstrap`, with the mean of all stems as "all"."""
    bounds = bootstrap(scores, lambda resampled: append_mean(statistic(resampled)), seed)
    return table(bounds, [*stems, ALL], metrics)


def bootstrap(scores: Scores, statistic: Statistic, seed: int) -> Scores:
    """(tracks, S, M) -> (..., 2), low and high: the 95 % percentile bootstrap of a statistic.

    Tracks are resampled with replacement, all stems and metrics of a track together. The bounds are
    NaN for fewer than two tracks.
    """
    count = len(scores)
    if count < 2:
        return np.full((*statistic(scores).shape, 2), np.nan)
    draws = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    portions = np.array_split(draws, 1 + RESAMPLES * scores.size // PORTION)
    resampled = [statistic(scores[rows]) for rows in portions]
    tail = 50 * (1 - CONFIDENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = np.nanpercentile(np.concatenate(resampled), [tail, 100 - tail], axis=0)
    return np.moveaxis(bounds, 0, -1)


def append_mean(values: Scores) -> Scores:
    """(..., S, M) -> (..., S + 1, M), with the mean of the stems appended."""
    return np.concatenate([values, values.mean(-2, keepdims=True)], axis=-2)


def undefined(scores: Scores, stems: Sequence[str], metrics: Sequence[str]) -> Table:
    """Return the number of undefined scores: {stem: {metric: {"nan": tracks, "inf": tracks}}}."""
    return {
        stem: {
            metric: {
                "nan": int(np.isnan(scores[:, i, j]).sum()),
                "inf": int(np.isinf(scores[:, i, j]).sum()),
            }
            for j, metric in enumerate(metrics)
        }
        for i, stem in enumerate(stems)
    }


def table(values: NDArray[Any], stems: Sequence[str], metrics: Sequence[str]) -> Table:
    """(S, M, ...) -> {stem: {metric: value}}, the values as Python's numbers or lists."""
    return {
        stem: dict(zip(metrics, row.tolist(), strict=True))
        for stem, row in zip(stems, values, strict=True)
    }


def _over_finite(statistic: Callable[..., Scores], scores: Scores) -> Scores:
    with warnings.catch_warnings():  # NaN is the right result if no score is finite
        warnings.simplefilter("ignore", RuntimeWarning)
        return statistic(np.where(np.isfinite(scores), scores, np.nan), axis=-3)
