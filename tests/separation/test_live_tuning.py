import pytest

from helpers import TINY
from htdemucs import HTDemucs, HTDemucsConfig, SeparationError, Separator
from htdemucs.separation import live_tuning
from htdemucs.separation.live_tuning import (
    LiveOption,
    candidate_separators,
    rank_options,
    tuned_separator,
)

# By share of the segment: its seconds, and the network's.
FAST = {1.0: (4.0, 0.08), 0.5: (2.0, 0.04), 0.25: (1.0, 0.02)}
SLOW = {1.0: (4.0, 5.0), 0.5: (2.0, 1.6), 0.25: (1.0, 0.6)}


def test_every_option_fits_the_segment_and_leaves_the_network_its_time():
    for took, load, reserve in (
        (FAST, 0.6, 1.6),
        (SLOW, 0.75, 1.25),
    ):  # the slow one only fits the tighter load
        for option in rank_options(took, None):
            timing = option.timing
            assert timing.hop + timing.look_ahead + timing.crossfade <= option.segment
            assert timing.compute == pytest.approx(reserve * option.inference_time)
            assert option.load == pytest.approx(load)
    assert [option.share for option in rank_options(SLOW, None)] == [0.25]  # others do not fit


def test_auto_weighs_the_delay_against_the_loss():
    (best, *others) = rank_options(FAST, None)
    assert best.share == 0.5
    worth = [option.loss + option.timing.delay for option in (best, *others)]
    assert worth == sorted(worth)
    assert best.timing.delay < 0.25


@pytest.mark.parametrize("seconds", [0.12, 0.3, 0.5, 1.5, 9.0])
def test_a_latency_is_met_exactly_and_used(seconds):
    for option in rank_options(FAST, seconds):
        assert option.timing.delay == pytest.approx(seconds)
        assert 0.02 <= option.timing.look_ahead <= 1.0
    losses = [option.loss for option in rank_options(FAST, seconds)]
    assert losses == sorted(losses)


def test_a_latency_gives_the_network_time_before_look_ahead():
    for option in rank_options(FAST, 0.5):
        timing = option.timing
        assert option.load <= 0.6
        assert timing.compute >= 1.6 * option.inference_time
        assert timing.look_ahead <= timing.compute
        assert timing.hop + timing.look_ahead + timing.crossfade <= option.segment


def test_too_short_latencies_and_too_slow_machines_are_refused():
    with pytest.raises(SeparationError, match=r"latency of 0.05 s is too short .* do 0.10 s"):
        rank_options(FAST, 0.05)
    with pytest.raises(SeparationError, match="too slow for this model"):
        rank_options({1.0: (4.0, 9.0)}, None)


def test_losses_are_those_of_the_table_and_between_them():
    def at(ahead):
        return LiveOption(0.5, 2.0, 0.1, live_tuning.Timing(0.2, ahead, 0.03)).loss

    assert at(0.1) == pytest.approx(0.16)
    assert 0.13 < at(0.15) < 0.16
    assert at(3.0) == pytest.approx(0.03)


def test_the_machine_is_measured(tiny_model):
    live, options = tuned_separator(tiny_model, "fp32", 0.9)
    assert live.delay == pytest.approx(0.9 * 8000, abs=2)
    assert live.timing == options[0].timing
    assert all(option.inference_time > 0 for option in options)


def test_segments_are_shares_of_the_model_s_own_up_to_what_can_be_live():
    config = HTDemucsConfig(**TINY | {"segment": 20, "sample_rate": 44_100})
    separators = candidate_separators(HTDemucs(config))
    assert [s.segment_length / 44_100 for s in separators.values()] == [7.8, 3.9, 1.95]
    assert all(isinstance(separator, Separator) for separator in separators.values())
