"""With a torch that is built with CUDA, and no GPU (see benchmarks/results/gpu.md)."""

import pytest
import torch

from benchmarks import walk

WALKS = walk.walks(channels=8, seconds=0.5)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")
@pytest.mark.parametrize("name", WALKS)
def test_nothing_mixes_devices(name):
    counts = WALKS[name]()
    assert counts.kernels > 100
    if name.startswith(("HTDemucs, ", "bag")):
        assert counts.waits < 30
