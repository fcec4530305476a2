import pytest
import torch
from torch import nn

from helpers import awake, snr
from htdemucs import (
    CheckpointError,
    HDemucsConfig,
    HTDemucsConfig,
    Separator,
    load_model,
    save_model,
)
from htdemucs.errors import SeparationError
from htdemucs.fast.network import supports
from htdemucs.model.architectures import build
from htdemucs.separation import runner
from htdemucs.separation.runner import Pending, Runner, _Output, default_batch_size


class LittleMemory(nn.Module):
    """Has memory for `most` items at once."""

    def __init__(self, network, most, error):
        super().__init__()
        self.network, self.most, self.error, self.sizes = network, most, error, []

    def forward(self, mixture):
        self.sizes.append(len(mixture))
        if len(mixture) > self.most:
            raise self.error
        return self.network(mixture)


def with_little_memory(monkeypatch, most, error=None):
    made = []

    def prepare_bag(bag, precision, compiled):
        made.append(LittleMemory(bag.members[0], most, error or torch.OutOfMemoryError("full")))
        return bag.map_members(lambda _: made[-1])

    monkeypatch.setattr(runner, "prepare_bag", prepare_bag)
    return made


def test_batches_are_halved_until_they_fit(monkeypatch, tiny_model):
    waveform = torch.randn(2, 50_000)
    expected = Separator(tiny_model, precision="fp32").separate(waveform, 8000)
    made = with_little_memory(monkeypatch, most=2)
    separator = Separator(tiny_model, batch_size=7, precision="fp32")
    stems = separator.separate(waveform, 8000)
    assert made[0].sizes[:3] == [7, 3, 1]
    assert separator.batch_size == 1
    for name, stem in stems.items():
        assert snr(expected[name], stem) > 100


def test_too_little_memory_for_one_segment_on_a_cpu_is_an_error(monkeypatch, tiny_model):
    with_little_memory(monkeypatch, most=0)
    with pytest.raises(SeparationError, match="cpu has too little memory for one segment"):
        Separator(tiny_model).separate(torch.randn(2, 9000), 8000)


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
        "could not create a primitive",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 66060288 bytes",
    ],
)
def test_a_full_memory_of_the_cpu_makes_batches_smaller(monkeypatch, tiny_model, message):
    made = with_little_memory(monkeypatch, most=1, error=RuntimeError(message))
    Separator(tiny_model, batch_size=4).separate(torch.randn(2, 30_000), 8000)
    assert made[0].sizes[0] == 4
    assert made[0].sizes[-1] == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("full"), "too little memory for one segment"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), "too little memory"),
        (NotImplementedError("Output > 65536 not supported. As a fix, ..."), "(Output > 65536 not"),
    ],
)
def test_the_cpu_takes_over_from_a_device_that_cannot_run_the_network(
    monkeypatch, tiny_model, error, reason
):
    made = with_little_memory(monkeypatch, most=0)
    run = Runner(tiny_model, "fp32", 2, 8000)
    run.device = torch.device("meta")  # any that is not the CPU
    monkeypatch.setattr(run, "_prepared", run._prepared.map_members(lambda _: Refusing(error)))
    mixture = torch.randn(1, 2, 8000)
    monkeypatch.setattr(runner, "prepare_bag", lambda bag, precision, compiled: bag)
    monkeypatch.setattr(runner, "choose_precision", lambda model, wanted: f"chosen for {wanted}")
    with torch.no_grad():
        expected = tiny_model(mixture)
        with pytest.warns(UserWarning, match="continuing on the CPU") as warned:
            output = run.submit(mixture, 8000).result()
    assert reason in str(warned[0].message)
    assert torch.equal(output, expected)
    assert run.device.type == "cpu"
    assert run.batch_size == 1
    assert run.precision == "chosen for fp32"
    assert len(made) == 1


def test_after_a_change_to_the_cpu_the_settings_stay_the_same(monkeypatch, tiny_model):
    separator = Separator(tiny_model, precision="bf16", shifts=0)
    before, run = separator.settings(), separator._runner
    run.device = torch.device("meta")  # any that is not the CPU
    refusing = Refusing(torch.OutOfMemoryError("full"))
    run._prepared = run._prepared.map_members(lambda _: refusing)
    with pytest.warns(UserWarning, match="continuing on the CPU"):
        separator.separate(torch.randn(2, 3000), 8000)
    assert run.precision == "fp32"
    assert separator.settings() == before


def test_segments_of_a_running_track_do_not_wait_for_a_batch(monkeypatch, tiny_model):
    """As on a GPU, whose batches are larger by default."""
    monkeypatch.setattr(runner, "default_batch_size", lambda *_: 16)
    separator, read = Separator(tiny_model, shifts=0), []
    blocks = (read.append(1) or torch.randn(2, 1000) for _ in range(60))
    next(separator.stream(blocks, "running"))
    assert len(read) < 12  # a segment has 8
    assert separator.batch_size == 16


class Overflowing(nn.Module):
    """Returns values that are not finite for loud items."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, mixture):
        output = self.network(mixture).clone()
        output[mixture.abs().amax((1, 2)) > 4, 0, 0, 5] = torch.nan
        return output


def test_outputs_that_are_not_finite_are_computed_by_the_reference(monkeypatch, tiny_model):
    monkeypatch.setattr(
        runner, "prepare_bag", lambda bag, precision, compiled: bag.map_members(Overflowing)
    )
    run = Runner(tiny_model, "fp32", 2, 8000)
    mixture = torch.randn(2, 2, 8000).clamp(-3, 3)
    mixture[1, 0, 100] = 5
    with pytest.warns(UserWarning, match="computes it again in fp32"):
        output = run.submit(mixture, 8000).result()
    with torch.no_grad():
        assert torch.equal(output, tiny_model(mixture))


def test_a_model_whose_outputs_are_not_finite_is_refused(tiny_model):
    with torch.no_grad():
        next(tiny_model.parameters()).fill_(torch.nan)
    separator = Separator(tiny_model)
    with (
        pytest.warns(UserWarning, match="again in fp32"),
        pytest.raises(CheckpointError, match="not finite"),
    ):
        separator.separate(torch.randn(2, 9000), 8000)


class Refusing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, mixture):
        raise self.error


@pytest.mark.parametrize(("free_gib", "size"), [(0.001, 1), (40, 16)])
def test_the_default_batch_size_fits_the_free_memory(monkeypatch, tiny_model, free_gib, size):
    free = int(free_gib * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert default_batch_size(tiny_model, torch.device("cuda"), 8000) == size
    assert default_batch_size(tiny_model, torch.device("cpu"), 8000) == 1


@pytest.mark.parametrize("shifts", [0, 2])
def test_submitting_a_batch_before_the_last_result_changes_no_bit(monkeypatch, tiny_model, shifts):
    """As on a GPU."""
    waveform = torch.randn(2, 50_000)
    separator = Separator(tiny_model, batch_size=2, shifts=shifts)
    expected, events = separator.separate(waveform, 8000), []
    submit, result = Runner.submit, Pending.result
    monkeypatch.setattr(Runner, "submit", lambda *args: events.append("submit") or submit(*args))
    monkeypatch.setattr(Pending, "result", lambda self: events.append("result") or result(self))
    separator._runner.max_in_flight = 2
    stems = separator.separate(waveform, 8000)
    assert events[:4] == ["submit", "submit", "result", "submit"]
    assert all(torch.equal(stem, expected[name]) for name, stem in stems.items())


@pytest.mark.parametrize(("most", "sizes"), [(7, [7]), (2, [7, 3, 1]), (0, [7, 3, 1])])
def test_a_submitted_batch_that_does_not_fit_is_split(monkeypatch, tiny_model, most, sizes):
    """As on CUDA, where the network starts when a batch is submitted."""
    made = with_little_memory(monkeypatch, most)
    run = Runner(tiny_model, "fp32", 7, 8000)
    monkeypatch.setattr(run, "_stream", "a stream")
    monkeypatch.setattr(
        run,
        "_run",
        lambda windows, length: _Output(run.windows.run(run._prepared, windows, length)),
    )
    mixture = torch.randn(7, 2, 8000)
    with torch.no_grad():
        expected = tiny_model(mixture)
        pending = run.submit(mixture, 8000)
        assert made[0].sizes == [7]
        if most == 0:
            with pytest.raises(SeparationError, match="too little memory"):
                pending.result()
        else:
            assert snr(expected, pending.result()) > 100
    assert made[0].sizes[: len(sizes)] == sizes


SMALL = {"channels": 16, "n_fft": 256, "segment": 1, "sample_rate": 8000}
PACKED = {  # with widths for which there are kernels
    "all layers": HTDemucsConfig(depth=2, bottom_channels=32, t_layers=2, t_heads=2, **SMALL),
    "the outer layers": HDemucsConfig(norm_starts=2, dconv_lstm=2, dconv_attn=2, depth=4, **SMALL),
}


@pytest.mark.parametrize("packed", PACKED)
def test_packed_parameters_are_freed_and_read_again_when_needed(packed, tmp_path):
    model = awake(build(PACKED[packed])).eval()
    save_model(model, tmp_path)
    mixture = torch.randn(1, 2, 8000).clamp(-3, 3)
    with torch.no_grad():
        reference = model(mixture)
    expected = Runner(model, "fp32", 1, 8000).submit(mixture, 8000).result()
    assert not any(
        parameter.is_meta for parameter in model.parameters()
    )  # it was not read from a file
    loaded = load_model(tmp_path, device="cpu")
    run = Runner(loaded, "fp32", 1, 8000)
    remaining = [parameter for parameter in loaded.parameters() if not parameter.is_meta]
    if supports(model):
        assert (len(remaining) > 0) == (packed == "the outer layers")
    assert torch.equal(run.submit(mixture, 8000).result(), expected)
    run._prepared = run._prepared.map_members(lambda _: NotANumber(reference))
    with pytest.warns(UserWarning, match="again in fp32"):
        assert torch.equal(run.submit(mixture, 8000).result(), reference)


class NotANumber(nn.Module):
    def __init__(self, like):
        super().__init__()
        self.output = torch.full_like(like, torch.nan)

    def forward(self, _mixture):
        return self.output
