import numpy as np
import pytest
import torch

from helpers import snr
from htdemucs.training import augment, effects, rng
from htdemucs.training.config import EFFECTS, AugmentConfig

RATE = 44_100


def generator(seed):
    return np.random.default_rng(seed)


def music(channels=2, seconds=0.5, rate=RATE):
    """Decaying tones and noise: what a codec keeps well."""
    time = torch.arange(int(seconds * rate)) / rate
    tones = sum(torch.sin(2 * torch.pi * f * time) / f for f in (110, 277, 660, 1760))
    return 3 * tones * torch.exp(-2 * time) + 0.002 * torch.randn(channels, len(time))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_chain_is_its_draw_and_keeps_shape_and_loudness(channels):
    x = music(channels)
    for seed in range(30):
        y = effects.effect_chain(x, RATE, generator(seed))
        assert y.shape == x.shape
        assert y.isfinite().all()
        assert float(y.square().mean() / x.square().mean()) == pytest.approx(1, rel=1e-3)
        assert torch.equal(y, effects.effect_chain(x, RATE, generator(seed)))


def test_chains_differ():
    x = music()
    made = [effects.effect_chain(x, RATE, generator(seed)) for seed in range(40)]
    far = sum(snr(x, y) < 20 for y in made)
    same = sum(snr(x, y) > 60 for y in made)
    assert far > 20
    assert 0 < same < 10


def test_every_effect_of_a_chain_works_alone():
    """Each of them does something, and leaves the beginning of the sound where it was."""
    x = torch.cat([torch.zeros(2, 2000), music()], dim=1)
    seen = set()
    for seed in range(20):
        for effect in effects._random_chain(RATE, generator(seed), [1.0] * 6):
            y = effects._apply_filters(x, RATE, [effect])
            assert y.shape == x.shape
            assert y.isfinite().all()
            assert y[:, :2000].abs().max() < 1e-4
            assert y[:, 2000:2200].abs().max() > 1e-3
            if snr(x, y) < 80:
                seen.add(effect[0])
    assert seen == {
        "equalizer", "acompressor", "asoftclip", "chorus", "aphaser", "flanger", "aecho",
        "extrastereo",
    }  # fmt: skip


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_effect_has_its_own_probability(effect):
    x = music()
    none = dict.fromkeys(EFFECTS, 0)
    assert snr(x, effects.effect_chain(x, RATE, generator(1), none)) > 100
    assert snr(x, effects.effect_chain(x, RATE, generator(1), none | {effect: 1})) < 60
    chains = [effects.effect_chain(x, RATE, generator(seed), {effect: 0.35}) for seed in range(2)]
    for seed, chain in enumerate(chains):  # the default, and no other draw changes
        assert torch.equal(chain, effects.effect_chain(x, RATE, generator(seed)))


def test_a_silent_source_stays_silent():
    for seed in range(10):
        assert not effects.effect_chain(torch.zeros(2, 4000), RATE, generator(seed)).any()


def test_reverb_falls_by_60_decibels():
    click = torch.zeros(2, RATE)
    click[:, 0] = 1.0
    tail = effects.reverb(click, RATE, 0.5, 1.0, seed=1)
    early, late = tail[:, :1000].std(), tail[:, RATE // 2 - 1000 : RATE // 2].std()
    assert float(20 * torch.log10(late / early)) == pytest.approx(-60 * (1 - 1000 / 22050), abs=1.5)
    assert tail[:, RATE // 2 :].abs().max() < 1e-6
    assert snr(click, effects.reverb(click, RATE, 0.5, 0.0, seed=1)) > 100
    assert tail.square().sum(1) == pytest.approx([1, 1], rel=1e-4)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_a_round_trip_lines_up_to_the_sample(rate):
    x = music(2, 1.0, rate)
    formats = set()
    for seed in range(12):
        y = effects.codec_round_trip(x, rate, generator(seed))
        assert y.shape == x.shape
        assert 15 < snr(x, y) < 80
        formats.add(effects._FORMATS[generator(seed).integers(3)])
        correlation = torch.fft.irfft(
            torch.fft.rfft(y[0], 4 * rate) * torch.fft.rfft(x[0], 4 * rate).conj(), 4 * rate
        )
        assert int(correlation.argmax()) == 0
    assert formats == set(effects._FORMATS)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_round_trip_of_other_channels(channels):
    x = music(channels, 0.1)
    for seed in range(60):  # every format with every bitrate
        assert snr(x, effects.codec_round_trip(x, RATE, generator(seed))) > 10


def example_rng(number):
    return lambda purpose: rng.generator(0, purpose, number)


def test_a_probability_switches_it_on_and_no_other_draw_changes():
    x = music(2, 0.2)
    off, on = AugmentConfig(), AugmentConfig(effects=0.5)
    pairs = [
        [augment.augment_source(x, config, RATE, example_rng(i)) for config in (off, on)]
        for i in range(40)
    ]
    # A chain keeps the loudness, so the same flips and gains give the same level.
    assert 8 < sum(bool(torch.equal(a, b)) for a, b in pairs) < 32
    for a, b in pairs:
        assert float(a.square().mean()) == pytest.approx(float(b.square().mean()), rel=2e-3)


def test_only_the_mixture_is_coded():
    sources = torch.stack([music(), music()])
    made = augment.augment_mixture(sources, AugmentConfig(codec=1.0), RATE, example_rng(1))
    assert torch.equal(made[1:], sources)
    assert 15 < snr(sources.sum(0), made[0]) < 80
