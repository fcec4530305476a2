import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htdemucs.audio import Resampler, resampled_length

RATES = st.integers(1_000, 768_000) | st.sampled_from([8_000, 22_050, 44_100, 48_000, 96_000])


def resample(blocks, source_rate, target_rate, channels=1):
    resampler = Resampler(source_rate, target_rate, channels)
    return torch.cat([*map(resampler.push, blocks), resampler.flush()], dim=1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(length=st.integers(0, 3_000), source_rate=RATES, target_rate=RATES)
def test_length_is_exact(length, source_rate, target_rate):
    resampled = resample([torch.ones(1, length)], source_rate, target_rate)
    assert resampled.shape == (1, resampled_length(length, source_rate, target_rate))


@pytest.mark.parametrize(
    ("length", "source_rate", "target_rate", "resampled"),
    [(3, 2_000, 1_000, 2), (1, 48_000, 8_000, 0), (441, 44_100, 48_000, 480), (10, 20, 3, 2)],
)
def test_halves_are_rounded_up(length, source_rate, target_rate, resampled):
    assert resampled_length(length, source_rate, target_rate) == resampled


@settings(max_examples=30, deadline=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 5_000), max_size=20))
def test_the_same_in_blocks_of_any_length(cuts, noise):
    waveform = noise(5_000)
    for rates in ((44_100, 48_000), (48_000, 44_100), (96_000, 22_050)):
        whole = resample([waveform], *rates, channels=2)
        parts = resample(waveform.tensor_split(sorted(cuts), dim=1), *rates, channels=2)
        assert torch.equal(parts, whole)


def test_no_delay_and_no_change_of_level():
    def tone(length, sample_rate):
        return torch.sin(6_000 * torch.arange(length, dtype=torch.float64) / sample_rate).float()

    resampled = resample([tone(20_000, 44_100)[None]], 44_100, 48_000)[0]
    expected = tone(len(resampled), 48_000)
    middle = slice(2_000, -2_000)  # away from the ends, where the tone starts and stops
    assert torch.allclose(resampled[middle], expected[middle], atol=1e-5)


def test_equal_rates_change_nothing(noise):
    waveform = noise(1_000)
    assert torch.equal(resample([waveform], 44_100, 44_100, channels=2), waveform)
