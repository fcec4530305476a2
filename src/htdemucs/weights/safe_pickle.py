"""Read official `.th` files, which are pickles, and execute nothing in them.

A pickle is a program that may name functions and classes. First its instructions are read, not run:
a file is refused if it has a name that no genuine file has. Then torch's restricted loader runs it,
with an inert stand-in for every name that is not torch's.
"""

import io
import pickletools
import threading
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch

from htdemucs.errors import CheckpointError
from htdemucs.weights import build
from htdemucs.weights.diffq import DIFFERENTIABLE, UNIFORM, Quantised

# Published class -> our kind of network.
KINDS = {
    "demucs.htdemucs.HTDemucs": "HTDemucs",
    "demucs.hdemucs.HDemucs": "HDemucs",
    "demucs.demucs.Demucs": "Demucs",
}
# Kind, arguments, keywords, and the tensors by name or quantised.
Contents = tuple[str, list[Any], dict[str, Any], dict[str, Any] | Quantised]

MAX_PICKLE = 64 << 20  # bytes, without the tensors; released files have 0.1 MB
MAX_TUPLE = 1000  # values in a tuple and the tuples inside it
LEGACY_PICKLES = 5  # in files of torch before 1.6: three headers, the contents, the tensors' names


class _Numbers:
    """Stands in for NumPy's values and types, which official files hold among their metrics."""

    def __init__(self, *args: object) -> None:
        """Drop the arguments."""

    def __setstate__(self, state: object) -> None:
        """Drop the state."""


class _FractionParts:
    """Stands in for `Fraction`, whose own parser takes very long over some strings."""

    __slots__ = ("parts",)

    def __init__(self, *parts: object) -> None:
        self.parts = parts


# Stand-ins for the classes of quantisers -> their names.
_QUANTISERS = {type("Quantiser", (), {}): name for name in (DIFFERENTIABLE, UNIFORM)}
_CLASSES = {type(kind, (), {}): kind for kind in KINDS.values()}  # only their identity matters
_STAND_INS: dict[str, type] = {
    **{name: stand_in for stand_in, name in _QUANTISERS.items()},
    **dict(zip(KINDS, _CLASSES, strict=True)),
    "fractions.Fraction": _FractionParts,
    "numpy.dtype": _Numbers,
    "numpy.ndarray": _Numbers,
    **{
        f"numpy.{core}.multiarray.{name}": _Numbers
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
}
_TORCH_NAMES = {
    "_codecs.encode",
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{kind}Storage" for kind in ("BFloat16", "Half", "Float", "Double")),
    *(f"torch.{kind}Storage" for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long")),
}
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", *_TUPLES),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
}
_unpickling = threading.Lock()  # torch's list of allowed names is global


def read(path: Path) -> Contents:
    """Return the kind, the constructor's arguments and the parameters in a `.th` file.

    Raises:
        CheckpointError: the file is damaged, unsafe, or no official checkpoint.
    """
    try:
        _vet(path)
        names = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
        with _unpickling, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals(names):  # type: ignore[arg-type]
                package = torch.load(path, map_location="cpu", weights_only=True)
        return _unpack(package)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive surfaces as almost anything
        raise CheckpointError(damaged(error)) from error


def damaged(error: Exception) -> str:
    """Return the message for a file that cannot be parsed."""
    return f"damaged or incomplete ({type(error).__name__}); download it again"


def class_message(name: str) -> str:
    """Return the message for a network of an unknown class."""
    return f"its network is {name}; only {', '.join(KINDS.values())} can be run"


def _vet(path: Path) -> None:
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
    """Raise CheckpointError if a pickle has unknown instructions, unknown names or huge tuples.

    This follows the pickle's stack and keeps only the size of each value. Tuples matter because
    they may be keys of dictionaries: hashing a very deep tuple crashes the process, and hashing a
    tuple that holds another one twice, which again holds another one twice, and so on, never ends.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[Any, int | None] = {}
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in _OPCODES:
            raise CheckpointError("refused: it has instructions that no genuine checkpoint has")
        if opcode.name == "GLOBAL":
            _vet_name(str(argument).replace(" ", "."))
        if opcode.name.endswith("BINPUT"):
            memo[argument] = stack[-1]
        elif opcode.name.endswith("BINGET"):
            stack.append(memo[argument])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            parts = _popped(stack, opcode.stack_before)
            size = 1 + sum(parts) if opcode.name in _TUPLES else 1
            if size > MAX_TUPLE:
                raise CheckpointError("refused: no genuine checkpoint is nested like this")
            stack.extend(size for _ in opcode.stack_after)


def _popped(stack: list[int | None], before: Sequence[pickletools.StackObject]) -> list[int]:
    """Pop the sizes of the values that an instruction takes from the stack."""
    parts = []
    for kind in reversed(before):
        if kind is pickletools.stackslice:
            while (top := stack.pop()) is not None:
                parts.append(top)
        elif kind is not pickletools.markobject:
            parts.append(stack.pop() or 0)
    return parts


def _vet_name(name: str) -> None:
    if name not in _STAND_INS and name not in _TORCH_NAMES:
        name = build.shown(name)
        raise CheckpointError(
            f"refused: it wants to run or create {name}, which no genuine checkpoint does"
        )


def _unpack(package: Any) -> Contents:
    """Return plain containers and tensors; no object of the file's own is used after this."""
    if not isinstance(package, dict) or not {"klass", "kwargs", "state"} <= set(package):
        raise CheckpointError("not an official checkpoint: it lacks klass, kwargs or state")
    if not isinstance(package["klass"], type) or package["klass"] not in _CLASSES:
        raise CheckpointError(class_message("of no known class"))
    args = dict.get(package, "args", ())  # an ordered dictionary could bring its own .get
    kwargs, state = package["kwargs"], package["state"]
    containers = isinstance(args, list | tuple) and isinstance(kwargs, dict)
    if not containers or not isinstance(state, dict) or {*map(type, (*kwargs, *state))} - {str}:
        raise CheckpointError("not an official checkpoint: its args, kwargs or state is damaged")
    parameters: dict[str, Any] | Quantised
    if dict.get(state, "__quantized") is True:
        parameters = _quantised(state)
    else:
        parameters = {name: build.plain_tensor(state[name]) for name in state}
    return (
        _CLASSES[package["klass"]],
        [_decoded(value) for value in args],
        {name: _decoded(kwargs[name]) for name in kwargs},
        parameters,
    )


def _quantised(state: dict[str, Any]) -> Quantised:
    meta = dict.get(state, "meta")
    stand_in = dict.get(meta, "klass") if isinstance(meta, dict) else None
    name = next((name for kind, name in _QUANTISERS.items() if kind is stand_in), "")
    return Quantised(state, name)


def _decoded(value: Any) -> Any:
    return build.exact_fraction(*value.parts) if isinstance(value, _FractionParts) else value
