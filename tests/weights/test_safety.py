"""Malicious files: each must fail with one clear line and do nothing else."""

import contextlib
import functools
import os
import pathlib
import pickle
import random
import runpy
import shlex
import subprocess
import sys
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
import torch

from htdemucs import CheckpointError, HTDemucs
from htdemucs.weights import demucs_format
from weights.checkpoints import (
    CLASS_NAME,
    as_json,
    assert_same,
    keywords,
    mutated,
    pickle_in,
    replace_pickle,
    rewrite,
    save_th,
    standing_in,
)


class Reduced:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def attack(name: str, marker: pathlib.Path) -> object:
    """Return an object that creates the marker when an ordinary pickle loader reads it."""
    python = f"open({str(marker)!r}, 'w').close()"
    command = [sys.executable, "-c", python]
    script = marker.with_suffix(".py")
    inner = marker.with_suffix(".inner")
    if name == "run_path":
        script.write_text(python)
    if name == "torch.load":
        inner.write_bytes(pickle.dumps(Reduced(exec, python)))
    attacks = {
        "os.system": lambda: Reduced(os.system, shlex.join(command)),
        "subprocess.call": lambda: Reduced(subprocess.call, command),
        "eval": lambda: Reduced(eval, python),
        "exec": lambda: Reduced(exec, python),
        "open": lambda: Reduced(open, str(marker), "w"),
        "partial": lambda: Reduced(functools.partial(exec, python)),
        "touch": lambda: Reduced(pathlib.Path.touch, marker),
        "map": lambda: Reduced(list, Reduced(map, exec, [python])),
        "run_path": lambda: Reduced(runpy.run_path, str(script)),
        "torch.load": lambda: Reduced(
            functools.partial(torch.load, weights_only=False), str(inner)
        ),
        "numpy": lambda: Reduced(np.testing.runstring, python, {}),
    }
    return attacks[name]()


ATTACKS = [
    "os.system",
    "subprocess.call",
    "eval",
    "exec",
    "open",
    "partial",
    "touch",
    "map",
    "run_path",
    "torch.load",
    "numpy",
]


@pytest.fixture
def marker(tmp_path) -> pathlib.Path:
    return tmp_path / "it_ran"


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.call", "exec", "touch", "numpy", "torch.load"]
)
def test_the_attacks_are_real(name, marker):
    """Otherwise the tests below would prove nothing."""
    with contextlib.suppress(RuntimeError):  # of torch.load, after the harm is done
        pickle.loads(pickle.dumps(attack(name, marker)))
    assert marker.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_the_metrics_is_run(name, contents, marker, tmp_path, refused):
    contents["metrics"]["nested"] = [{"deep": (1, [attack(name, marker)])}]
    refused(save_th(contents, tmp_path / "evil.th"), "refused", "no genuine checkpoint")
    assert not marker.exists()


def at(place: str, contents: dict, evil: object) -> dict:
    if place == "args":
        contents["args"] = (evil,)
    elif place == "a key":
        contents["state"] = OrderedDict([(evil, torch.ones(1))])
    elif place == "kwargs":
        contents["kwargs"]["t_lr"] = {"a": [evil]}
    elif place == "state":
        contents["state"]["encoder.0.conv.bias"] = evil
    elif place == "instead of kwargs":
        contents["kwargs"] = evil
    elif place == "beside":
        contents["unheard of"] = evil
    return contents


@pytest.mark.parametrize(
    "place", ["args", "a key", "kwargs", "state", "instead of kwargs", "beside"]
)
@pytest.mark.parametrize("name", ["os.system", "eval"])
def test_nothing_is_run_wherever_it_stands(name, place, contents, marker, tmp_path, refused):
    evil = at(place, contents, attack(name, marker))
    refused(save_th(evil, tmp_path / "evil.th"), "refused")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "function"),
    [("run_path", "runpy.run_path"), ("os.system", ".system"), ("touch", "getattr")],
)
def test_the_message_names_the_function(name, function, contents, tmp_path, marker, refused):
    contents["metrics"] = attack(name, marker)
    refused(save_th(contents, tmp_path / "evil.th"), "wants to run or create", function)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_run_in_either_kind_of_archive(zipped, contents, marker, tmp_path, refused):
    path = tmp_path / "evil.th"
    torch.save(attack("os.system", marker), path, _use_new_zipfile_serialization=zipped)
    refused(path, "refused")
    contents["metrics"] = attack("exec", marker)
    refused(save_th(contents, path, _use_new_zipfile_serialization=zipped), "refused")
    assert not marker.exists()


def test_the_older_kind_of_archive_is_read(contents, model, tmp_path):
    """So the test above refuses the contents of its files, not their kind."""
    path = save_th(contents, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    assert_same(model, demucs_format.read(path))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
def test_nothing_in_raw_pickles_is_run(protocol, suffix, marker, tmp_path, refused):
    path = tmp_path / f"raw{suffix}"
    path.write_bytes(pickle.dumps(attack("os.system", marker), protocol))
    refused(path)
    path.write_bytes(pickle.dumps({"klass": attack("exec", marker)}, protocol))
    refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_pickles_of_other_protocols_is_run(protocol, th, marker, refused):
    refused(replace_pickle(th, pickle.dumps(attack("os.system", marker), protocol)))
    assert not marker.exists()


@pytest.mark.parametrize("opcodes", [b"(S'touch {}'\nios\nsystem\n.", b"cos\nsystem\n(V{}\ntR."])
def test_nothing_in_handmade_pickles_is_run(opcodes, th, marker, refused, monkeypatch):
    monkeypatch.chdir(marker.parent)  # its whole path may have letters that they cannot hold
    refused(replace_pickle(th, opcodes.replace(b"{}", marker.name.encode())), "refused")
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["__setstate__", "__init__", "__new__", "__reduce__"])
def test_no_object_of_a_foreign_class_is_created(kind, contents, marker, tmp_path, refused):
    def strike(*_):
        marker.touch()
        return object.__new__(_[0]) if kind == "__new__" else None

    with standing_in("evil_module.Evil") as evil:
        thing = evil()
        thing.payload = [1]
        if kind == "__reduce__":
            evil.__reduce__ = lambda self: (evil, ())
        else:
            setattr(evil, kind, strike)
            evil.__reduce__ = lambda self: (evil, (), {"a": 1})
        contents["training_args"] = {"optim": thing}
        path = save_th(contents, tmp_path / "evil.th")
        marker.unlink(missing_ok=True)
        assert "evil_module.Evil" in refused(path, "refused")
    assert not marker.exists()


def test_no_code_of_the_published_class_is_run(contents, marker, tmp_path, model):
    """Only the class's name matters: even an installed module of that name is not imported."""
    path = save_th(contents, tmp_path / "model.th")
    with standing_in(CLASS_NAME, __init__=lambda *_, **__: marker.touch()):
        assert_same(model, demucs_format.read(path))
    assert not marker.exists()


@pytest.mark.parametrize("call", [(), ("a", 1), (torch.ones(1),)])
@pytest.mark.parametrize("name", [CLASS_NAME, "numpy.dtype", "fractions.Fraction"])
def test_stand_ins_are_inert(name, call, contents, tmp_path, refused):
    with standing_in("demucs.htdemucs.HTDemucs") as published:
        functions = {CLASS_NAME: published, "numpy.dtype": np.dtype}
        contents["kwargs"] = Reduced(functions.get(name, Fraction), *call)
        torch.save({"klass": published, **contents}, tmp_path / "evil.th")
    refused(tmp_path / "evil.th")


@pytest.mark.parametrize("text", ["1e999999999", "9" * 5000, "1/0", "39/5/2", "NaN", "", "a/b"])
def test_slow_and_damaged_fractions_are_refused(text, contents, model, st, tmp_path, refused):
    contents["kwargs"]["segment"] = Reduced(Fraction, text)
    refused(save_th(contents, tmp_path / "slow.th"), "fraction")
    contents["kwargs"]["segment"] = text
    refused(save_th(contents, tmp_path / "slow.th"), "segment")
    refused(rewrite(st, kwargs=as_json(keywords(model.config) | {"segment": text})), "segment")


@pytest.mark.parametrize("parts", [{}, {"numerator": "1e999999999"}, {"numerator": 7.5}])
def test_damaged_fractions_in_json_are_refused(parts, model, st, refused):
    segment = {"_type": "fraction", "denominator": 1} | parts
    refused(rewrite(st, kwargs=as_json(keywords(model.config) | {"segment": segment})), "fraction")


def test_deep_nesting_is_refused(th, refused):
    """Tuples can be keys, and hashing 50000 tuples inside each other overflows the stack."""
    refused(replace_pickle(th, b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."), "lacks klass")
    refused(replace_pickle(th, b"\x80\x02}N" + b"\x85" * 50_000 + b"Ns."), "nested")
    refused(replace_pickle(th, b"\x80\x02}" + b"(" * 2000 + b"N" + b"t" * 2000 + b"Ns."), "nested")
    twins = b"q\x00h\x00\x86" * 60  # each holds the one before it twice
    refused(replace_pickle(th, b"\x80\x02}N" + twins + b"Ns."), "nested")


def test_dictionaries_whose_methods_are_hidden_are_read(contents, model, tmp_path):
    """An ordered dictionary's pickle may set attributes that hide its methods."""
    for name in ("state", "kwargs"):
        contents[name] = OrderedDict(contents[name])
        contents[name].__dict__.update(get=5, keys=5, values=5)
    path = save_th(contents, tmp_path / "shadow.th")
    assert_same(model, demucs_format.read(path))


def test_parameters_whose_methods_are_hidden_are_refused(contents, tmp_path, refused):
    parameter = torch.nn.Parameter(torch.full((8,), torch.nan))
    parameter.isfinite = parameter.is_floating_point = parameter.float = [1]
    contents["state"]["encoder.0.conv.bias"] = parameter
    refused(save_th(contents, tmp_path / "shadow.th"), "_with_state")


def test_one_value_repeated_is_not_room_for_a_large_network(contents, tmp_path, refused):
    """Strides may be 0, and tensors may share their memory: a small file, a large network."""
    state = contents["state"]
    for name, value in state.items():
        state[name] = torch.zeros(1, dtype=torch.half).expand(value.shape)
    refused(save_th(contents, tmp_path / "small.th"), "too few")


def survives(path: pathlib.Path) -> bool:
    """Whether a damaged file loads; if not, assert that the error is ours and one line."""
    model = failure = None
    try:
        model = demucs_format.read(path)
    except CheckpointError as error:
        failure = str(error)
    if failure:
        assert len(failure.splitlines()) == 1
    else:
        assert isinstance(model, HTDemucs)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    return model is not None


def test_mutated_pickles_are_loaded_or_refused(th):
    """The archive's checksums are right; only the pickle in it is damaged."""
    choose = random.Random(7)
    original = pickle_in(th)
    loaded = 0
    for _ in range(60):
        loaded += survives(replace_pickle(th, mutated(original, choose)))
    assert 0 < loaded < 60


def test_mutated_archives_are_loaded_or_refused(th):
    choose = random.Random(8)
    original = th.read_bytes()
    loaded = 0
    for _ in range(60):
        th.write_bytes(mutated(original, choose))
        loaded += survives(th)
    assert loaded < 60


def test_mutated_safetensors_are_loaded_or_refused(st):
    choose = random.Random(9)
    original = st.read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    loaded = 0
    for i in range(200):
        split = header if i % 4 else len(original)  # the header above all
        st.write_bytes(mutated(original[:split], choose) + original[split:])
        loaded += survives(st)
    assert 0 < loaded < 200


def test_mutated_sizes_are_loaded_or_refused(st):
    """Changed digits make sizes that are wrong, absurd, or by chance right."""
    choose = random.Random(10)
    original = st.read_bytes()
    start = original.index(b"audio_channels")
    end = original.index(b"t_cross_first")
    digits = [i for i in range(start, end) if 48 <= original[i] <= 57]
    loaded = 0
    for _ in range(60):
        changed = bytearray(original)
        for _ in range(choose.randint(1, 2)):
            changed[choose.choice(digits)] = choose.choice(b"0123456789")
        st.write_bytes(changed)
        loaded += survives(st)
    assert 0 < loaded < 60
