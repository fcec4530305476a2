"""Mixing: stems add up to the mixture, whatever happens to them."""

import numpy as np
import pytest

from recipes.mini.mixing import audio, mixdown
from recipes.mini.mixing.audio import SAMPLE_RATE


def stems(seed, seconds=2):
    rng = np.random.default_rng(seed)
    shape = (seconds * SAMPLE_RATE, 2)
    return {
        name: (gain * rng.standard_normal(shape)).astype(np.float32)
        for name, gain in zip(mixdown.STEMS, (0.5, 0.1, 0.02, 1.5), strict=True)
    }


@pytest.mark.parametrize("seed", range(8))
def test_stems_sum_to_the_mixture_and_nothing_clips(seed):
    mixed = mixdown.quantise(mixdown.master(np.random.default_rng(seed), stems(seed)))
    mixture = mixdown.exact_mixture(mixed)
    total = sum(mixed[name].astype(np.int32) for name in mixdown.STEMS)
    assert np.array_equal(mixture, total)
    for sound in (mixture, *mixed.values()):
        assert np.abs(sound.astype(int)).max() < mixdown.FULL_SCALE
        assert np.abs(sound.astype(int)).max() > 0


def test_balance_brings_stems_within_the_spread():
    balanced = mixdown.balance(np.random.default_rng(0), stems(0))
    for name, level in mixdown.BALANCE.items():
        decibels = 20 * np.log10(audio.active_rms(balanced[name]) / 0.1)
        assert decibels == pytest.approx(level, abs=4.01)


def test_silence_stays_silent():
    quiet = stems(0) | {"vocals": np.zeros((2 * SAMPLE_RATE, 2), dtype=np.float32)}
    mixed = mixdown.quantise(mixdown.master(np.random.default_rng(1), quiet))
    assert not mixed["vocals"].any()


def test_a_bus_gain_turns_down_loud_parts_only():
    mix = np.full((SAMPLE_RATE, 2), 0.1, dtype=np.float32)
    mix[SAMPLE_RATE // 2 :] = 0.8
    gain = mixdown.bus_gain(mix, threshold=0.4, ratio=4, release=0.05)
    assert gain[SAMPLE_RATE // 8] == pytest.approx(1)
    assert gain[-SAMPLE_RATE // 8] == pytest.approx(2**-0.75, rel=0.01)


def test_a_sum_beyond_16_bits_is_refused():
    loud = {name: np.full((10, 2), 20_000, dtype=np.int16) for name in mixdown.STEMS}
    with pytest.raises(ValueError, match="lower peak"):
        mixdown.exact_mixture(loud)


def test_small_helpers():
    sound = np.ones((1000, 2), dtype=np.float32)
    assert audio.rms(sound) == pytest.approx(1)
    assert audio.resample(sound, 1.5).shape == (1500, 2)
    assert audio.pan(sound[:, 0], -1)[0] == pytest.approx([1, 0], abs=1e-6)
    target = np.zeros((10, 2), dtype=np.float32)
    audio.add_at(target, sound, -995)
    assert target[:5].all()
    assert not target[5:].any()
    stuttered = audio.stutter(np.random.default_rng(0), sound, 0.001)
    assert stuttered.shape == sound.shape
