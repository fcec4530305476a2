"""Read checkpoints that are pickles, such as official `.th` files, and execute nothing in them.

A pickle is a program that may name functions and classes. torch's restricted loader
(`weights_only`) runs only a few instructions, which build plain containers and tensors. Two things
that it allows are refused before it starts: names that no genuine file has, and nested tuples that
would never finish hashing. Published classes become inert stand-ins.
"""

import io
import pickle
import pickletools
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import torch

from htdemucs.errors import CheckpointError
from htdemucs.weights.build import exact_fraction, plain_tensor, short_repr
from htdemucs.weights.diffq import DIFFERENTIABLE, UNIFORM, Quantised

T = TypeVar("T")

# Published class -> our architecture.
ARCHITECTURES = {
    "demucs.htdemucs.HTDemucs": "HTDemucs",
    "demucs.hdemucs.HDemucs": "HDemucs",
    "demucs.demucs.Demucs": "Demucs",
}

MAX_PICKLE = 64 << 20  # bytes, without the tensors; released files have 0.1 MB
MAX_TUPLE = 1000  # values in a tuple and the tuples inside it
LEGACY_PICKLES = 5  # in files of torch before 1.6: three headers, the contents, the tensors' names


class Contents(NamedTuple):
    """The contents of an official file, as plain data."""

    architecture: str
    args: list[Any]  # of the published constructor
    kwargs: dict[str, Any]
    state: dict[str, Any] | Quantised  # tensors by their published names


class _NumpyStandIn:
    """Replaces NumPy's values and types, which official files hold among their metrics."""

    def __init__(self, *args: object) -> None:
        """Drop the arguments."""

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


class _FractionStandIn:
    """Replaces `Fraction`, whose own parser takes very long over some strings."""

    __slots__ = ("parts",)

    def __init__(self, *parts: object) -> None:
        self.parts = parts


# Empty classes; only their identity matters.
_NETWORKS = {type(name, (), {}): name for name in ARCHITECTURES}
_QUANTISERS = {type("Quantiser", (), {}): name for name in (DIFFERENTIABLE, UNIFORM)}
_STAND_INS: dict[str, type] = {
    **{name: stand_in for stand_in, name in (_NETWORKS | _QUANTISERS).items()},
    "fractions.Fraction": _FractionStandIn,
    "numpy.dtype": _NumpyStandIn,
    "numpy.ndarray": _NumpyStandIn,
    **{
        f"numpy.{core}.multiarray.{name}": _NumpyStandIn
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
}
_ALLOWED_NAMES = {
    *_STAND_INS,
    "_codecs.encode",
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{dtype}Storage" for dtype in ("BFloat16", "Half", "Float", "Double")),
    *(f"torch.{dtype}Storage" for dtype in ("Bool", "Byte", "Char", "Short", "Int", "Long")),
}
_safe_globals_lock = threading.Lock()  # torch's list of safe names is global


def read(path: Path) -> Contents:
    """Return the architecture, the constructor's arguments and the parameters in a `.th` file.

    Raises:
        CheckpointError: the file is damaged, unsafe, or not an official checkpoint.
    """
    return _guarded(path, _contents)


def read_state(path: Path) -> tuple[dict[str, Any], bool]:
    """Return the state dict in a file of any program, and whether the file is an official one.

    A value that is not a plain tensor is None.

    Raises:
        CheckpointError: the file is damaged or unsafe, or has no state dict.
    """
    return _guarded(path, _state_dict)


def _guarded(path: Path, function: Callable[[Any], T]) -> T:
    """Load a file, and return what a function makes of its contents; all errors are one line."""
    try:
        _vet(path)
        stand_ins = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
        with _safe_globals_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
                package = torch.load(path, map_location="cpu", weights_only=True)
        return function(package)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "refused: it has instructions that no genuine checkpoint has"
        ) from error
    except Exception as error:  # a damaged archive surfaces as almost anything
        raise CheckpointError(damaged(error)) from error


def damaged(error: Exception) -> str:
    """Return the message for a file that cannot be parsed."""
    return f"damaged or incomplete ({type(error).__name__}); download it again"


def unknown_class(name: str) -> str:
    """Return the message for a network of an unknown class."""
    return f"its network is {name}; only {', '.join(ARCHITECTURES.values())} can be run"


def _vet(path: Path) -> None:
    """Raise CheckpointError if a file has names or nested tuples that no genuine file has."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if not zipped:
            for _ in range(LEGACY_PICKLES):
                _vet_pickle(file)
            return
        with zipfile.ZipFile(file) as archive:
            (info,) = (i for i in archive.infolist() if i.filename.endswith("/data.pkl"))
            if info.file_size > MAX_PICKLE or info.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError("refused: no genuine checkpoint is packed like this")
            _vet_pickle(io.BytesIO(archive.read(info)))


def _vet_pickle(file: IO[bytes]) -> None:
    """Check the names and the tuples in a pickle without running it.

    Tuples matter because they may be keys of dictionaries: hashing a very deep tuple crashes the
    process, and hashing a tuple that holds another one twice, which again holds another one twice,
    and so on, never ends. So this follows the pickle's stack and keeps the size of each value.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[Any, int | None] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            if name not in _ALLOWED_NAMES:
                raise CheckpointError(
                    f"refused: it wants to run or create {short_repr(name)}, "
                    "which no genuine checkpoint does"
                )
        if opcode.name.endswith("BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name.endswith("BINGET"):
            stack.append(memo[argument])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            parts: list[int] = []
            for taken in reversed(opcode.stack_before):
                if taken is pickletools.stackslice:
                    while (top := stack.pop()) is not None:
                        parts.append(top)
                elif taken is not pickletools.markobject:
                    parts.append(stack.pop() or 0)
            size = 1 + sum(parts) if opcode.name.startswith("TUPLE") else 1
            if size > MAX_TUPLE:
                raise CheckpointError("refused: no genuine checkpoint is nested like this")
            stack.extend(size for _ in opcode.stack_after)


def _contents(package: Any) -> Contents:
    """Return plain containers and tensors; no object of the file's own is used after this."""
    if not isinstance(package, dict) or not {"klass", "kwargs", "state"} <= set(package):
        raise CheckpointError(
            "not an official checkpoint: it lacks klass, kwargs or state; if a yaml file belongs "
            "to it, give that as its configuration"
        )
    if not isinstance(package["klass"], type) or package["klass"] not in _NETWORKS:
        raise CheckpointError(unknown_class("of no known class"))
    args = dict.get(package, "args", ())  # an ordered dictionary could bring its own .get
    kwargs, state = package["kwargs"], package["state"]
    containers = isinstance(args, list | tuple) and isinstance(kwargs, dict)
    if not containers or not isinstance(state, dict) or {*map(type, (*kwargs, *state))} - {str}:
        raise CheckpointError("not an official checkpoint: its args, kwargs or state is damaged")
    parameters: dict[str, Any] | Quantised
    if dict.get(state, "__quantized") is True:
        meta = dict.get(state, "meta")
        stand_in = dict.get(meta, "klass") if isinstance(meta, dict) else None
        quantiser = next((name for klass, name in _QUANTISERS.items() if klass is stand_in), "")
        parameters = Quantised(state, quantiser)
    else:
        parameters = {name: plain_tensor(state[name]) for name in state}
    return Contents(
        ARCHITECTURES[_NETWORKS[package["klass"]]],
        [_decoded(value) for value in args],
        {name: _decoded(kwargs[name]) for name in kwargs},
        parameters,
    )


def _state_dict(package: Any) -> tuple[dict[str, Any], bool]:
    state = package
    for wrapper in ("state", "state_dict", "model_state_dict"):
        inner = dict.get(package, wrapper) if isinstance(package, dict) else None
        state = inner if isinstance(inner, dict) else state
    if not isinstance(state, dict) or not state or {*map(type, state)} - {str}:
        raise CheckpointError("it has no state dict: parameters by their names")
    official = isinstance(package, dict) and {"klass", "kwargs", "state"} <= set(package)
    return {name: plain_tensor(dict.get(state, name)) for name in state}, official


def _decoded(value: Any) -> Any:
    return exact_fraction(*value.parts) if isinstance(value, _FractionStandIn) else value
