"""How the delay of a live separation is divided."""

import pytest

from helpers import TINY
from htdemucs import HTDemucs, HTDemucsConfig, SeparationError, Separator
from htdemucs.separation import live_tuning
from htdemucs.separation.live_tuning import Choice, candidates, choices, loss, suited

# By share of the segment: its seconds, and the network's.
FAST = {1.0: (4.0, 0.08), 0.5: (2.0, 0.04), 0.25: (1.0, 0.02)}
SLOW = {1.0: (4.0, 5.0), 0.5: (2.0, 1.6), 0.25: (1.0, 0.6)}


def test_every_way_fits_the_segment_and_gives_the_network_its_time():
    for took, load, reserve in ((FAST, 0.6, 1.6), (SLOW, 0.75, 1.25)):  # the slow has no choice
        for choice in choices(took, None):
            timing = choice.timing
            assert timing.hop + timing.look_ahead + timing.crossfade <= choice.segment
            assert timing.compute == pytest.approx(reserve * choice.took)
            assert choice.load == pytest.approx(load)
    assert [choice.share for choice in choices(SLOW, None)] == [0.25]  # the others have no place


def test_auto_takes_what_is_worth_its_time():
    (best, *others) = choices(FAST, None)
    assert best.share == 0.5
    worth = [loss(choice) + choice.timing.delay for choice in (best, *others)]
    assert worth == sorted(worth)
    assert best.timing.delay < 0.25


@pytest.mark.parametrize("seconds", [0.12, 0.3, 0.5, 1.5, 9.0])
def test_a_latency_is_met_exactly_and_used(seconds):
    for choice in choices(FAST, seconds):
        assert choice.timing.delay == pytest.approx(seconds)
        assert 0.02 <= choice.timing.look_ahead <= 1.0
    losses = [loss(choice) for choice in choices(FAST, seconds)]
    assert losses == sorted(losses)


def test_a_latency_leaves_the_network_room_before_it_looks_far_ahead():
    for choice in choices(FAST, 0.5):
        timing = choice.timing
        assert choice.load <= 0.6
        assert timing.compute >= 1.6 * choice.took
        assert timing.look_ahead <= timing.compute
        assert timing.hop + timing.look_ahead + timing.crossfade <= choice.segment


def test_what_is_too_short_or_too_slow_is_said():
    with pytest.raises(SeparationError, match=r"latency of 0.05 s is too short .* do 0.10 s"):
        choices(FAST, 0.05)
    with pytest.raises(SeparationError, match="too slow for this model"):
        choices({1.0: (4.0, 9.0)}, None)


def test_losses_are_those_of_the_table_and_between_them():
    def at(ahead):
        return loss(Choice(0.5, 2.0, 0.1, live_tuning.Timing(0.2, ahead, 0.03)))

    assert at(0.1) == pytest.approx(0.16)
    assert 0.13 < at(0.15) < 0.16
    assert at(3.0) == pytest.approx(0.03)


def test_the_machine_is_measured(tiny_model):
    live, found = suited(tiny_model, "fp32", 0.9)
    assert live.delay == pytest.approx(0.9 * 8000, abs=2)
    assert live.timing == found[0].timing
    assert all(choice.took > 0 for choice in found)


def test_segments_are_shares_of_the_model_s_own_up_to_what_can_be_live():
    config = HTDemucsConfig(**TINY | {"segment": 20, "sample_rate": 44_100})
    separators = candidates(HTDemucs(config))
    assert [s.segment_length / 44_100 for s in separators.values()] == [7.8, 3.9, 1.95]
    assert all(isinstance(separator, Separator) for separator in separators.values())
