import pytest
import torch
from torch import nn

from htdemucs.training.ema import ExponentialMovingAverage


def test_an_average_forgets_its_start():
    model = nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(0.5)
    for value in (4.0, 8.0, 16.0):
        nn.init.constant_(model.weight, value)
        average.update(model)
    expected = (4 * 0.25 + 8 * 0.5 + 16) / 1.75
    assert average.parameters()["weight"].item() == pytest.approx(expected)
    again = ExponentialMovingAverage(0.5)
    again.load_state_dict(average.state_dict(), torch.device("cpu"))
    assert torch.equal(again.parameters()["weight"], average.parameters()["weight"])
