from math import sqrt

import pytest
import torch

from htdemucs.audio.channels import mixing_matrix
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


def test_unknown_layouts_are_averaged():
    assert mix(("A", "B", "C"), 2, [0.3, 0.6, 0.0]) == pytest.approx([0.3, 0.3])
    assert mix(("A", "B", "C"), 1, [0.3, 0.6, 0.0]) == pytest.approx([0.3])


def test_mono_and_stereo():
    assert mix(("FC",), 2, [0.7]) == pytest.approx([0.7, 0.7])
    assert mix(("FL", "FR"), 1, [0.2, 0.4]) == pytest.approx([0.3])
    assert mixing_matrix(("FL", "FR"), 2) is None


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(AudioError, match="cannot turn 2 channels into 6; ask for 1 or 2"):
        mixing_matrix(("FL", "FR"), 6)
