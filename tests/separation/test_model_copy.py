"""The copy of the model in a separator: changes to either do not affect the other."""

import copy
import dataclasses
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn

from helpers import OLDER, awake
from htdemucs import (
    Bag,
    CheckpointError,
    HDemucsConfig,
    HTDemucsConfig,
    SeparationError,
    Separator,
    load_model,
    save_model,
)
from htdemucs.model.architectures import build

SMALL = {"channels": 16, "n_fft": 256, "segment": 1, "sample_rate": 8000}
CONFIGS = {
    "kernels": HTDemucsConfig(depth=2, bottom_channels=32, t_layers=2, t_heads=2, **SMALL),
    "kernels outside": HDemucsConfig(norm_starts=2, dconv_lstm=2, dconv_attn=2, depth=4, **SMALL),
    "no kernels": OLDER["Demucs"],
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request, tmp_path_factory):
    """Return a folder with a model, and so the name of one whose parameters may be freed."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save_model(awake(build(CONFIGS[request.param])).eval(), folder)
    return folder


@pytest.fixture
def waveform():
    return 0.1 * torch.randn(2, 3000)


def separated(separator, waveform):
    return torch.stack(list(separator.separate(waveform, 8000).values()))


def ruin(model):
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(torch.nan)


def lose_layers(model):
    for network in model.modules():
        for name in list(network._modules):
            setattr(network, name, nn.Identity())


MISUSES = {
    "values": ruin,
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "meta": lambda model: model.to("meta"),
    "train": lambda model: model.train(),
    "layers": lose_layers,
}


@pytest.mark.parametrize(
    ("precision", "misuses"), [("fp32", MISUSES), ("bf16", {"values": ruin})], ids=["fp32", "bf16"]
)
def test_changes_to_a_model_do_not_affect_separators(folder, waveform, precision, misuses):
    named = Separator(folder, device="cpu", precision=precision)
    expected = separated(named, waveform)
    for name, misuse in misuses.items():
        given = load_model(folder, device="cpu")
        separator = Separator(given, precision=precision)
        misuse(given)
        assert torch.equal(separated(separator, waveform), expected), name
    ruin(named.model)
    assert torch.equal(separated(named, waveform), expected)


def test_two_separators_of_one_model_do_not_share_it(folder, waveform):
    model = load_model(folder, device="cpu")
    one, two = (Separator(model, precision="fp32") for _ in range(2))
    expected = separated(one, waveform)
    ruin(one.model)
    assert torch.equal(separated(two, waveform), expected)
    assert torch.equal(separated(Separator(model, precision="fp32"), waveform), expected)


@pytest.mark.parametrize("stems", [None, ["bass", "drums"]])
def test_the_model_of_a_separator_is_whole(folder, waveform, stems, tmp_path):
    whole = load_model(folder, device="cpu")
    separator = Separator(folder, device="cpu", precision="fp32", stems=stems)
    expected = separated(separator, waveform)
    model = separator.model
    assert model is separator.model
    assert not model.training
    if stems is None:
        model.save_pretrained(tmp_path / "saved")
        assert type(load_model(tmp_path / "saved")) is type(whole)
    others = [model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.to("cpu")]
    for other in others:
        again = Separator(other, precision="fp32")
        assert again.stems == separator.stems
        assert again.origin.name == str(folder)
        assert torch.equal(separated(again, waveform), expected)
    with torch.no_grad():
        torch.testing.assert_close(model(waveform[None]), others[1](waveform[None]))


def test_a_separator_changes_nothing_of_the_model_that_it_is_given(folder):
    model = load_model(folder, device="cpu").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Separator(model, precision="fp32").separate(torch.randn(2, 3000), 8000)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_model_is_copied_to_its_first_device_after_a_change_to_the_cpu(folder, waveform):
    model = load_model(folder, device="cpu")
    model.origin = None
    separator = Separator(model, precision="fp32")
    expected = separated(separator, waveform)
    separator.device = torch.device("meta")  # any that is not the CPU
    assert next(separator.model.parameters()).is_meta
    separator.device = torch.device("cpu")
    assert torch.equal(separated(separator, waveform), expected)


def test_other_precisions_are_brought_to_float32(folder, waveform):
    model = load_model(folder, device="cpu")
    expected = separated(Separator(model, precision="fp32"), waveform)
    assert torch.equal(separated(Separator(model.double(), precision="fp32"), waveform), expected)


def test_a_bag_whose_members_share_files_is_read_again(tmp_path, waveform):
    config = CONFIGS["kernels"]
    bag = Bag([awake(build(config)).eval() for _ in range(2)], [[1, 1, 0, 0], [0, 0, 1, 1]])
    save_model(bag, tmp_path / "bag")
    separator = Separator(tmp_path / "bag", device="cpu", stems=["vocals"])
    with torch.no_grad():
        expected = bag.select_sources(["vocals"])(waveform[None])
        torch.testing.assert_close(separator.model(waveform[None]), expected)


@pytest.mark.parametrize("change", ["gone", "other"])
def test_files_that_changed_meanwhile_are_named(change, tmp_path):
    config = CONFIGS["kernels"]
    save_model(build(config).eval(), tmp_path / "model")
    separator = Separator(tmp_path / "model", device="cpu")
    if all(not parameter.is_meta for parameter in separator._model.parameters()):
        pytest.skip("without kernels nothing is freed")
    if change == "gone":
        (tmp_path / "model" / "model.safetensors").unlink()
    else:
        save_model(build(config).eval(), tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as error:
        _ = separator.model
    assert len(str(error.value).splitlines()) == 1
    assert separator.separate(torch.randn(2, 3000), 8000)


def test_a_model_that_was_changed_is_from_no_file(folder):
    model = load_model(folder, device="cpu")
    assert Separator(model).origin.name == str(folder)
    with torch.no_grad():
        [*model.parameters()][-1].view(-1)[0] += 1e-3
    separator = Separator(model)
    assert separator.origin is None
    assert list(separator.weights_sha256) == ["parameters"]


def add_to_first_conv(model):
    convs = [x for x in model.modules() if isinstance(x, nn.Conv1d)]
    convs[0].register_forward_hook(lambda module, inputs, output: output + 1)


def rename_sources(model):
    model.config = dataclasses.replace(model.config, sources=("a", "b", "c", "d"))


def reverse_places(model):
    parameter = next(model.parameters())
    parameter.data = parameter.data.flip(0)


def double(model):
    next(model.parameters()).data.mul_(2)


def no_last_activation(model):
    layers = model.decoder if hasattr(model, "decoder") else model.time_decoder
    layers[0].activation = nn.Identity()


def other_dilation(model):
    convs = [x for x in model.modules() if isinstance(x, nn.Conv1d) and x.dilation == (2,)]
    convs[0].dilation = convs[0].padding = (1,)


EDITS = [
    add_to_first_conv,
    rename_sources,
    reverse_places,
    double,
    no_last_activation,
    other_dilation,
]


@pytest.mark.parametrize("edit", EDITS)
def test_any_edit_of_a_model_changes_its_origin_and_hash(folder, edit, waveform):
    model = load_model(folder, device="cpu")
    edit(model)
    separator = Separator(model, shifts=0)
    assert separator.origin is None
    assert separator.weights_sha256 == Separator(model, shifts=0).weights_sha256
    again = Separator(separator.model, shifts=0)
    assert torch.equal(separated(separator, waveform), separated(again, waveform))
    others = [Separator(folder, device="cpu")]
    for other_edit in EDITS:
        if other_edit is not edit:
            other = load_model(folder, device="cpu")
            other_edit(other)
            others.append(Separator(other))
    hashes = [str(one.weights_sha256) for one in (separator, *others)]
    assert len(set(hashes)) == len(hashes)


def test_the_weights_of_a_bag_are_in_its_hash(tmp_path):
    config = CONFIGS["kernels"]
    save_model(Bag([build(config), build(config)], [[1, 1, 0, 0], [0, 0, 1, 1]]), tmp_path / "bag")
    bag = load_model(tmp_path / "bag", device="cpu")
    before = Separator(bag).weights_sha256
    assert before == Separator(tmp_path / "bag", device="cpu").weights_sha256
    bag.weights.copy_(bag.weights.flip(0))
    assert Separator(bag).weights_sha256 != before


def test_a_bag_of_a_file_and_a_network_has_a_hash(folder):
    bag = Bag([load_model(folder, device="cpu"), load_model(folder, device="cpu")])
    with torch.no_grad():
        next(bag.members[1].parameters()).mul_(2)
    assert list(Separator(bag).weights_sha256) == ["parameters"]


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (42, "not int"),
        (None, "not NoneType"),
        (nn.Linear(2, 2), "not Linear"),
        (build(CONFIGS["kernels"]).to("meta"), "load it again"),
    ],
)
def test_other_objects_than_models_are_named(model, match):
    with pytest.raises(SeparationError, match=match):
        Separator(model)


def pickled(separator):
    return pickle.loads(pickle.dumps(separator))


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_of_a_separator_separates_the_same(copying, folder, waveform):
    separator = Separator(folder, shifts=1, seed=3, overlap=0.1, stems="vocals")
    other = copying(separator)
    assert other.origin == separator.origin
    assert other.settings() == separator.settings()
    assert torch.equal(separated(separator, waveform), separated(other, waveform))


def _stems_of(separator):
    return separator.stems


def _separate_silence(separator):  # not by torch, which would hang in a fork
    return separator.separate(np.zeros((2, 1_000_000), np.float32), 8000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_separator_says_what_to_do(tiny_model):
    """OpenMP's threads do not exist in a forked process: the network would wait for ever."""
    separator = Separator(tiny_model)
    reading, writing = os.pipe()
    if not os.fork():
        try:
            _separate_silence(separator)
        except SeparationError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.wait()
    os.close(writing)
    assert b"forked process" in os.read(reading, 1000)
    os.close(reading)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_of_forks_says_what_to_do_and_one_of_new_processes_works(tiny_model, forkserver):
    separator = Separator(tiny_model)
    _separate_silence(separator)  # starts threads, which the forks lack
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(SeparationError, match="forked process"),
    ):
        pool.apply_async(_separate_silence, [separator]).get(timeout=60)
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(SeparationError, match="forked process"),
    ):
        pool.apply_async(_stems_of, [separator]).get(timeout=60)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        [stems] = pool.map(_separate_silence, [separator])
    assert set(stems) == set(separator.stems)


def test_threads_share_a_separator(folder, waveform):
    separator = Separator(folder, device="cpu", shifts=1)
    expected, found = separated(separator, waveform), []
    threads = [
        threading.Thread(target=lambda: found.append(separated(separator, waveform)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(torch.equal(stems, expected) for stems in found)
