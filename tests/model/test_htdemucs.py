import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import TINY, awake, snr
from htdemucs import HTDemucs, HTDemucsConfig

VARIANTS = [
    {},
    {"audio_channels": 1},
    {"sources": ["vocals"]},
    {"sources": list("abcdef"), "bottom_channels": 0},
    {"depth": 1, "t_heads": 4},
    {"depth": 3, "growth": 3, "n_fft": 1024},
    {"dconv_mode": 1},
    {"dconv_depth": 0},
    {"dconv_depth": 3, "dconv_comp": 4},
    {"t_layers": 0, "bottom_channels": 0},
    {"t_layers": 5},
    {"freq_emb": 0},
    {"rescale": 0},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_every_variant_gives_each_source_the_mixture_s_shape(fields):
    config = HTDemucsConfig(**TINY | fields)
    model = HTDemucs(config).eval()
    mixture = torch.randn(2, config.audio_channels, 3001)
    with torch.no_grad():
        sources = model(mixture)
    assert sources.shape == (2, len(config.sources), config.audio_channels, 3001)
    assert sources.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 1200))
def test_any_length_from_one_sample_up(length):
    model = _shared_model()
    with torch.no_grad():
        sources = model(torch.randn(1, 2, length))
    assert sources.shape[-1] == length
    assert sources.isfinite().all()


def _shared_model(cache=[]):  # noqa: B006
    if not cache:
        cache.append(HTDemucs(HTDemucsConfig(**TINY)).eval())
    return cache[0]


def test_one_mono_sample_is_finite():
    model = HTDemucs(HTDemucsConfig(**TINY | {"audio_channels": 1})).eval()
    with torch.no_grad():
        assert model(torch.ones(1, 1, 1)).isfinite().all()


def test_silence_is_finite(tiny_model):
    with torch.no_grad():
        assert tiny_model(torch.zeros(1, 2, 8000)).isfinite().all()


def test_core_and_stft_make_up_the_forward_pass(tiny_model):
    mixture = torch.randn(2, 2, 5000)
    with torch.no_grad():
        time, spectral = tiny_model.core(mixture, tiny_model.spectrogram(mixture))
        whole = time + tiny_model.spectrogram.inverse(spectral, 5000)
        torch.testing.assert_close(whole, tiny_model(mixture), rtol=0, atol=0)
    assert time.shape == (2, 4, 2, 5000)
    assert spectral.shape == (2, 4, 4, 256, 40)


def test_items_of_a_batch_do_not_see_each_other(tiny_model):
    mixture = torch.randn(3, 2, 4000)
    with torch.no_grad():
        together = tiny_model(mixture)
        alone = torch.cat([tiny_model(item[None]) for item in mixture])
    assert snr(alone, together) > 100


def test_the_level_of_the_mixture_scales_the_sources(tiny_model):
    """Inputs are normalised, so a louder mixture gives the same sources, louder."""
    mixture = torch.randn(1, 2, 8000)
    with torch.no_grad():
        assert snr(8 * tiny_model(mixture), tiny_model(8 * mixture)) > 60


def test_forward_changes_neither_model_nor_input(tiny_model):
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    attributes = set(vars(tiny_model))
    mixture = torch.randn(1, 2, 4000)
    copy = mixture.clone()
    with torch.no_grad():
        tiny_model(mixture)
    torch.testing.assert_close(mixture, copy, rtol=0, atol=0)
    assert set(vars(tiny_model)) == attributes
    for name, value in tiny_model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_every_parameter_reaches_the_output(tiny_config):
    model = awake(HTDemucs(tiny_config))
    model(torch.randn(1, 2, 8000)).square().sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A normalisation follows these biases and takes any constant away again.
    assert [n for n in dead if not n.endswith("bias")] == []


def test_dropout_works_only_while_training(tiny_config):
    model = awake(HTDemucs(HTDemucsConfig(**TINY | {"t_dropout": 0.5})))
    mixture = torch.randn(1, 2, 4000)
    with torch.no_grad():
        assert not torch.equal(model.train()(mixture), model(mixture))
        torch.testing.assert_close(model.eval()(mixture), model(mixture), rtol=0, atol=0)


def test_the_same_seed_gives_the_same_parameters(tiny_config):
    torch.manual_seed(7)
    first = HTDemucs(tiny_config).state_dict()
    torch.manual_seed(7)
    for name, value in HTDemucs(tiny_config).state_dict().items():
        assert torch.equal(value, first[name])


def test_released_sizes_have_the_published_number_of_parameters():
    with torch.device("meta"):
        four = HTDemucs()
        six = HTDemucs(HTDemucsConfig(sources=list("abcdef"), bottom_channels=0))
    assert sum(p.numel() for p in four.parameters()) == 41_984_456
    assert sum(p.numel() for p in six.parameters()) == 27_414_996


def test_an_empty_network_draws_nothing_and_has_every_constant():
    config = HTDemucsConfig(**TINY)
    before = torch.get_rng_state()
    empty = HTDemucs.empty(config)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = HTDemucs(config)
    assert empty.config == config
    assert [(n, p.shape) for n, p in empty.named_parameters()] == [
        (n, p.shape) for n, p in drawn.named_parameters()
    ]
    for (name, ours), (_, theirs) in zip(empty.named_buffers(), drawn.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    empty.load_state_dict(drawn.state_dict())
    mixture = torch.randn(1, 2, 4000)
    with torch.no_grad():
        assert torch.equal(empty.eval()(mixture), drawn.eval()(mixture))
