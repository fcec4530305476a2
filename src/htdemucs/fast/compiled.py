"""Networks compiled by torch, with what was compiled kept on disk."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from htdemucs.errors import ConfigError
from htdemucs.files import user_cache

Core = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def compile_core(core: Core) -> Core:
    """`HTDemucs.core`, compiled when it first runs, for the device its inputs are on.

    That takes a minute or more; the next process reads what came out from TORCHINDUCTOR_CACHE_DIR,
    by default a folder in the user's cache.

    Calling it raises `ConfigError` where torch cannot compile.
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
