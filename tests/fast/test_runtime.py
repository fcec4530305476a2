from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from htdemucs.fast import keep_freed_memory, use_this_thread_only


def test_one_thread_is_set_for_the_calling_thread_alone():
    if "OpenMP" not in torch.__config__.parallel_info() or torch.get_num_threads() == 1:
        pytest.skip("one thread in any case")
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=use_this_thread_only) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        x = torch.randn(300, 300)
        assert torch.allclose(pool.submit(torch.mm, x, x).result(), x @ x, atol=1e-4)
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_keep_freed_memory_can_be_called_twice():
    keep_freed_memory()
    keep_freed_memory()
    assert torch.randn(1000, 1000).isfinite().all()
