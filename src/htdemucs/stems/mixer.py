"""The mix of the stems in live separation, with gains that can change at any time."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from htdemucs.errors import SeparationError

GAIN_STEP = 2.0  # dB
MAX_GAIN, MIN_GAIN = 12.0, -60.0  # dB; below the minimum a stem is silent


class Mixer:
    """Sums stems, each with a gain. As on the page, a solo overrides a mute.

    Args:
        stems: their names.
        gains: factors by stem; 1 for those that are not named.

    Raises:
        SeparationError: a stem does not exist, or a gain is out of range.
    """

    def __init__(self, stems: Sequence[str], gains: Mapping[str, float] | None = None) -> None:
        for name, gain in (gains or {}).items():
            if name not in stems:
                raise SeparationError(f"no stem {name!r}; the model has {', '.join(stems)}")
            if not 0 <= gain <= 10 ** (MAX_GAIN / 20):
                raise SeparationError(f"the gain of {name} must be from 0 to 3.98, not {gain:g}")
        self.stems = list(stems)
        self._gains = [(gains or {}).get(name, 1.0) for name in stems]
        self._muted: set[int] = set()
        self._soloed: set[int] = set()
        self._previous = self.gains()

    def gains(self) -> list[float]:
        """Return the factor on each stem, with mutes and solos."""
        if self._soloed:
            return [gain if i in self._soloed else 0.0 for i, gain in enumerate(self._gains)]
        return [0.0 if i in self._muted else gain for i, gain in enumerate(self._gains)]

    def mute(self, stem: int) -> None:
        """Mute or unmute a stem."""
        self._muted ^= {stem}

    def solo(self, stem: int) -> None:
        """Start or end the solo of a stem: while there are solos, all other stems are silent."""
        self._soloed ^= {stem}

    def adjust_gain(self, stem: int, steps: int) -> None:
        """Change a stem's gain by a number of steps."""
        if not self._gains[stem] and steps > 0:
            self._gains[stem] = 10 ** (MIN_GAIN / 20)
            return
        gain = self._gains[stem] * 10 ** (GAIN_STEP * steps / 20)
        lowest, highest = (10 ** (dB / 20) for dB in (MIN_GAIN, MAX_GAIN))
        self._gains[stem] = 0.0 if gain < 0.99 * lowest else min(gain, highest)

    def describe(self, selected: int) -> str:
        """Return one line for all stems: their gains in dB, mutes and solos, and the selection."""
        items = []
        for i, name in enumerate(self.stems):
            gain = f"{20 * torch.tensor(self._gains[i]).log10():+.0f} dB"
            state = "solo" if i in self._soloed else "mute" if i in self._muted else gain
            items.append(f"{'>' if i == selected else ' '}{i + 1} {name} {state}")
        return "  ".join(items)

    def mix(self, stems: Mapping[str, Tensor]) -> Tensor:
        """Stems, each (C, L) -> (C, L); a gain that has changed is interpolated over the block."""
        previous, gains = self._previous, self.gains()
        self._previous = gains
        pieces = []
        for name, old, new in zip(self.stems, previous, gains, strict=True):
            length = stems[name].shape[-1]
            gain = torch.linspace(old, new, length + 1)[1:] if old != new else torch.tensor(new)
            pieces.append(stems[name] * gain)
        return torch.stack(pieces).sum(0)
