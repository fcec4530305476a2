import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htdemucs.separation.normalization import CHUNK, measure


@given(cuts=st.integers(1, 5 * CHUNK), length=st.integers(1, 3 * CHUNK))
def test_the_result_does_not_depend_on_the_blocks(cuts, length):
    track = torch.randn(2, length, generator=torch.Generator().manual_seed(1)) + 0.3
    assert measure(track.split(max(cuts, length // 50 + 1), dim=-1)) == measure([track])


def test_mean_and_deviation_of_the_mono_mix():
    track = 0.1 * torch.randn(2, 100_000) + 0.02
    found = measure([track])
    mono = track.mean(0).double()
    assert found.mean == pytest.approx(float(mono.mean()), rel=1e-6)
    assert found.std == pytest.approx(float(mono.std()), rel=1e-6)
    assert found.length == 100_000


def test_undo_is_the_inverse_of_apply():
    track = torch.randn(2, 1000) + 5
    level = measure([track])
    torch.testing.assert_close(level.undo(level.apply(track)), track)
    assert float(level.apply(track).mean(0).mean()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("track", [torch.zeros(2, 100), torch.ones(2, 1), torch.zeros(2, 0)])
def test_silence_and_single_samples_stay_finite(track):
    level = measure([track])
    assert level.apply(torch.zeros(2, 3)).isfinite().all()
