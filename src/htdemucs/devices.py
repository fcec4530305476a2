"""Choose the device that computes, and check what torch creates by default."""

import torch

from htdemucs.errors import ConfigError


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the given device after a test; by default CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: this machine does not have the device.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"this machine has no device {device}; try cpu") from None
    return chosen


def check_torch_defaults() -> None:
    """Check that torch creates float32 tensors on the CPU by default.

    Raises:
        ConfigError: the process has set another default.
    """
    default = torch.empty(0)
    if default.dtype != torch.float32 or default.device.type != "cpu":
        raise ConfigError(
            f"torch creates {default.dtype} tensors on {default.device} by default, and separation "
            "needs float32 on the CPU; call torch.set_default_dtype(torch.float32) and "
            'torch.set_default_device("cpu"), and pass device to choose where the network runs'
        )
