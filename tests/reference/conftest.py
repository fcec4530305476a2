"""Networks of the published package with random parameters, in its own checkpoint layouts."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

published = pytest.importorskip("demucs", reason="parity needs the published package")

from demucs.htdemucs import HTDemucs as PublishedHTDemucs  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

SOURCES = ["drums", "bass", "other", "vocals"]
# Keywords of released checkpoints beside the sizes: values from training configurations.
COMMON = {
    "sources": SOURCES,
    "audio_channels": 2,
    "samplerate": 44100,
    "segment": Fraction(39, 5),
    "channels_time": None,
    "multi_freqs": [],
    "t_sparse_attn_window": 400,
    "t_lr": None,
}
SMALL = COMMON | {
    "channels": 8,
    "dconv_mode": 3,
    "bottom_channels": 32,
    "t_layers": 3,
    "t_heads": 4,
    "t_dropout": 0.02,
    "segment": Fraction(1),
}
RELEASED = {
    "htdemucs": COMMON | {"dconv_mode": 3, "bottom_channels": 512, "t_dropout": 0.02},
    "htdemucs_6s": COMMON | {"dconv_mode": 3, "sources": [*SOURCES, "guitar", "piano"]},
}
# Small networks of the older kinds: the innermost two layers have norms, LSTM and attention.
SMALL_HDEMUCS = {
    "sources": SOURCES,
    "audio_channels": 2,
    "samplerate": 44100,
    "segment": 1,
    "channels": 8,
    "channels_time": None,
    "nfft": 256,
    "depth": 4,
    "hybrid": True,
    "hybrid_old": False,
    "multi_freqs": [],
    "multi_freqs_depth": 2,
    "norm_starts": 2,
    "dconv_lstm": 2,
    "dconv_attn": 2,
    "dconv_init": 1e-3,
}
SMALL_DEMUCS = {
    "sources": SOURCES,
    "audio_channels": 2,
    "samplerate": 44100,
    "segment": 1,
    "channels": 8,
    "growth": 2.0,
    "depth": 4,
    "norm_starts": 2,
    "dconv_lstm": 2,
    "dconv_attn": 2,
    "lstm_layers": 0,
    "normalize": False,
    "resample": True,
}


def build(keywords, seed=0, kind=PublishedHTDemucs):
    """Return a published network whose parameters all have an effect and are exact in float16."""
    torch.manual_seed(seed)
    network = kind(**keywords).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "gamma" in name or name.endswith("scale"):
                parameter.uniform_(0.1, 0.5)
            elif name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            parameter.copy_(parameter.half().float())
    return network


def save_th(network, keywords, path: Path) -> Path:
    """Write the published pickle, with NumPy scalars among its metrics as in released files."""
    package = {
        "klass": type(network),
        "args": (),
        "kwargs": keywords,
        "state": {name: value.half() for name, value in network.state_dict().items()},
        "training_args": {"optim": {"lr": 3e-4}, "seed": 42},
        "metrics": {"nsdr": np.float64(9.0), "history": [np.float32(1.0)]},
    }
    torch.save(package, path)
    return path


def save_safetensors(network, keywords, path: Path) -> Path:
    """Write the hub's layout."""

    def encode(value):
        return {
            "_type": "fraction",
            "numerator": value.numerator,
            "denominator": value.denominator,
        }

    metadata = {
        "klass": f"{type(network).__module__}.{type(network).__name__}",
        "args": "[]",
        "kwargs": json.dumps(keywords, default=encode),
    }
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(state, path, metadata=metadata)
    return path
