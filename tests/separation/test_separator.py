import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import OLDER, TINY, awake, snr
from htdemucs import Bag, HTDemucs, HTDemucsConfig, ModelNotFoundError, Separator, save_model
from htdemucs.errors import ConfigError, SegmentTooLongError, SeparationError
from htdemucs.model.architectures import build
from htdemucs.separation import Normalization, measure

relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def joined(blocks):
    blocks = list(blocks)
    return {name: torch.cat([block[name] for block in blocks], dim=-1) for name in blocks[0]}


@relaxed
@given(
    length=st.integers(1, 1000),
    overlap=st.floats(0, 0.9),
    shifts=st.integers(0, 3),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_an_identity_model_gives_the_mixture_back(
    identity, length, overlap, shifts, batch_size, seed
):
    waveform = torch.randn(2, length) * 0.1 + 0.05
    separator = Separator(
        identity, overlap=overlap, shifts=shifts, batch_size=batch_size, seed=seed
    )
    stems = separator.separate(waveform, 1000)
    torch.testing.assert_close(stems["once"], waveform, rtol=1e-4, atol=1e-5)
    mono_mean = waveform.mean()
    expected = 2 * (waveform - mono_mean) + mono_mean  # normalised and de-normalised
    torch.testing.assert_close(stems["twice"], expected, rtol=1e-4, atol=1e-4)


@relaxed
@given(
    length=st.integers(1, 1000),
    cuts=st.integers(1, 1000),
    shifts=st.integers(0, 2),
)
def test_streaming_equals_separating_the_whole_to_the_bit(identity, length, cuts, shifts):
    waveform = torch.randn(2, length)
    separator = Separator(identity, shifts=shifts)
    whole = separator.separate(waveform, 1000)
    streamed = joined(separator.stream(list(waveform.split(cuts, dim=-1))))
    for name in whole:
        assert torch.equal(streamed[name], whole[name])


def test_streaming_a_real_network_equals_the_whole_to_the_bit(tiny_model):
    waveform = torch.randn(2, 30_000)
    separator = Separator(tiny_model, shifts=2, seed=5)
    whole = separator.separate(waveform, 8000)
    streamed = joined(separator.stream(list(waveform.split(777, dim=-1))))
    for name in whole:
        assert torch.equal(streamed[name], whole[name])


def test_batches_change_nothing_but_rounding(tiny_model):
    waveform = torch.randn(2, 30_000)
    one = Separator(tiny_model, batch_size=1).separate(waveform, 8000)
    four = Separator(tiny_model, batch_size=4).separate(waveform, 8000)
    for name in one:
        assert snr(one[name], four[name]) > 100


def test_every_segment_has_the_exact_length(identity):
    seen = []
    identity.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    Separator(identity, shifts=1).separate(torch.randn(2, 333), 1000)
    Separator(identity, segment=0.05).separate(torch.randn(2, 333), 1000)
    assert set(seen) == {100, 50}


def test_the_same_seed_gives_the_same_result_and_another_another(tiny_model):
    waveform = torch.randn(2, 12_000)
    first = Separator(tiny_model, shifts=2, seed=1).separate(waveform, 8000)
    torch.manual_seed(99)  # global randomness plays no part
    again = Separator(tiny_model, shifts=2, seed=1).separate(waveform, 8000)
    other = Separator(tiny_model, shifts=2, seed=2).separate(waveform, 8000)
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_shift_offsets_are_up_to_half_a_second(identity):
    offsets = Separator(identity, shifts=500).shift_offsets()
    assert min(offsets) >= 0
    assert max(offsets) <= 500
    assert len(set(offsets)) > 200


@pytest.mark.parametrize("sample_rate", [700, 1000, 1500, 4410])
def test_stems_have_the_waveform_s_rate_and_length(identity, sample_rate):
    t = torch.arange(4321) / sample_rate
    waveform = 0.5 * torch.sin(2 * torch.pi * 50 * t).expand(2, -1)
    stem = Separator(identity).separate(waveform, sample_rate)["once"]
    assert stem.shape == waveform.shape
    inside = slice(500, -500)
    assert snr(waveform[:, inside], stem[:, inside]) > 60


def test_mono_is_copied_to_both_channels(identity):
    waveform = torch.randn(500)
    stem = Separator(identity).separate(waveform, 1000)["once"]
    torch.testing.assert_close(stem, waveform.expand(2, -1), rtol=1e-4, atol=1e-5)


def test_silence_stays_silent(tiny_model):
    for stem in Separator(tiny_model, shifts=1).separate(torch.zeros(2, 9000), 8000).values():
        assert stem.isfinite().all()
        assert stem.abs().max() < 1e-6


def test_the_input_is_not_changed(tiny_model):
    waveform = torch.randn(2, 9000)
    copy = waveform.clone()
    Separator(tiny_model).separate(waveform, 8000)
    assert torch.equal(waveform, copy)


def test_only_the_wanted_stems(tiny_config):
    members = [awake(HTDemucs(tiny_config)).eval() for _ in range(4)]
    bag = Bag(members, torch.eye(4).tolist())
    waveform = torch.randn(2, 12_000)
    whole = Separator(bag).separate(waveform, 8000)
    calls = []
    for i, member in enumerate(members):
        member.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
    some = Separator(bag, stems=["vocals"]).separate(waveform, 8000)
    assert list(some) == ["vocals"]
    assert set(calls) == {3}
    assert torch.equal(some["vocals"], whole["vocals"])


def test_a_generator_needs_its_normalization(identity):
    waveform = torch.randn(2, 500)
    separator = Separator(identity)
    with pytest.raises(SeparationError, match="only once"):
        next(separator.stream(block for block in waveform.split(100, dim=-1)))
    blocks = (block for block in waveform.split(100, dim=-1))
    stems = joined(separator.stream(blocks, measure([waveform])))
    torch.testing.assert_close(stems["once"], waveform, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shifts", [0, 2])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.7])
def test_the_running_normalization_depends_on_the_samples_only(tiny_model, shifts, overlap):
    """It depends neither on the blocks nor, for finished samples, on later ones."""
    waveform = torch.randn(2, 30_000) + 0.1
    separator = Separator(tiny_model, shifts=shifts, overlap=overlap)
    whole = joined(separator.stream([waveform], "running"))
    pieces = (piece for piece in waveform.split([1, 7000, 23, 12_000, 10_976], dim=-1))
    for name, stem in joined(separator.stream(pieces, "running")).items():
        assert torch.equal(stem, whole[name])
    louder = torch.cat([waveform[:, :16_000], 50 * waveform[:, 16_000:]], dim=-1)
    for name, stem in joined(separator.stream([louder], "running")).items():
        assert torch.equal(stem[:, :7000], whole[name][:, :7000])
    rest = joined(separator.stream([waveform], "running", skip=20_000))
    for name, stem in rest.items():
        assert torch.equal(stem, whole[name][:, 20_000:])


def test_the_running_normalization_is_soon_that_of_the_whole(tiny_model, identity):
    waveform = 0.1 * torch.randn(2, 60_000)
    separator = Separator(tiny_model)
    whole, running = (joined(separator.stream([waveform], level)) for level in (None, "running"))
    for name, stem in whole.items():
        assert snr(stem[:, 30_000:], running[name][:, 30_000:]) > 50
    for loud in (1e-6, 1.0, 1e6):
        signal = loud * (torch.randn(2, 1000) + 3)
        stems = joined(Separator(identity, shifts=1).stream([signal], "running"))
        torch.testing.assert_close(stems["once"], signal, rtol=1e-4, atol=1e-5 * loud)
    silence = joined(separator.stream([torch.zeros(2, 9000)], "running"))
    assert all(stem.isfinite().all() for stem in silence.values())


def test_stream_holds_no_more_than_a_few_segments(identity):
    """Stems are yielded during the track, not at its end."""
    waveform = torch.randn(2, 10_000)
    yielded = 0
    behind = []

    def blocks():
        for i, block in enumerate(waveform.split(50, dim=-1)):
            behind.append(50 * i - yielded)
            yield block

    for stems in Separator(identity).stream(blocks(), measure([waveform])):
        yielded += stems["once"].shape[-1]
    assert yielded == 10_000
    assert max(behind) <= 250  # a segment is 100, and stride and batch come on top


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"overlap": 1.0}, SeparationError, "overlap"),
        ({"overlap": -0.1}, SeparationError, "overlap"),
        ({"overlap": float("nan")}, SeparationError, "overlap"),
        ({"shifts": -1}, SeparationError, "shifts"),
        ({"batch_size": 0}, SeparationError, "batch_size"),
        ({"device": "gameboy"}, ConfigError, "gameboy"),
        ({"segment": 0}, SeparationError, "segment"),
        ({"segment": "soon"}, SeparationError, "segment"),
        ({"segment": float("nan")}, SeparationError, "segment"),
        ({"segment": 1e308}, SeparationError, "segment"),
        ({"segment": 8}, SegmentTooLongError, "1 s"),
        ({"stems": ["guitar"]}, SeparationError, "guitar"),
        ({"stems": []}, SeparationError, "stem"),
    ],
)
def test_impossible_options_are_named(tiny_model, options, error, match):
    with pytest.raises(error, match=match):
        Separator(tiny_model, **options)


@pytest.mark.parametrize(
    ("waveform", "match"),
    [
        (torch.zeros(2, 0), r"\(C, L\)"),
        (torch.zeros(1, 2, 100), r"\(C, L\)"),
        (torch.zeros(3, 100), "channels"),
        (torch.zeros(2, 100, dtype=torch.int16), "floats"),
        (torch.full((2, 100), float("nan")), "finite"),
    ],
)
def test_impossible_waveforms_are_named(tiny_model, waveform, match):
    with pytest.raises(SeparationError, match=match):
        Separator(tiny_model).separate(waveform, 8000)


def test_no_split_takes_what_fits_and_refuses_the_rest(tiny_model):
    separator = Separator(tiny_model, split=False)
    fits = torch.randn(2, 8000)
    assert torch.equal(
        separator.separate(fits, 8000)["bass"], Separator(tiny_model).separate(fits, 8000)["bass"]
    )
    with pytest.raises(SegmentTooLongError, match="allow splitting"):
        separator.separate(torch.randn(2, 8001), 8000)


def test_a_shorter_segment_is_computed_shorter():
    model = HTDemucs(HTDemucsConfig(**TINY)).eval()
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    Separator(model, segment=0.25).separate(torch.randn(2, 8000), 8000)
    assert set(seen) == {2000}


def test_models_by_name_and_path(tmp_path, tiny_model):
    save_model(tiny_model, tmp_path / "tiny")
    waveform = torch.randn(2, 5000)
    expected = Separator(tiny_model).separate(waveform, 8000)
    for name in (tmp_path / "tiny", str(tmp_path / "tiny")):
        separator = Separator(name, device="cpu")
        assert separator.origin.name == str(name)
        stems = separator.separate(waveform, 8000)
        assert all(torch.equal(stems[stem], expected[stem]) for stem in expected)
    with pytest.raises(ModelNotFoundError, match="did you mean htdemucs"):
        Separator("htdemuc")


@pytest.mark.parametrize("sample_rate", [8000, 8000.0, np.int64(8000), np.float32(8000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_arrays_and_whole_floats(identity, sample_rate, dtype):
    waveform = np.random.default_rng(0).normal(size=(2, 3000)).astype(dtype)
    stems = Separator(identity).separate(waveform, sample_rate)
    expected = Separator(identity).separate(torch.from_numpy(waveform).float(), 8000)
    for name, stem in stems.items():
        assert isinstance(stem, np.ndarray)
        np.testing.assert_array_equal(stem, expected[name].numpy())


@pytest.mark.parametrize(
    ("waveform", "sample_rate", "match"),
    [
        (torch.zeros(2, 10), 22050.5, "sample_rate must be a whole number"),
        (torch.zeros(2, 10), "44100", "sample_rate must be a whole number"),
        (torch.zeros(2, 10), None, "sample_rate must be a whole number"),
        (torch.zeros(2, 10), float("nan"), "sample_rate must be a whole number"),
        (torch.zeros(2, 10), -1, "at least 1"),
        (np.zeros((10, 2)), 8000, "transpose it"),
        (np.zeros((2, 10), dtype=np.int16), 8000, "floats, not int16; divide by 32768"),
        ("song.wav", 8000, "a tensor or array, not str"),
        (None, 8000, "a tensor or array, not NoneType"),
        ([[object()]], 8000, "a tensor or array, not list"),
    ],
)
def test_other_inputs_are_one_clear_error(identity, waveform, sample_rate, match):
    with pytest.raises(SeparationError, match=match):
        Separator(identity).separate(waveform, sample_rate)


def test_an_endless_track_is_separated_while_it_comes(identity):
    """With a normalization, stems are yielded soon after the input."""
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield torch.full((2, 50), float(len(read)))

    stream = Separator(identity).stream(endless(), Normalization(0.0, 1.0))
    pieces, length = [], 0
    while length < 1000:
        pieces.append(next(stream)["twice"])
        length += pieces[-1].shape[-1]
        assert 50 * len(read) <= length + 3 * Separator(identity).segment_length
    stream.close()
    expected = torch.arange(1, len(read) + 1.0).repeat_interleave(50)[:length]
    torch.testing.assert_close(torch.cat(pieces, dim=-1)[0], 2 * expected)


@pytest.fixture
def torch_defaults():
    """Restore the defaults of torch after the test."""
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


DEFAULTS = {
    "float64": lambda: torch.set_default_dtype(torch.float64),
    "bfloat16": lambda: torch.set_default_dtype(torch.bfloat16),
    "meta": lambda: torch.set_default_device("meta"),
}


@pytest.mark.usefixtures("torch_defaults")
@pytest.mark.parametrize("default", DEFAULTS)
def test_other_defaults_of_torch_are_one_clear_error(tiny_model, default):
    separator, waveform = Separator(tiny_model), torch.randn(2, 3000)
    window = torch.randn(2, separator.window_length)
    DEFAULTS[default]()
    for call in (
        lambda: Separator(tiny_model),
        lambda: separator.separate(waveform, 8000),
        lambda: next(separator.stream([waveform])),
        lambda: separator.run_network(window),
    ):
        with pytest.raises(ConfigError, match=f"{default}.*by default.*call torch.set_default"):
            call()


@pytest.mark.parametrize("kind", ["HTDemucs", "HDemucs", "Demucs"])
def test_modes_of_torch_around_a_separation_change_nothing(tiny_model, kind):
    model = tiny_model if kind == "HTDemucs" else build(OLDER[kind]).eval()
    waveform = torch.randn(2, 3000)

    def separated():
        return joined([Separator(model, precision="fp32").separate(waveform, 8000)])

    expected = separated()
    modes = [torch.inference_mode(), torch.enable_grad(), torch.autocast("cpu", torch.bfloat16)]
    for mode in modes:
        with mode:
            stems = separated()
        assert all(torch.equal(stem, expected[name]) for name, stem in stems.items()), mode
        assert not any(stem.requires_grad for stem in stems.values())
    torch.use_deterministic_algorithms(True)
    try:
        stems = separated()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(stem, expected[name]) for name, stem in stems.items())
