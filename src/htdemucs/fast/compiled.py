"""Compile networks with torch, and keep the results on disk."""

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from htdemucs.errors import ConfigError
from htdemucs.fsutil import user_cache

P = ParamSpec("P")
R = TypeVar("R")


def compile_function(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that compiles `function`, a network's, on its first call and then runs it.

    It compiles for the device of its inputs, which takes a minute or more. The next process reads
    the result from TORCHINDUCTOR_CACHE_DIR, by default a folder in the user's cache.

    Calling the function raises `ConfigError` if torch cannot compile on this machine.
    """
    # Before the import, which takes half a second, and sets it to a folder that does not last.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "htdemucs" / "compiled"))
    from torch._dynamo.exc import TorchDynamoException

    run = torch.compile(function)

    def call(*inputs: P.args, **options: P.kwargs) -> R:
        try:
            return run(*inputs, **options)
        except TorchDynamoException as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"torch cannot compile here ({reason}); do not compile") from error

    return call
