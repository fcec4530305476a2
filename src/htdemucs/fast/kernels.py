"""Call the compiled kernels (`native/`) with tensors.

They run on a CPU, on contiguous tensors of float32 or bfloat16, with as many threads as torch uses.
Shapes: B batch, T frame, F bin, L sample, N token, C channel, S source times audio channel.
"""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from htdemucs.errors import ConfigError

LANES = 16  # the number of channels must be a multiple of this
FOLDER = Path(__file__).parent
BUILDS = {  # the CPU feature that each build needs, best build first
    "amx": "amx_bf16",
    "avx512bf16": "avx512_bf16",
    "avx512": "avx512_dq",
    "avx2": "avx2",
    "neon": "neon",
}
WITH_BF16 = ("amx", "avx512bf16")
BUILD_VARIABLE = "HTDEMUCS_KERNELS"  # environment variable: a build, or "none"
TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "i": ctypes.c_int, "f": ctypes.c_float}
SIGNATURES = {  # the arguments of each kernel, in letters of `TYPES`
    "dconv_rows": "ipnpipnnnn",
    "dconv_line": "ipnpn",
    "attention": "ippppnnn",
    "glu": "ipnnnppn",
    "layer_norm": "ipnnppp",
    "add": "ippn",
    "add_and_norm": "ippnnpp",
    "pack_spectrum": "ipnnnppn",
    "unpack_spectrum": "ipnnnnffp",
    "overlap_add": "ippnnnpffpn",
}


class DConvParameters(ctypes.Structure):
    """One layer's parameters: `DConvLayer` in `native/dconv.h`."""

    _fields_ = [
        ("squeeze", ctypes.c_void_p),
        ("squeeze_bias", ctypes.c_void_p),
        ("squeeze_gain", ctypes.c_void_p),
        ("squeeze_offset", ctypes.c_void_p),
        ("expand", ctypes.c_void_p),
        ("expand_bias", ctypes.c_void_p),
        ("expand_gain", ctypes.c_void_p),
        ("expand_offset", ctypes.c_void_p),
        ("layer_scale", ctypes.c_void_p),
        ("weight_sum", ctypes.c_void_p),
        ("weight_bias", ctypes.c_void_p),
        ("weight_product", ctypes.c_void_p),
        ("bias_sum", ctypes.c_double),
        ("bias_square", ctypes.c_double),
        ("channels", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("pitch", ctypes.c_int64),
        ("taps_pitch", ctypes.c_int64),
        ("dilation", ctypes.c_int64),
    ]


class _Tokens(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("tokens", ctypes.c_int64), ("pitch", ctypes.c_int64)]


def cpu_has(feature: str) -> bool:
    """Whether this CPU has an instruction set; `feature` is torch's name for it."""
    if feature == "neon":  # part of every 64-bit Arm
        return platform.machine() in ("aarch64", "arm64")
    cpu: Any = torch.cpu  # the oldest supported torch has neither of these functions
    if feature == "amx_bf16" and not getattr(cpu, "_init_amx", bool)():
        return False  # Linux enables the registers only for processes that request them
    capabilities: dict[str, Any] = getattr(cpu, "get_capabilities", dict)()
    return bool(capabilities.get(feature))


@cache
def build() -> str | None:
    """Return the name of the best build that this CPU runs, or of the one in HTDEMUCS_KERNELS.

    Raises:
        ConfigError: HTDEMUCS_KERNELS is not a build that runs on this machine.
    """
    builds = [name for name, feature in BUILDS.items() if _path(name).exists() and cpu_has(feature)]
    choice = os.environ.get(BUILD_VARIABLE)
    if choice == "none":
        return None
    if choice and choice not in builds:
        raise ConfigError(
            f"{BUILD_VARIABLE} must be {', '.join([*builds, 'none'])}, not {choice!r}"
        )
    return choice or next(iter(builds), None)


@cache
def library() -> ctypes.CDLL | None:
    """Return the kernels for this CPU, or None if there are none."""
    name = build()
    if name is None:
        return None
    try:
        for openmp in Path(torch.__file__).parents[1].glob("torch.libs/libgomp*"):  # on aarch64
            ctypes.CDLL(
                str(openmp), ctypes.RTLD_GLOBAL
            )  # torch loaded it without exporting its symbols
        return load(name)
    except OSError:  # compiled for another system, or this torch has no OpenMP
        return None


def load(build: str) -> ctypes.CDLL:
    """Load a build of the kernels, and declare the arguments of its functions to ctypes."""
    kernels = ctypes.CDLL(str(_path(build)))
    for name, signature in SIGNATURES.items():
        function = getattr(kernels, f"htdemucs_{name}")
        function.argtypes = [TYPES[letter] for letter in signature]
        function.restype = ctypes.c_int
    return kernels


def has_bf16() -> bool:
    """Whether the kernels compute in bfloat16 on this CPU."""
    return build() in WITH_BF16 and library() is not None


def dconv_rows(
    layers: "ctypes.Array[DConvParameters]", x: Tensor, channels: int, *, glu: bool
) -> Tensor:
    """Apply a DConv that normalises each frequency row: (B, T, F, C) -> (B, T, F, C).

    With `glu`, x is (B, T, F, 2C), and a gated linear unit is applied to it first.
    """
    x = x.contiguous()
    y = x.new_empty(*x.shape[:-1], channels)
    _call(
        "dconv_rows", x, layers, len(layers), x.data_ptr(), glu, y.data_ptr(),
        *x.shape[:3], channels,
    )  # fmt: skip
    return y


def dconv_line(layers: "ctypes.Array[DConvParameters]", x: Tensor) -> Tensor:
    """Apply a DConv that normalises over all samples: (B, 1, L, C) -> (B, 1, L, C).

    A contiguous x is changed in place.
    """
    x = x.contiguous()
    for item in x:
        _call("dconv_line", x, layers, len(layers), item.data_ptr(), x.shape[2])
    return x


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(B, N, C), (B, M, C), (B, M, C) -> (B, N, C); inputs may be slices of a wider last axis."""
    batch, tokens, channels = query.shape
    for x in (query, key, value):
        assert x.stride(2) == 1, "channels must be contiguous"
        assert batch == 1 or x.stride(0) == x.shape[1] * x.stride(1), "items must be contiguous"
    y = query.new_empty(batch, tokens, channels)
    inputs = (_Tokens(x.data_ptr(), x.shape[1], x.stride(1)) for x in (query, key, value))
    pointers = (ctypes.byref(x) for x in inputs)
    _call("attention", query, *pointers, y.data_ptr(), batch, heads, channels // heads)
    return y


def glu(x: Tensor, margin: int = 0, tail: int = 0, embedding: Tensor | None = None) -> Tensor:
    """(B, T, F, 2C) -> (B, T, margin + F + tail + margin, C), with zeros outside F.

    `embedding`, (F, C) of float32, is added to every frame.
    """
    x = x.contiguous()
    batch, frames, bins, channels = x.shape[0], x.shape[1], x.shape[2], x.shape[3] // 2
    y = x.new_empty(batch, frames, bins + tail + 2 * margin, channels)
    y[:, :, :margin] = 0
    y[:, :, margin + bins :] = 0
    table = None if embedding is None else embedding.data_ptr()
    _call(
        "glu", x, x.data_ptr(), batch * frames, bins, channels, table,
        y[:, :, margin:].data_ptr(), y.stride(1),
    )  # fmt: skip
    return y


def layer_norm(x: Tensor, gain: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, N, C) of float32 -> (B, N, C) of `dtype`."""
    x = x.contiguous()
    y = torch.empty_like(x, dtype=dtype)
    tokens, channels = x.shape[0] * x.shape[1], x.shape[2]
    _call(
        "layer_norm", y, x.data_ptr(), tokens, channels, gain.data_ptr(), offset.data_ptr(),
        y.data_ptr(),
    )  # fmt: skip
    return y


def add(x: Tensor, y: Tensor) -> None:
    """Add y, in either element type, to x, in float32 and in place."""
    _call("add", y, x.data_ptr(), y.data_ptr(), x.numel())


def add_and_norm(x: Tensor, y: Tensor, gain: Tensor, offset: Tensor) -> None:
    """Add y (B, N, C) to x (B, N, C), in float32 and in place; normalise over an item's tokens."""
    for a, b in zip(x, y, strict=True):
        _call(
            "add_and_norm", y, a.data_ptr(), b.data_ptr(), *a.shape,
            gain.data_ptr(), offset.data_ptr(),
        )  # fmt: skip


def pack_spectrum(spectrum: Tensor, margin: int, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Complex (B, C, T, F + 1) -> (B, T, margin + F + margin, 2C) and each item's moments.

    Every item is normalised to zero mean and unit deviation; its moments are the mean and deviation
    before that. The last bin is dropped. The margins are zeros.
    """
    batch, channels, frames, bins = spectrum.shape
    y = torch.empty(batch, frames, bins - 1 + 2 * margin, 2 * channels, dtype=dtype)
    moments = torch.empty(batch, 2, dtype=torch.float32)
    for item, item_moments, out in zip(spectrum.contiguous(), moments, y, strict=True):
        _call(
            "pack_spectrum", y, item.data_ptr(), channels, frames, bins - 1,
            item_moments.data_ptr(), out.data_ptr(), margin,
        )  # fmt: skip
    return y, list(moments)


def unpack_spectrum(x: Tensor, moments: list[Tensor]) -> Tensor:
    """(B, T, F, 2S), with any stride of T -> complex (B, S, T, F + 1) with these moments.

    The last bin is 0.
    """
    batch, frames, bins, width = x.shape
    y = torch.empty(batch, width // 2, frames, bins + 1, dtype=torch.complex64)
    for item, item_moments, out in zip(x, moments, y, strict=True):
        mean, deviation = item_moments.tolist()
        _call(
            "unpack_spectrum", x, item.data_ptr(), x.stride(1), width // 2, frames, bins,
            deviation, mean, out.data_ptr(),
        )  # fmt: skip
    return y


def overlap_add(frames: Tensor, window: Tensor, time: Tensor, moments: list[Tensor]) -> Tensor:
    """(B, S, T, 4H), (B, L, S) -> (B, S, L): windowed frames added up, plus `time`

    `time` gets these moments.
    """
    batch, signals, count, size = frames.shape
    length = time.shape[1]
    y = torch.empty(batch, signals, length, dtype=torch.float32)
    for item, samples, item_moments, out in zip(frames, time, moments, y, strict=True):
        mean, deviation = item_moments.tolist()
        _call(
            "overlap_add", time, item.data_ptr(), window.data_ptr(), signals, count, size // 4,
            samples.data_ptr(), deviation, mean, out.data_ptr(), length,
        )  # fmt: skip
    return y


def _path(build: str) -> Path:
    return FOLDER / f"kernels_{build}.so"


def _call(name: str, like: Tensor, *arguments: object) -> None:
    """Run a kernel for the element type of `like`."""
    kernels = library()
    assert kernels is not None, "no kernels for this CPU"
    if getattr(kernels, f"htdemucs_{name}")(int(like.dtype == torch.bfloat16), *arguments) == 1:
        raise torch.OutOfMemoryError(f"out of memory: {name} needs more than is free")
