import math

import numpy as np
import pytest

from htdemucs.evaluation import DEFAULT_METRICS, StemScores, aggregate

STEMS = ("bass", "vocals")


def scores(*values):
    """Tracks of two stems with three metrics each."""
    return np.array(values, dtype=float).reshape(-1, 2, 3)


def test_the_array_holds_metrics_in_order():
    track = {s: StemScores(i + 0.1, i + 0.2, i + 0.3, ()) for i, s in enumerate(STEMS)}
    array = aggregate.score_array([track], STEMS, DEFAULT_METRICS)
    assert array.tolist() == [[[0.1, 0.2, 0.3], [1.1, 1.2, 1.3]]]


def test_mean_median_and_all():
    array = scores(range(6), range(10, 16), range(50, 56))
    mean = aggregate.summary(array, STEMS, DEFAULT_METRICS, aggregate.mean)
    median = aggregate.summary(array, STEMS, DEFAULT_METRICS, aggregate.median)
    assert mean["bass"] == {"nsdr": 20, "museval_sdr": 21, "si_sdr": 22}
    assert median["vocals"] == {"nsdr": 13, "museval_sdr": 14, "si_sdr": 15}
    assert mean["all"]["nsdr"] == 21.5
    assert median["all"]["si_sdr"] == 13.5


def test_what_is_not_finite_is_left_out_and_counted():
    array = scores(range(6), range(10, 16), range(20, 26))
    array[0, 0, 1], array[1, 0, 1], array[:, 1, 2] = math.nan, -math.inf, math.inf
    mean = aggregate.summary(array, STEMS, DEFAULT_METRICS, aggregate.mean)
    assert mean["bass"]["museval_sdr"] == 21
    assert math.isnan(mean["vocals"]["si_sdr"])
    assert math.isnan(mean["all"]["si_sdr"])
    counts = aggregate.undefined(array, STEMS, DEFAULT_METRICS)
    assert counts["bass"]["museval_sdr"] == {"nan": 1, "inf": 1}
    assert counts["vocals"]["si_sdr"] == {"nan": 0, "inf": 3}
    assert counts["bass"]["nsdr"] == {"nan": 0, "inf": 0}


def test_the_interval_is_that_of_the_mean():
    """With 40 tracks of deviation 2, the mean's 95 % interval is about 1.96 * 2 / sqrt(40) wide."""
    array = np.random.default_rng(3).normal(5, 2, (40, 2, 3))
    found = aggregate.confidence_interval(array, STEMS, DEFAULT_METRICS, aggregate.mean, seed=0)
    mean = aggregate.summary(array, STEMS, DEFAULT_METRICS, aggregate.mean)
    for stem in STEMS:
        low, high = found[stem]["nsdr"]
        assert low < mean[stem]["nsdr"] < high
        assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(40), rel=0.25)
    low, high = found["all"]["nsdr"]
    assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(80), rel=0.3)


def test_the_interval_depends_on_the_seed_alone():
    array = np.random.default_rng(3).normal(5, 2, (10, 2, 3))
    first, again, other = (
        aggregate.confidence_interval(array, STEMS, DEFAULT_METRICS, aggregate.median, seed)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_portions_change_nothing(monkeypatch):
    array = np.random.default_rng(3).normal(5, 2, (10, 2, 3))
    first = aggregate.confidence_interval(array, STEMS, DEFAULT_METRICS, aggregate.mean, 0)
    monkeypatch.setattr(aggregate, "PORTION", 1000)
    assert aggregate.confidence_interval(array, STEMS, DEFAULT_METRICS, aggregate.mean, 0) == first


def test_one_track_tells_nothing_about_others():
    found = aggregate.confidence_interval(
        scores(range(6)), STEMS, DEFAULT_METRICS, aggregate.mean, 0
    )
    assert all(
        math.isnan(x) for metrics in found.values() for pair in metrics.values() for x in pair
    )
