"""`demucs.pretrained`: models by name."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from htdemucs.compat.demucs.repo import (
    AnyModelRepo,
    BagOnlyRepo,
    LocalRepo,
    ModelLoadingError,
    ModelOnlyRepo,
    load,
)
from htdemucs.compat.demucs.utils import fatal
from htdemucs.compat.networks import HDemucs, PublishedModel
from htdemucs.weights.registry import DEFAULT_MODEL

__all__ = [
    "DEFAULT_MODEL",
    "SOURCES",
    "AnyModelRepo",
    "BagOnlyRepo",
    "HDemucs",
    "LocalRepo",
    "ModelLoadingError",
    "ModelOnlyRepo",
    "add_model_flags",
    "demucs_unittest",
    "fatal",
    "get_model",
    "get_model_from_args",
]

SOURCES = ["drums", "bass", "other", "vocals"]
UNITTEST = "demucs_unittest"


def demucs_unittest() -> HDemucs:
    """Return a small network with initial values, for tests of programs."""
    return HDemucs(channels=4, sources=SOURCES)


def get_model(name: str, repo: str | Path | None = None) -> PublishedModel:
    """Return a model on the CPU: a network for a signature, a bag for any other name.

    Args:
        name: any name or path that `htdemucs.load_model` takes.
        repo: look for the name only in this folder.

    Raises:
        ModelLoadingError: nothing has that name, or it cannot be downloaded or read.
    """
    return demucs_unittest().eval() if name == UNITTEST else load(name, repo)


def get_model_from_args(args: Namespace) -> PublishedModel:
    """Return the model that the flags of `add_model_flags` name."""
    name = getattr(args, "sig", None) or args.name or DEFAULT_MODEL
    return get_model(name, getattr(args, "repo", None))


def add_model_flags(parser: ArgumentParser) -> None:
    """Add the flags that name a model."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-s", "--sig", help="signature of one network")
    group.add_argument("-n", "--name", default=DEFAULT_MODEL, help="name or path of a model")
    parser.add_argument("--repo", type=Path, help="folder that has the model")
