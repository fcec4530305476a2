from math import sqrt

import av
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htdemucs.audio import Resampler, resampled_length
from htdemucs.audio.convert import DEFAULT_LAYOUTS, UNKNOWN_CHANNEL, layout_warning, mixing_matrix
from htdemucs.errors import AudioError

HALF_POWER = sqrt(1 / 2)


def mix(channel_names, channels, samples):
    return (mixing_matrix(channel_names, channels) @ torch.tensor(samples)[:, None])[:, 0].tolist()


def test_surround_is_mixed_down_by_its_channel_names():
    left, right, centre, lfe, back_left, back_right = 0.1, 0.2, 0.4, 8.0, 0.05, 0.3
    mixed = mix(
        ("FL", "FR", "FC", "LFE", "BL", "BR"),
        2,
        [left, right, centre, lfe, back_left, back_right],
    )
    assert mixed == pytest.approx(
        [
            left + HALF_POWER * (centre + back_left),
            right + HALF_POWER * (centre + back_right),
        ]
    )


def test_the_order_of_the_channels_does_not_matter():
    assert mix(("FC", "SR", "FR", "SL", "FL"), 2, [0.0, 0.2, 0.0, 0.1, 0.0]) == pytest.approx(
        [0.1 * HALF_POWER, 0.2 * HALF_POWER]
    )


@pytest.mark.parametrize(
    ("count", "layout"),
    [(3, "2.1"), (4, "quad"), (5, "5.0"), (6, "5.1"), (7, "6.1"), (8, "7.1"), (10, "5.1.4")],
)
def test_channels_without_a_place_are_taken_for_the_usual_layout(count, layout):
    named = [channel.name for channel in av.AudioLayout(layout).channels]
    unnamed = [UNKNOWN_CHANNEL] * count
    assert torch.equal(mixing_matrix(unnamed, 2), mixing_matrix(named, 2))
    assert f"{count} channels" in layout_warning(unnamed, 2)
    assert f"{layout} was assumed" in layout_warning(unnamed, 2)
    assert layout_warning(named, 2) is None
    assert layout_warning(unnamed, count) is None  # nothing is mixed


def test_usual_layouts_are_those_of_ffmpeg_but_for_quad():
    for count, (name, names) in DEFAULT_LAYOUTS.items():
        layout = av.AudioLayout("quad" if count == 4 else f"{count}c")
        assert (name, names) == (layout.name, tuple(channel.name for channel in layout.channels))


def test_where_no_layout_is_usual_the_first_two_are_left_and_right():
    assert mix([UNKNOWN_CHANNEL] * 9, 2, [0.3, 0.6, *[1.0] * 7]) == pytest.approx([0.3, 0.6])
    assert mix([UNKNOWN_CHANNEL] * 9, 1, [0.3, 0.6, *[1.0] * 7]) == pytest.approx([0.45])
    assert mix(("A", "B", "C"), 2, [0.3, 0.6, 0.0]) == pytest.approx([0.3, 0.6])
    assert "first two were taken as left and right" in layout_warning([UNKNOWN_CHANNEL] * 9, 2)


def test_of_ambisonic_sound_the_channel_without_direction_is_heard():
    names = [f"AMBI{index}" for index in range(4)]
    assert mix(names, 2, [0.5, 1.0, 1.0, 1.0]) == pytest.approx([0.5, 0.5])
    assert mix([*names, "FL", "FR"], 2, [0.5, 1, 1, 1, 0.1, 0.2]) == pytest.approx([0.6, 0.7])
    assert "ambisonic" in layout_warning(names, 2)


def test_channels_without_a_place_beside_others_are_left_out():
    assert mix(("FL", "UNSD", "FR"), 2, [0.1, 1.0, 0.2]) == pytest.approx([0.1, 0.2])
    assert layout_warning(("FL", "UNSD", "FR"), 2).startswith("1 of 3 channels")


@pytest.mark.parametrize("layout", ["22.2", "hexadecagonal", "7.1.2", "cube", "9.1.6", "7.1(wide)"])
def test_every_place_that_ffmpeg_knows_is_heard_on_its_side(layout):
    channels = av.AudioLayout(layout).channels
    names = [channel.name for channel in channels]
    assert layout_warning(names, 2) is None
    for channel, (left, right) in zip(channels, mixing_matrix(names, 2).T.tolist(), strict=True):
        assert (left > right) == ("left" in channel.description)
        assert (right > left) == ("right" in channel.description)


def test_mono_and_stereo():
    assert mix(("FC",), 2, [0.7]) == pytest.approx([0.7, 0.7])
    assert mix(("FL", "FR"), 1, [0.2, 0.4]) == pytest.approx([0.3])
    assert mixing_matrix(("FL", "FR"), 2) is None


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(AudioError, match="cannot turn 2 channels into 6; ask for 1 or 2"):
        mixing_matrix(("FL", "FR"), 6)


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
