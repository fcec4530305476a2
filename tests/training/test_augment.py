import math
from functools import partial

import pytest
import torch

from helpers import snr
from htdemucs.training import augment
from htdemucs.training.config import AugmentConfig
from htdemucs.training.rng import generator

RATE = 8000
OFF = AugmentConfig(
    shift=0, flip_channels=False, flip_sign=False, scale_min=1, scale_max=1, remix=0, repitch=0
)


def config(**changes):
    return AugmentConfig(**(vars(OFF) | changes))


def noise(channels=2, length=RATE):
    return 0.1 * torch.randn(channels, length)


def rng(number):
    """The generators of one source of one example."""
    return partial(_generator, number)


def _generator(number, purpose):
    return generator(0, purpose, number)


def draws(**changes):
    """The results of 200 draws for one waveform."""
    x = noise()
    return x, [augment.augment_source(x, config(**changes), RATE, rng(i)) for i in range(200)]


def test_nothing_switched_on_changes_nothing():
    x = noise(3)
    assert snr(x[:2], augment.augment_source(x[:2], OFF, RATE, rng(0))) > 120
    assert torch.equal(augment.augment_source(x[:1], OFF, RATE, rng(0)), x[:1])


def test_flips():
    x, made = draws(flip_channels=True, flip_sign=True)
    kinds = [x, -x, x.flip(0), -x.flip(0)]
    counts = [sum(bool(torch.allclose(y, kind, atol=1e-6)) for y in made) for kind in kinds]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_scale():
    x, made = draws(scale_min=0.25, scale_max=1.25)
    gains = torch.stack([(y / x).mean() for y in made])
    assert 0.25 <= gains.min() < 0.3
    assert 1.2 < gains.max() <= 1.25 + 1e-5


def test_silence():
    _, made = draws(silence=0.25)
    assert 25 < sum(not y.any() for y in made) < 80


SOURCE_AUGMENTATIONS = {
    "silence": 1e-9, "flip_channels": True, "flip_sign": True, "tilt": 3.0, "saturate": 1.0,
    "effects": 1.0, "width": 0.5, "pan": 0.5, "scale_max": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCE_AUGMENTATIONS)
def test_switching_one_on_changes_no_other_draw(name):
    """Every augmentation asks for a generator by its own name, and uses no other."""

    def first_draws(settings):
        used = {}

        def recording(purpose):
            made = rng(3)(purpose)
            used[purpose] = made.bit_generator.state["state"]["state"]
            return made

        augment.augment_source(noise(), config(**settings), RATE, recording)
        return used

    plain, changed = first_draws({}), first_draws({name: SOURCE_AUGMENTATIONS[name]})
    assert plain.items() <= changed.items()
    assert len(set(changed.values())) == len(changed)


def test_effects_do_not_depend_on_what_the_samples_were_divided_by():
    x = noise()
    raw = augment.augment_source(x, config(effects=1.0), RATE, rng(4))
    normalized = augment.augment_source(x / 0.05, config(effects=1.0), RATE, rng(4), level=0.05)
    assert snr(raw / 0.05, normalized) > 60


def test_a_codec_does_not_clip_what_is_louder_than_full_scale():
    sources = torch.stack([noise() for _ in range(4)])
    sources /= sources.sum(0).abs().max()
    full_scale = augment.augment_mixture(sources, config(codec=1.0), 44_100, rng(1))
    louder = augment.augment_mixture(sources * 8, config(codec=1.0), 44_100, rng(1))
    assert snr(full_scale[0] * 8, louder[0]) > 60


def test_tilt_is_in_decibels_an_octave():
    x = noise(1, 2**15)
    before, after = (
        torch.fft.rfft(x)[0].abs(),
        torch.fft.rfft(augment.tilt_spectrum(x, 2.0, RATE))[0].abs(),
    )
    hertz = torch.fft.rfftfreq(2**15, 1 / RATE)
    for frequency, octaves in ((500, -1), (1000, 0), (2000, 1), (3999, math.log2(3.999))):
        bin_ = int((hertz - frequency).abs().argmin())
        assert 20 * torch.log10(after[bin_] / before[bin_]) == pytest.approx(2 * octaves, abs=0.05)


def test_lowpass_ends_at_its_cutoff():
    spectrum = torch.fft.rfft(augment.lowpass(noise(2, RATE), 1000, RATE)).abs()
    assert spectrum[:, 1001:].max() < 1e-4
    assert spectrum[:, :1000].mean() > 1


def test_saturation_keeps_the_level_and_limits_peaks():
    x = noise()
    hard = augment.saturate(x, 5.0)
    assert hard.square().mean() == pytest.approx(float(x.square().mean()), rel=1e-4)
    assert hard.abs().max() / hard.std() < 0.7 * x.abs().max() / x.std()
    assert not augment.saturate(torch.zeros(2, 10), 5.0).any()


def test_panning_keeps_the_power_of_a_centred_source():
    x = noise(1).expand(2, -1)
    for position in (-1.0, -0.3, 0.0, 0.8, 1.0):
        y = augment.pan(x, position)
        assert y.square().sum() == pytest.approx(float(x.square().sum()), rel=1e-4)
        assert (y[1].square().sum() > y[0].square().sum()) == (position > 0)


def test_width():
    x = noise()
    mono = augment.set_width(x, 0.0)
    assert torch.equal(mono[0], mono[1])
    assert snr(x.sum(0), augment.set_width(x, 1.7).sum(0)) > 100
    assert snr(x, augment.set_width(x, 1.0)) > 100


def test_the_mixture_is_the_sum_unless_limited():
    sources = torch.stack([noise() for _ in range(4)])
    for i in range(20):
        made = augment.augment_mixture(sources, config(lowpass=1.0), 44_100, rng(i))
        assert snr(made[1:].sum(0), made[0]) > 100
        limited = augment.augment_mixture(sources, config(limit=1.0), 44_100, rng(i))
        assert torch.equal(limited[1:], sources)
        assert limited[0].abs().max() < sources.sum(0).abs().max()


@pytest.mark.parametrize("semitones", [-2, 0, 2])
@pytest.mark.parametrize("tempo", [0.88, 1.0, 1.12])
def test_repitching(semitones, tempo):
    rate, hertz = 44_100, 440.0
    time = torch.arange(3 * rate) / rate
    tone = torch.sin(2 * math.pi * hertz * time).expand(2, -1)
    made = augment.repitch(tone, semitones, tempo, rate)
    assert made.shape[1] == pytest.approx(3 * rate / tempo, abs=2)
    middle = made[0, rate : 2 * rate] * torch.hann_window(rate)
    found = float(torch.fft.rfft(middle).abs().argmax())  # a second: bins are Hz
    assert found == pytest.approx(hertz * 2 ** (semitones / 12), rel=0.005)
    assert torch.equal(made, augment.repitch(tone, semitones, tempo, rate))


def test_repitching_keeps_what_belongs_together_together():
    """A click comes out at the time it went in, divided by the tempo."""
    rate = 44_100
    click = torch.zeros(2, 4 * rate)
    click[:, 2 * rate : 2 * rate + 64] = 1.0
    for tempo in (0.9, 1.1):
        made = augment.repitch(click, 0, tempo, rate)
        centre = float((made[0].square() * torch.arange(made.shape[1])).sum())
        centre /= float(made[0].square().sum())
        assert centre == pytest.approx(2 * rate / tempo, abs=0.03 * rate)
