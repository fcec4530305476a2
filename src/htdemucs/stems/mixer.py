"""The live mix of stems, whose gains can change while it plays."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from htdemucs.errors import SeparationError

STEP = 2.0  # dB
LOUDEST, SOFTEST = 12.0, -60.0  # dB


class Mixer:
    """Adds up stems, each with a gain. As on the page, a solo overrides mutes.

    Args:
        stems: the names of the stems.
        gains: factors by stem; 1 for stems that are not named.

    Raises:
        SeparationError: a stem does not exist, or a gain is out of range.
    """

    def __init__(self, stems: Sequence[str], gains: Mapping[str, float] | None = None) -> None:
        for name, gain in (gains or {}).items():
            if name not in stems:
                raise SeparationError(f"no stem {name}; this model has {', '.join(stems)}")
            if not 0 <= gain <= 10 ** (LOUDEST / 20):
                raise SeparationError(f"the gain of {name} must be from 0 to 3.98, not {gain:g}")
        self.stems = list(stems)
        self._volumes = [(gains or {}).get(name, 1.0) for name in stems]
        self._muted: set[int] = set()
        self._soloed: set[int] = set()
        self._last_gains = self.gains()

    def gains(self) -> list[float]:
        """Return the factor on each stem."""
        if self._soloed:
            return [v if i in self._soloed else 0.0 for i, v in enumerate(self._volumes)]
        return [0.0 if i in self._muted else v for i, v in enumerate(self._volumes)]

    def mute(self, stem: int) -> None:
        """Mute a stem, or unmute it."""
        self._muted ^= {stem}

    def solo(self, stem: int) -> None:
        """Add a stem to the solo, or remove it. While there is a solo, other stems are silent."""
        self._soloed ^= {stem}

    def adjust_gain(self, stem: int, steps: int) -> None:
        """Change a stem's volume by a number of steps; below -60 dB it is silent."""
        if not self._volumes[stem] and steps > 0:
            self._volumes[stem] = 10 ** (SOFTEST / 20)
            return
        volume = self._volumes[stem] * 10 ** (STEP * steps / 20)
        softest, loudest = (10 ** (dB / 20) for dB in (SOFTEST, LOUDEST))
        self._volumes[stem] = 0.0 if volume < 0.99 * softest else min(volume, loudest)

    def describe(self, chosen: int) -> str:
        """Return a line with the volume in dB, mute or solo of each stem; `chosen` has a mark."""
        words = []
        for i, name in enumerate(self.stems):
            volume = f"{20 * torch.tensor(self._volumes[i]).log10():+.0f} dB"
            state = "solo" if i in self._soloed else "mute" if i in self._muted else volume
            words.append(f"{'>' if i == chosen else ' '}{i + 1} {name} {state}")
        return "  ".join(words)

    def mix(self, stems: Mapping[str, Tensor]) -> Tensor:
        """Stems (C, L) each -> (C, L). A changed gain reaches its value at the end of the block."""
        before, now = self._last_gains, self.gains()
        self._last_gains = now
        pieces = []
        for name, old, new in zip(self.stems, before, now, strict=True):
            length = stems[name].shape[-1]
            gain = torch.linspace(old, new, length + 1)[1:] if old != new else torch.tensor(new)
            pieces.append(stems[name] * gain)
        return torch.stack(pieces).sum(0)
