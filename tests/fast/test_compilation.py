"""Networks compiled by torch. Its compiler takes a minute, so only a slow test runs all of it."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers import TINY, awake, snr
from htdemucs import Bag, HTDemucs, HTDemucsConfig, Separator
from htdemucs.errors import ConfigError
from htdemucs.fast import prepare
from htdemucs.fast.runtime import compile_function

# torch's compiler warns about its own parts.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


SMALL = TINY | {"depth": 1, "dconv_depth": 1}  # tracing takes seconds for every few layers


@pytest.fixture
def network():
    return awake(HTDemucs(HTDemucsConfig(**SMALL))).eval()


@pytest.fixture
def traced(monkeypatch):
    """Let torch trace networks but not compile them; the traced operations run one by one."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def test_a_compiled_network_is_the_same_network(traced, network):
    ready = prepare(network, "fp32", compiled=True)
    for count in (1, 3, 2):
        mixture = torch.randn(count, 2, network.config.segment_length)
        with torch.no_grad():
            assert snr(network(mixture), ready(mixture)) > 100


def test_the_members_of_a_bag_are_compiled(traced, network):
    bag = Bag([network, awake(HTDemucs(HTDemucsConfig(**SMALL))).eval()])
    ready = prepare(bag, "fp32", compiled=True)
    mixture = torch.randn(1, 2, network.config.segment_length)
    with torch.no_grad():
        assert snr(bag(mixture), ready(mixture)) > 100


def test_the_separator_has_an_option_to_compile(traced, network):
    waveform = torch.randn(2, 3 * network.config.segment_length)
    plain, compiled = Separator(network), Separator(network, compiled=True, batch_size=2)
    expected = plain.separate(waveform, network.sample_rate)
    stems = compiled.separate(waveform, network.sample_rate)
    assert all(snr(expected[name], stems[name]) > 80 for name in expected)
    assert plain.settings() != compiled.settings()


def test_a_failure_to_compile_is_one_line(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    ready = compile_function(lambda x: x + 1)
    with pytest.raises(ConfigError, match="do not compile") as caught:
        ready(torch.zeros(1))
    assert "\n" not in str(caught.value)


def test_compiled_networks_are_kept_in_the_user_s_cache(tmp_path, forked):
    """In a process of its own: torch's compiler sets the folder when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}
    code = (
        "import os; from htdemucs.fast.runtime import compile_function; compile_function(abs); "
        "print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(answer.stdout.strip()) == tmp_path / "htdemucs" / "compiled"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_whole_compiler_gives_the_same_network(monkeypatch, network, tmp_path, precision):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    ready = prepare(network, precision, compiled=True)
    mixture = torch.randn(2, 2, network.config.segment_length)
    with torch.no_grad():
        assert snr(network(mixture), ready(mixture)) > (100 if precision == "fp32" else 30)
    assert any(tmp_path.iterdir())
