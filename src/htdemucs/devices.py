"""Choose the device that computes."""

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
