import copy
import math
import shutil
import sys

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import awake, snr
from htdemucs.errors import ConfigError
from htdemucs.fast import kernels
from htdemucs.fast.layers import PackedDConv
from htdemucs.model.layers import DConv, GlobalNorm, SpectralDConv

TYPES = {torch.float32: 100, torch.bfloat16: 36}  # element type -> least agreement in dB
property_test = settings(
    max_examples=settings.default.max_examples // 6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def types(build):
    return TYPES if build in kernels.WITH_BF16 else {torch.float32: TYPES[torch.float32]}


def test_kernels_exist_where_a_compiler_does():
    if sys.platform != "linux" or not kernels.cpu_has("avx2") or not shutil.which("c++"):
        pytest.skip("no compiler, or no kernels for this kind of machine")
    assert kernels.library() is not None


@pytest.fixture
def choosing(monkeypatch):
    """Return `kernels.build` for a value of the environment variable."""

    def build(choice):
        monkeypatch.setenv(kernels.BUILD_VARIABLE, choice)
        return kernels.build.__wrapped__()

    return build


def test_the_environment_chooses_a_build(choosing):
    best = kernels.build()
    runs = [
        name
        for name, feature in kernels.BUILDS.items()
        if kernels.cpu_has(feature) and kernels._path(name).exists()
    ]
    assert best is None or best == runs[0]
    assert choosing("") == best
    assert choosing("none") is None
    if best:
        assert choosing(runs[-1]) == runs[-1]


def test_a_build_that_does_not_run_here_is_named(choosing):
    with pytest.raises(ConfigError, match=r"HTDEMUCS_KERNELS must be .*none, not 'sse'"):
        choosing("sse")


@property_test
@given(
    st.integers(1, 2), st.integers(1, 200), st.integers(1, 300), st.integers(1, 3),
    st.sampled_from([16, 32, 48, 64, 80, 128]),
)  # fmt: skip
def test_attention_equals_torch(each_build, batch, queries, keys, heads, size):
    for dtype, least in types(each_build).items():
        q = (2 * torch.randn(batch, queries, heads * size)).to(dtype)
        k, v = torch.randn(batch, keys, 2 * heads * size).to(dtype).chunk(2, dim=-1)
        split = [x.unflatten(-1, (heads, size)).transpose(1, 2).float() for x in (q, k, v)]
        expected = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        assert snr(expected, kernels.attention(q, k, v, heads)) > least


def test_attention_is_exact_when_scores_are_far_apart(each_build):
    q = torch.full((1, 3, 16), 30.0)
    k = torch.zeros(1, 70, 16)
    k[:, 5], k[:, 6] = 30.0, -30.0
    v = torch.randn(1, 70, 16)
    assert torch.allclose(kernels.attention(q, k, v, 1), v[:, 5:6].expand(1, 3, 16))


@property_test
@given(st.integers(1, 200), st.floats(-1000, 1000))
def test_attention_is_exact_when_all_scores_are_far_from_zero(each_build, keys, level):
    q, k, v = torch.ones(1, 9, 16), torch.randn(1, keys, 16), torch.randn(1, keys, 16)
    k += level / 16
    expected = F.scaled_dot_product_attention(q, k, v)
    assert snr(expected, kernels.attention(q, k, v, 1)) > 60


@pytest.mark.parametrize("level", [1e3, 3e4, 1e5, 3e5, 1e6])
def test_attention_is_exact_when_scores_are_large(each_build, level):
    torch.manual_seed(0)
    for dtype in types(each_build):
        q, k = ((level * torch.randn(1, 200, 32)).to(dtype) for _ in range(2))
        v = torch.randn(1, 200, 32).to(dtype)
        expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
        assert torch.allclose(kernels.attention(q, k, v, 1).double(), expected, atol=1e-6)


COMPRESSIONS = st.sampled_from([1, 1.1, 2, 3, 5.5, 8, 16])  # odd hidden channels among them


@property_test
@given(
    st.integers(1, 2), st.integers(1, 40), st.integers(1, 9), st.sampled_from([16, 48, 96, 384]),
    COMPRESSIONS, st.integers(1, 6), st.booleans(),
)  # fmt: skip
def test_spectral_dconv_equals_the_reference(
    each_build, batch, frames, bins, channels, compression, depth, glu
):
    torch.manual_seed(0)
    dconv = awake(SpectralDConv(channels, compression, depth, 1e-3)).requires_grad_(False)
    for dtype, least in types(each_build).items():
        width = 2 * channels if glu else channels
        x = torch.randn(batch, frames, bins, width).to(dtype)
        y = F.glu(x.float(), dim=-1) if glu else x.float()
        expected = dconv(y.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        packed = PackedDConv(dconv, channels, rows=True, dtype=dtype)
        assert snr(expected, packed(x, glu=glu)) > least


@property_test
@given(
    st.integers(1, 2), st.integers(1, 1500), st.sampled_from([16, 48, 384]), COMPRESSIONS,
    st.integers(1, 6), st.booleans(),
)  # fmt: skip
@example(1, 1100, 16, 3, 6, False)  # a piece with all its neighbours: the scratch memory is full
def test_time_dconv_equals_the_reference(
    each_build, batch, length, channels, compression, depth, glu
):
    torch.manual_seed(0)
    dconv = awake(DConv(channels, compression, depth, 1e-3)).requires_grad_(False)
    for dtype, least in types(each_build).items():
        x = torch.randn(batch, 1, length, 2 * channels if glu else channels).to(dtype)
        y = F.glu(x.float(), dim=-1) if glu else x.float()
        expected = dconv(y[:, 0].mT).mT[:, None]
        packed = PackedDConv(dconv, channels, rows=False, dtype=dtype)
        assert snr(expected, packed(x, glu=glu)) > least


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("part", ["squeeze", "expand"])
@pytest.mark.parametrize("mean", [100, 1000])
def test_dconv_is_exact_when_its_norms_have_a_large_mean(each_build, part, rows, mean):
    torch.manual_seed(0)
    dconv = awake((SpectralDConv if rows else DConv)(48, 8, 2, 1e-3)).requires_grad_(False)
    for layer in dconv:
        getattr(layer, part).bias += mean
    x = torch.randn(1, 40, 4, 48) if rows else torch.randn(1, 1, 1500, 48)
    exact = copy.deepcopy(dconv).double()
    y = x.double()
    expected = exact(y.permute(0, 3, 2, 1)).permute(0, 3, 2, 1) if rows else exact(y[0].mT).mT[None]
    packed = PackedDConv(dconv, 48, rows=rows, dtype=torch.float32)
    assert snr(expected, packed(x)) > (95 if mean == 100 else 75)


def test_the_number_of_threads_changes_nothing(each_build):
    dconv = awake(DConv(48, 8, 2, 1e-3))
    x, tokens = torch.randn(1, 1, 3000, 48), torch.randn(1, 300, 64)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        packed = PackedDConv(dconv, 48, rows=False, dtype=torch.float32)
        results.append((packed(x.clone()), kernels.attention(tokens, tokens, tokens, 2)))
    torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@property_test
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 300), st.integers(0, 3))
def test_glu_equals_torch_and_its_margins_are_silent(each_build, batch, frames, bins, tail):
    for dtype, least in types(each_build).items():
        x, table = torch.randn(batch, frames, bins, 64).to(dtype), torch.randn(bins, 32)
        y = kernels.glu(x, 2, tail, table)
        assert snr(F.glu(x.float(), dim=-1) + table, y[:, :, 2 : 2 + bins]) > least
        assert not y[:, :, :2].any()
        assert not y[:, :, 2 + bins :].any()
        assert y.shape[2] == bins + tail + 4


def test_glu_is_exact_when_gates_are_far_from_zero(each_build):
    x = torch.tensor([-1e30, -200.0, -90.0, 0.0, 90.0, 200.0, 1e30, 20.0]).repeat(4)
    gated = kernels.glu(torch.cat([torch.ones(32), x]).view(1, 1, 1, 64))
    assert torch.allclose(gated.flatten(), x.sigmoid(), rtol=1e-6, atol=1e-30)


MARKED = torch.tensor([0x7FC001FF, -0x400001], dtype=torch.int32).view(torch.float32).tolist()
NOT_FINITE = [float("nan"), *MARKED, float("inf"), -float("inf")]  # a NaN has bits to spare


@pytest.mark.parametrize("bad", NOT_FINITE, ids=["nan", "nan marked", "-nan marked", "inf", "-inf"])
def test_numbers_that_are_not_finite_stay_so(each_build, bad):
    """A result may be finite only where the reference is."""

    def check(result, expected):
        assert not (result.isfinite() & ~expected.isfinite()).any()
        assert not result.isfinite().all()

    gain, line = torch.ones(32), awake(DConv(16, 3, 2, 1e-3)).requires_grad_(False)
    rows = awake(SpectralDConv(16, 3, 2, 1e-3)).requires_grad_(False)
    for dtype in types(each_build):
        gates = [37] if math.isnan(bad) else []  # an infinite one is open or closed
        for at in [0, *gates]:
            x = torch.randn(1, 1, 40, 64)
            x[0, 0, 3, at] = bad
            check(kernels.glu(x.to(dtype)), F.glu(x, dim=-1))

        x, y = torch.randn(1, 9, 32), torch.randn(1, 9, 32)
        y[0, 2, 31] = bad
        check(kernels.layer_norm(y, gain, gain, dtype), F.layer_norm(y, (32,)))
        kernels.add_and_norm(x, y.to(dtype), gain, gain)
        assert not x.isfinite().any()

        for i in range(3):
            parts = [torch.randn(1, n, 32) for n in (50, 400, 400)]
            parts[i][0, 4, 5] = bad
            result = kernels.attention(*(part.to(dtype) for part in parts), heads=2)
            split = [part.unflatten(-1, (2, 16)).transpose(1, 2) for part in parts]
            check(result, F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))

        x = torch.randn(1, 1, 600, 16)
        x[0, 0, 599, 3] = bad
        packed = PackedDConv(line, 16, rows=False, dtype=dtype)
        check(packed(x.to(dtype)), line(x[:, 0].mT).mT[:, None])
        x = torch.randn(1, 5, 4, 16)
        x[0, 2, 1, 3] = bad
        packed = PackedDConv(rows, 16, rows=True, dtype=dtype)
        check(packed(x.to(dtype)), rows(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1))


def test_sums_that_overflow_are_not_finite(each_build):
    gain = torch.ones(32)
    dconv = awake(DConv(16, 4, 1, 1e-3)).requires_grad_(False)
    for dtype in types(each_build):
        x = 1e30 * torch.randn(1, 9, 32)
        assert not kernels.layer_norm(x, gain, gain, dtype).isfinite().any()
        kernels.add_and_norm(x, torch.zeros(1, 9, 32, dtype=dtype), gain, gain)
        assert not x.isfinite().any()
        x = (1e30 * torch.randn(1, 1, 30, 16)).to(dtype)
        assert not PackedDConv(dconv, 16, rows=False, dtype=dtype)(x).isfinite().any()
        scores = (1e30 * torch.ones(1, 5, 16)).to(dtype)
        assert not kernels.attention(scores, -scores, torch.ones_like(scores), 1).isfinite().any()


def test_too_little_memory_is_an_error(pytestconfig):
    if kernels.library() is None:
        pytest.skip("the kernels were not compiled")
    if pytestconfig.getoption("--kernels"):
        pytest.skip("with AddressSanitizer this ends the process")
    x = torch.ones(1, 1, 16)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory: attention needs more"):
        kernels.attention(x, x.expand(1, 1 << 44, 16), x.expand(1, 1 << 44, 16), 1)


@property_test
@given(st.integers(1, 2), st.integers(1, 150), st.sampled_from([16, 64, 512]))
def test_norms_equal_the_reference(each_build, batch, tokens, channels):
    gain, offset = torch.randn(channels), torch.randn(channels)
    norm = GlobalNorm(channels)
    norm.weight.data, norm.bias.data = gain, offset
    for dtype, least in types(each_build).items():
        x = 3 + torch.randn(batch, tokens, channels)
        y = torch.randn(batch, tokens, channels).to(dtype)
        expected = F.layer_norm(x, (channels,), gain, offset)
        assert snr(expected, kernels.layer_norm(x, gain, offset, dtype)) > least

        total = x.clone()
        kernels.add(total, y)
        assert torch.allclose(total, x + y)
        kernels.add_and_norm(total, y, gain, offset)
        assert snr(norm((x + 2 * y.float()).mT).mT.detach(), total) > 95


@pytest.mark.parametrize(("mean", "least"), [(100, 95), (1000, 78)])
def test_norms_are_exact_when_the_mean_is_large(each_build, mean, least):
    torch.manual_seed(0)
    x, ones, zeros = mean + torch.randn(1, 150, 64), torch.ones(64), torch.zeros(64)
    expected = F.layer_norm(x.double(), (64,))
    assert snr(expected, kernels.layer_norm(x, ones, zeros, torch.float32)) > least
    total = x.clone()
    kernels.add_and_norm(total, torch.zeros_like(x), ones, zeros)
    assert snr(F.layer_norm(x.double(), x.shape[1:]), total) > least
