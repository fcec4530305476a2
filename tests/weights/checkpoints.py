"""Checkpoints in the official layouts, made without the published package."""

import json
import random
import sys
import types
import zipfile
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.weights import demucs_format

CLASS_NAME = "demucs.htdemucs.HTDemucs"

# The keywords of the released htdemucs that are not sizes, as its files hold them. Several are not
# at the constructor's defaults, but have no effect.
RELEASED = {
    "channels_time": None,
    "growth": 2,
    "wiener_iters": 0,
    "end_iters": 0,
    "wiener_residual": False,
    "cac": True,
    "rewrite": True,
    "multi_freqs": [],
    "multi_freqs_depth": 3,
    "freq_emb": 0.2,
    "emb_scale": 10,
    "emb_smooth": True,
    "kernel_size": 8,
    "time_stride": 2,
    "stride": 4,
    "context": 1,
    "context_enc": 0,
    "norm_starts": 4,
    "norm_groups": 4,
    "dconv_mode": 3,
    "dconv_comp": 8,
    "dconv_init": 0.001,
    "t_emb": "sin",
    "t_hidden_scale": 4.0,
    "t_dropout": 0.02,
    "t_max_positions": 10000,
    "t_norm_in": True,
    "t_norm_in_group": False,
    "t_group_norm": False,
    "t_norm_first": True,
    "t_norm_out": True,
    "t_max_period": 10000.0,
    "t_weight_decay": 0.0,
    "t_lr": None,
    "t_layer_scale": True,
    "t_gelu": True,
    "t_weight_pos_embed": 1.0,
    "t_sin_random_shift": 0,
    "t_cape_mean_normalize": True,
    "t_cape_augment": True,
    "t_cape_glob_loc_scale": [5000.0, 1.0, 1.4],
    "t_sparse_self_attn": False,
    "t_sparse_cross_attn": False,
    "t_mask_type": "diag",
    "t_mask_random_seed": 42,
    "t_sparse_attn_window": 400,
    "t_global_window": 100,
    "t_sparsity": 0.95,
    "t_auto_sparsity": False,
    "t_cross_first": False,
    "rescale": 0.1,
}


def tiny(**changes: Any) -> HTDemucs:
    """Return a small network whose parameters are exact in float16, as in released files."""
    model = awake(HTDemucs(HTDemucsConfig(**TINY | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


def keywords(config: HTDemucsConfig) -> dict[str, Any]:
    """Return the arguments of the published constructor for this configuration."""
    sizes = ("audio_channels", "channels", "depth", "dconv_depth", "bottom_channels")
    return {
        "sources": list(config.sources),
        "samplerate": config.sample_rate,
        "segment": config.segment,
        "nfft": config.n_fft,
        **{name: getattr(config, name) for name in (*sizes, "t_layers", "t_heads")},
        **RELEASED,
    }


def published_state(model: HTDemucs) -> dict[str, Tensor]:
    """Return the parameters by their published names, in float16."""
    with TemporaryDirectory() as folder:
        demucs_format.write(model, Path(folder, "state.safetensors"))
        return load_file(Path(folder, "state.safetensors"))


def package(model: HTDemucs) -> dict[str, Any]:
    """Return the contents of a `.th` file without its class."""
    return {
        "args": (),
        "kwargs": keywords(model.config),
        "state": published_state(model),
        "training_args": {"optim": {"lr": 3e-4, "betas": [0.9, 0.999]}, "epochs": 360},
        "metrics": {"valid": [{"loss": np.float64(0.25), "nsdr": np.float32(9.5)}], "best": 7},
    }


def save_th(contents: dict[str, Any], path: Path, klass: str = CLASS_NAME, **options: Any):
    """Write a `.th` file as the published package does, with a stand-in for its class."""
    with standing_in(klass) as stand_in:
        torch.save({"klass": stand_in, **contents}, path, **options)
    return path


@contextmanager
def standing_in(name: str, **members: Any):
    """Yield a class that can be imported by this name, though its module does not exist."""
    module, _, qualified = name.rpartition(".")
    stand_in = type(qualified, (), {"__module__": module, **members})
    parents = [".".join(module.split(".")[: i + 1]) for i in range(module.count(".") + 1)]
    earlier = {parent: sys.modules.get(parent) for parent in parents}
    for parent in parents:
        sys.modules[parent] = types.ModuleType(parent)
    setattr(sys.modules[module], qualified, stand_in)
    try:
        yield stand_in
    finally:
        for parent, before in earlier.items():
            del sys.modules[parent]
            if before is not None:
                sys.modules[parent] = before


def save_safetensors(model: HTDemucs, path: Path, **kwargs: Any) -> Path:
    """Write the official `.safetensors` layout, with added or changed keywords."""
    state = published_state(model)
    changed = keywords(model.config) | kwargs
    metadata = {"klass": CLASS_NAME, "args": "[]", "kwargs": as_json(changed)}
    save_file(state, path, metadata)
    return path


def rewrite(path: Path, state: dict[str, Tensor] | None = None, **metadata: str | None) -> Path:
    """Change the tensors or the metadata of a `.safetensors` file; None removes an entry."""
    with safe_open(path, framework="pt") as file:
        old = file.metadata()
    new = {k: v for k, v in ({**old, **metadata}).items() if v is not None}
    save_file(load_file(path) if state is None else state, path, new)
    return path


def as_json(values: Any) -> str:
    def encode(value: Fraction) -> dict[str, Any]:
        numerator, denominator = value.numerator, value.denominator
        return {"_type": "fraction", "numerator": numerator, "denominator": denominator}

    return json.dumps(values, default=encode)


def replace_pickle(path: Path, data: bytes) -> Path:
    """Put another pickle into a `.th` archive and correct the archive's checksums."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, data if name.endswith("/data.pkl") else content)
    return path


def pickle_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))


def mutated(data: bytes, choose: random.Random) -> bytes:
    """Return the data with a few bytes changed, inserted, removed or repeated."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 3)):
        where = choose.randrange(len(changed))
        kind = choose.randrange(4)
        if kind == 0:
            changed[where] = choose.randrange(256)
        elif kind == 1:
            changed[where] ^= 1 << choose.randrange(8)
        elif kind == 2:
            del changed[where : where + choose.randint(1, 9)]
        else:
            changed[where:where] = changed[where : where + choose.randint(1, 9)]
    return bytes(changed)


def write_bag(path: Path, **fields: Any) -> Path:
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def assert_same(model: torch.nn.Module, other: torch.nn.Module) -> None:
    """Assert that all parameters are equal to the bit."""
    state, others = model.state_dict(), other.state_dict()
    assert state.keys() == others.keys()
    for name, value in state.items():
        assert torch.equal(value, others[name]), name


def one_line(error: pytest.ExceptionInfo[Any], *words: str) -> str:
    """Return the error's message: one line that holds all the words."""
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message
    return message


def by_hand(error: pytest.ExceptionInfo[Any], *words: str) -> str:
    """Return the error's message: what failed, then from where and to where to copy a file."""
    first, *others = str(error.value).splitlines()
    assert "-n mini works without a download" in first
    assert [line[:2] for line in others] == ["  ", "  "]
    assert all(word in str(error.value) for word in words), str(error.value)
    return str(error.value)
