"""Quantised checkpoints as data: packed here anew, in both layouts, whole, damaged and hostile."""

import copy
import json
import math
import random

import pytest
import torch
from safetensors.torch import save_file

from htdemucs import CheckpointError
from htdemucs.weights import demucs_format
from htdemucs.weights.demucs_format import key_mapping
from htdemucs.weights.diffq import DIFFERENTIABLE, UNIFORM, Quantised, published_order, unpack
from weights.checkpoints import (
    CLASS_NAME,
    as_json,
    keywords,
    mutated,
    pickle_in,
    published_state,
    replace_pickle,
    save_th,
    standing_in,
)

SMALLEST = 0.001  # MB; parameters above this size are quantised
GROUP = 4


def pack(levels, bits):
    """Pack levels one by one, straight from the format's description."""
    lines = -(-len(levels) // (64 * 32))
    words = [[[0] * 32 for _ in range(bits)] for _ in range(lines)]
    for number, level in enumerate(levels):
        line, rest = divmod(number, 64 * 32)
        place, column = divmod(rest, 32)
        for bit in range(bits):
            words[line][bit][column] |= ((level >> bit) & 1) << place
    signed = [
        [[w - (1 << 64) if w >> 63 else w for w in row] for row in line] for line in words
    ]  # as int64
    return torch.tensor(signed, dtype=torch.int64).view(lines, bits, 32)


def quantise(values, bits):
    """Return levels and both ends, and the values that these stand for."""
    low, high = values.min().item(), values.max().item()
    steps = 2 ** torch.as_tensor(bits).float() - 1
    levels = ((values - low) / (high - low) * steps).round().to(torch.int64)
    return levels, (low, high), levels.float() * (1 / steps) * (high - low) + low


def uniform(state, bits=5):
    """Return a quantised state, and the parameters that it stands for."""
    codes, others, expected = [], [], {}
    for name, value in state.items():  # in the order in which the official layout has them
        expected[name] = value.float()
        if value.numel() <= SMALLEST * 2**20 // 4:
            others.append(value.float())
            continue
        levels, ends, expected[name] = quantise(value.float(), bits)
        codes.append((pack(levels.flatten().tolist(), bits), ends))
    settings = {"bits": bits, "min_size": SMALLEST}
    return state_of(UNIFORM, codes, others, settings), expected


def differentiable(state):
    choose = random.Random(3)
    codes, others, expected = [], [], {}
    for name, value in state.items():
        expected[name] = value.float()
        if value.numel() <= SMALLEST * 2**20 // 4:
            others.append(value.float())
            continue
        groups = value.float().reshape(-1, GROUP)
        bits = torch.tensor([choose.choice((2, 3, 7)) for _ in groups])
        levels, ends, values = quantise(groups, bits[:, None])
        expected[name] = values.view_as(value)
        packed = [
            pack(levels[bits == n].flatten().tolist(), n) if (bits == n).any() else None
            for n in range(1, 15)
        ]
        codes.append((packed, ends, pack((bits - 2).tolist(), 3)))
    settings = {"group_size": GROUP, "min_size": SMALLEST, "noise": "gaussian"}
    return state_of(DIFFERENTIABLE, codes, others, settings), expected


def state_of(quantiser, codes, others, settings):
    meta = {"init_kwargs": settings, "klass": quantiser, "packed": True, "torch_pack": False}
    lists = {"quantized": codes, "float16": [], "others": others}
    return {**lists, "meta": meta, "__quantized": True}


KINDS = {"uniform": uniform, "differentiable": differentiable}


@pytest.fixture(scope="module")
def states(model):
    """Return the quantised state of each kind, and the parameters that it stands for."""
    state = published_state(model)
    names = sorted(state, key=published_order)
    return {kind: make({name: state[name] for name in names}) for kind, make in KINDS.items()}


def write(state, path, model):
    """Write a quantised state in the layout that the path's suffix names."""
    if path.suffix == ".th":
        state = copy.deepcopy(state)
        with standing_in(state["meta"]["klass"]) as quantiser:
            state["meta"]["klass"] = quantiser
            contents = {"args": (), "kwargs": keywords(model.config), "state": state}
            return save_th(contents, path)
    tensors = {}

    def node(value):
        if isinstance(value, torch.Tensor):
            tensors[str(len(tensors))] = value.clone()
            return {"_tensor": str(len(tensors) - 1)}
        if isinstance(value, dict):
            return {"_dict": [[key, node(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {f"_{type(value).__name__}": [node(item) for item in value]}
        return {"_class": value} if value in (UNIFORM, DIFFERENTIABLE) else value

    structure = json.dumps(node(state))
    metadata = {"klass": CLASS_NAME, "args": "[]", "structure": structure}
    save_file(tensors, path, metadata | {"kwargs": as_json(keywords(model.config))})
    return path


SUFFIXES = pytest.mark.parametrize("suffix", [".th", ".safetensors"])


@SUFFIXES
@pytest.mark.parametrize("kind", KINDS)
def test_both_quantisers_are_read_in_both_layouts(kind, suffix, states, model, tmp_path):
    state, expected = states[kind]
    assert len(state["quantized"]) > 3
    read = demucs_format.read(write(state, tmp_path / f"q{suffix}", model))
    published_name = key_mapping(read.config)
    ours = {published_name(name): value for name, value in read.state_dict().items()}
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value.view_as(ours[name])), name


@pytest.mark.parametrize("bits", [0, 1, 7, 15])
@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 2049])
def test_levels_are_unpacked(count, bits):
    levels = torch.randint(0, 2**bits, (count,))
    assert torch.equal(unpack(pack(levels.tolist(), bits), count), levels.short())


def first(state):
    return state["quantized"][0]


def with_first(change):
    """Return a change of a state that replaces the first parameter's code."""

    def apply(state):
        state["quantized"][0] = change(*first(state))

    return apply


FAULTS = {
    "no meta": lambda s: s.pop("meta"),
    "no lists": lambda s: s.pop("quantized"),
    "no list": lambda s: s.update(others=torch.ones(3)),
    "not packed": lambda s: s["meta"].update(packed=False),
    "packed for torchscript": lambda s: s["meta"].update(torch_pack=True),
    "no settings": lambda s: s["meta"].update(init_kwargs=None),
    "patterns": lambda s: s["meta"]["init_kwargs"].update(exclude=["*bias"]),
    "a size of words": lambda s: s["meta"]["init_kwargs"].update(min_size="1"),
    "no size": lambda s: s["meta"]["init_kwargs"].update(min_size=math.nan),
    "huge bits": lambda s: s["meta"]["init_kwargs"].update(min_bits=1 << 40, bits=1 << 40),
    "whole ends": with_first(lambda levels, ends, *rest: (levels, (0, 10**400), *rest)),
    "no whole bits": lambda s: s["meta"]["init_kwargs"].update(min_bits=2.5, bits="5"),
    "impossible bits": lambda s: s["meta"]["init_kwargs"].update(bits=0),
    "a size of another network": lambda s: s["meta"]["init_kwargs"].update(min_size=0.01),
    "too few codes": lambda s: s["quantized"].pop(),
    "too many codes": lambda s: s["quantized"].append(first(s)),
    "too few others": lambda s: s["others"].pop(),
    "too many others": lambda s: s["others"].append(torch.ones(1)),
    "no code": lambda s: s["quantized"].__setitem__(0, None),
    "a number": lambda s: s["quantized"].__setitem__(0, 5),
    "one part": with_first(lambda *parts: parts[:1]),
    "no ends": with_first(lambda levels, ends, *rest: (levels, None, *rest)),
    "one end": with_first(lambda levels, ends, *rest: (levels, ends[:1], *rest)),
    "ends of words": with_first(lambda levels, ends, *rest: (levels, ("0", "1"), *rest)),
    "endless": with_first(lambda levels, ends, *rest: (levels, (0.0, 1e300), *rest)),
    "levels of one tensor": with_first(lambda levels, *rest: (torch.ones(3), *rest)),
    "levels of a number": with_first(lambda levels, *rest: (7, *rest)),
    "levels of words": with_first(lambda levels, *rest: ("levels", *rest)),
    "no small parameter": lambda s: s["others"].__setitem__(0, None),
    "a small parameter of another shape": lambda s: s["others"].__setitem__(0, torch.ones(2, 2)),
}


@SUFFIXES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_are_refused_in_one_line(
    fault, kind, suffix, states, model, tmp_path, refused
):
    if (fault, kind) == ("impossible bits", "differentiable"):
        fault = "no meta"  # its bits are in the codes
    state = copy.deepcopy(states[kind][0])
    klass = state["meta"]["klass"]
    FAULTS[fault](state)
    state.setdefault("meta", {"klass": klass})
    refused(write(state, tmp_path / f"q{suffix}", model))


LEVELS = {
    "one line less": lambda t: t[:-1],
    "one line more": lambda t: torch.cat([t, t[:1]]),
    "too many bits": lambda t: t[:, :1].expand(-1, 16, -1).clone(),
    "floats": lambda t: t.float(),
    "two dimensions": lambda t: t[0],
    "no block": lambda t: t[..., :0],
    "a huge block of nothing": lambda t: t.new_zeros(1, 0, 1 << 40),
}


@pytest.mark.parametrize("fault", LEVELS)
def test_damaged_levels_are_refused(fault, states, model, tmp_path, refused):
    state = copy.deepcopy(states["uniform"][0])
    levels, ends = first(state)
    state["quantized"][0] = (LEVELS[fault](levels), ends)
    refused(write(state, tmp_path / "q.safetensors", model), ".weight is damaged", "codes")


@pytest.mark.parametrize(
    "change",
    [
        lambda packed, ends, bits: (packed, ends, torch.zeros_like(bits)),  # all of 2 bits
        lambda packed, ends, bits: (packed, ends, ~torch.zeros_like(bits)),  # all of 9 bits
        lambda packed, ends, bits: ([None] * 14, ends, bits),
        lambda packed, ends, bits: (packed[:2], ends, bits),
        lambda packed, ends, bits: (packed[:6] + packed[:2] + packed[8:], ends, bits),
    ],
)
def test_groups_without_levels_are_refused(change, states, model, tmp_path, refused):
    state = copy.deepcopy(states["differentiable"][0])
    state["quantized"][0] = change(*first(state))
    refused(write(state, tmp_path / "q.th", model), ".weight is damaged")


def test_groups_that_do_not_divide_a_parameter_are_refused(states, model, tmp_path, refused):
    state = copy.deepcopy(states["differentiable"][0])
    state["meta"]["init_kwargs"]["group_size"] = 7
    refused(write(state, tmp_path / "q.th", model), "groups of 7")
    state["meta"]["init_kwargs"]["group_size"] = 0
    refused(write(state, tmp_path / "q.th", model), "group_size")


def test_one_tensor_named_many_times_is_not_room_for_a_large_network(states):
    """Else a small file could ask for much memory."""
    state = copy.deepcopy(states["uniform"][0])
    before = Quantised(state, UNIFORM).capacity
    state["quantized"] += [first(state)] * 1000
    state["float16"] += [torch.ones(1).expand(1 << 40)] * 2
    before += 1
    assert Quantised(state, UNIFORM).capacity == before
    with pytest.raises(CheckpointError, match="fewer"):
        Quantised(state, UNIFORM).parameters({"encoder.0.conv.weight": torch.Size([before, 2])})


@pytest.mark.parametrize("name", ["diffq.lsq.LSQ", "diffq.base.BaseQuantizer"])
def test_other_quantisers_are_refused(name, states, model, tmp_path, refused):
    state = copy.deepcopy(states["uniform"][0])
    state["meta"]["klass"] = name
    refused(write(state, tmp_path / "q.th", model), name)
    tensors = {"0": torch.ones(1)}
    structure = {"_dict": [["meta", {"_dict": [["klass", {"_class": name}]]}]]}
    metadata = {
        "klass": CLASS_NAME,
        "args": "[]",
        "structure": json.dumps(structure),
    }
    path = tmp_path / "q.safetensors"
    save_file(tensors, path, metadata | {"kwargs": as_json(keywords(model.config))})
    refused(path, name)


@pytest.mark.parametrize("quantiser", [UNIFORM, DIFFERENTIABLE])
def test_no_code_of_a_quantiser_is_run(quantiser, contents, tmp_path, refused):
    def strike(*_, **__):
        (tmp_path / "it_ran").touch()

    with standing_in(quantiser, __setstate__=strike) as published:
        thing = published()
        thing.payload = 1
        contents["state"] = {"__quantized": True, "quantized": thing, "meta": {"klass": published}}
        path = save_th(contents, tmp_path / "q.th")
        refused(path)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    "structure",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"_dict": 5}',
        '{"_dict": [["meta", {"_tensor": "none"}]]}',
        '{"_dict": [[["list"], 1]]}',
        '{"_list": [{"_what": 1}]}',
        '{"_tensor": "0", "_list": []}',
        '{"_list": [' * 50_000 + "]}" * 50_000,
    ],
)
def test_damaged_structures_are_refused(structure, model, tmp_path, refused):
    path = tmp_path / "q.safetensors"
    metadata = {"klass": CLASS_NAME, "args": "[]", "structure": structure}
    metadata["kwargs"] = as_json(keywords(model.config))
    save_file({"0": torch.ones(1)}, path, metadata)
    refused(path)


def survives(path):
    """Whether a damaged file loads; if not, assert that the error is ours and one line."""
    failure = ""
    try:
        demucs_format.read(path)
    except CheckpointError as error:
        failure = str(error)
    assert len(failure.splitlines()) == bool(failure)
    return not failure


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_loaded_or_refused(kind, states, model, tmp_path):
    choose = random.Random(11)
    th = write(states[kind][0], tmp_path / "q.th", model)
    st = write(states[kind][0], tmp_path / "q.safetensors", model)
    pickle, tensors = pickle_in(th), st.read_bytes()
    header = 8 + int.from_bytes(tensors[:8], "little")
    loaded = 0
    for _ in range(40):
        replace_pickle(th, mutated(pickle, choose))
        st.write_bytes(mutated(tensors[:header], choose) + tensors[header:])
        loaded += survives(th) + survives(st)
    assert loaded < 80
