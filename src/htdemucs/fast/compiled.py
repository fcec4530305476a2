"""Compile networks with torch, and keep the results on disk."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from htdemucs.errors import ConfigError
from htdemucs.files import user_cache

Core = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def compile_core(core: Core) -> Core:
    """Return a function that compiles `HTDemucs.core` on its first call and then runs it.

    It compiles for the device of its inputs, which takes a minute or more. The next process reads
    the result from TORCHINDUCTOR_CACHE_DIR, by default a folder in the user's cache.

    Calling the function raises `ConfigError` if torch cannot compile on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException  # half a second to import

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "htdemucs" / "compiled"))
    run = torch.compile(core)

    def call(mixture: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return run(mixture, spectrogram)
        except TorchDynamoException as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"torch cannot compile here ({reason}); leave out `compiled`"
            ) from error

    return call
