"""Choose the files of a multitrack that are its stems: together the song, and nothing twice."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from htdemucs.audio import AudioFile
from htdemucs.errors import AudioError
from htdemucs.evaluation.frames import MIXTURE, side_by_side
from htdemucs.evaluation.multitracks import Multitrack, stem_key

ROUNDING = 2 / 2**15  # root mean square by which files of 16 bits may differ from their sum
FAITHFUL = 40.0  # dB of a mixture over its difference from the stems' sum; less is worth a note
MOST_FILES = 12  # every subset of so many is tried; of more files, none is taken for a sum


def choose_stems(
    multitrack: Multitrack, targets: Sequence[str], sources: Sequence[str] = ()
) -> Multitrack:
    """Return the multitrack with the files that are its stems; the others are left out.

    Where all sources of a model are there, they are the stems. Otherwise every file is one but for
    those that equal the sum of others, to rounding, and those without which the others add up to
    the mixture.

    Args:
        multitrack: as its folder is.
        targets: stems to score.
        sources: everything that the model gives; empty if unknown.

    Raises:
        AudioError: a file cannot be read.
    """
    if sources and not multitrack.missing(sources):
        return _with_sources(multitrack, {stem_key(source) for source in sources})
    if multitrack.missing(targets) or not 2 < len(multitrack.stems) <= MOST_FILES:
        return multitrack
    names, mixture = list(multitrack.stems), multitrack.mixture
    files = {**multitrack.stems, **({MIXTURE: mixture} if mixture else {})}
    content = _Content(files)
    content.read(
        lambda: (
            any(content.may_be_sum(name, names) for name in names)
            or bool(mixture and not content.is_mixture(names))
        )
    )
    target_keys = {stem_key(stem) for stem in targets}
    reasons = _sums(content, names, names, target_keys)
    if mixture:
        rest = [name for name in names if name not in reasons]
        reasons |= _outside_mixture(content, rest, target_keys)
    return multitrack.without(reasons)


def _with_sources(multitrack: Multitrack, sources: Collection[str]) -> Multitrack:
    others = [name for name in multitrack.stems if name not in sources]
    reasons = dict.fromkeys(others, "no source of the model")
    if others and len(multitrack.stems) <= MOST_FILES:
        content = _Content(multitrack.stems)
        with suppress(AudioError):  # a file that is not scored may be damaged
            content.read(lambda: any(content.may_be_sum(name, sources) for name in others))
            reasons |= _sums(content, others, sources, sources)
    return multitrack.without(reasons)


def _sums(
    content: "_Content", names: Sequence[str], among: Collection[str], targets: Collection[str]
) -> dict[str, str]:
    """Return the names that repeat others, each with the reason.

    A sum is one and not its members, unless only the sum is a target.
    """
    reasons: dict[str, str] = {}
    for name in names:
        if name in reasons:
            continue
        members = content.members_of_sum(name, [n for n in among if n not in reasons])
        if members and name in targets and not members & set(targets):
            alike = "part of" if len(members) > 1 else "the same as"
            reasons |= dict.fromkeys(sorted(members), f"{alike} {name}")
        elif members:
            *most, last = sorted(members)
            alike = f"the sum of {', '.join(most)} and {last}" if most else f"the same as {last}"
            reasons[name] = alike
    return reasons


def _outside_mixture(
    content: "_Content", names: Sequence[str], targets: Collection[str]
) -> dict[str, str]:
    """Return the names without which the others add up to the mixture, each with the reason."""
    if content.is_mixture(names):
        return {}
    members = content.members_of_mixture(names, [name for name in names if name in targets])
    outside = [name for name in names if members and name not in members]
    return dict.fromkeys(outside, "not in the mixture")


class _Content:
    """Inner products of the waveforms of files, by which every sum of them can be tested."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._products = np.zeros((len(files), len(files)))
        self._samples = 0  # of all channels

    def read(self, going_on: Callable[[], bool]) -> None:
        """Read all files side by side, for as long as `going_on` says.

        Raises:
            AudioError: a file cannot be read.
        """
        sample_rate = AudioFile(next(iter(self._files.values()))).source_sample_rate
        opened = [AudioFile(p, sample_rate=sample_rate, channels=2) for p in self._files.values()]
        for blocks in side_by_side(opened):
            block = torch.stack(blocks).flatten(1).double().numpy()
            self._products += block @ block.T
            self._samples += block.shape[1]
            if not going_on():
                return

    def may_be_sum(self, name: str, among: Collection[str]) -> bool:
        """Return whether a file is the sum of some others, or has not sounded yet."""
        return self._silent(name) or bool(self.members_of_sum(name, among))

    def members_of_sum(self, name: str, among: Collection[str]) -> set[str]:
        """Return the files whose sum a file is, to rounding; none if it is no sum, or silent."""
        others = [other for other in among if other != name]
        return set() if self._silent(name) else self._members(name, others, (), self._rounding)

    def is_mixture(self, names: Sequence[str]) -> bool:
        """Return whether some files together are the mixture."""
        return bool(self._members(MIXTURE, names, names, self._mixture_limit))

    def members_of_mixture(self, names: Sequence[str], needed: Sequence[str]) -> set[str]:
        """Return the files that together are the mixture, and all silent ones; else none."""
        members = self._members(MIXTURE, names, needed, self._mixture_limit)
        return members | {name for name in names if members and self._silent(name)}

    @property
    def _rounding(self) -> float:
        return self._samples * ROUNDING**2

    @property
    def _mixture_limit(self) -> float:
        return self._energy(MIXTURE) * 10 ** (-FAITHFUL / 10)

    def _energy(self, name: str) -> float:
        [i] = self._indices([name])
        return float(self._products[i, i])

    def _silent(self, name: str) -> bool:
        return self._energy(name) <= 4 * self._rounding

    def _indices(self, names: Sequence[str]) -> list[int]:
        order = list(self._files)
        return [order.index(name) for name in names]

    def _members(
        self, total: str, among: Sequence[str], needed: Sequence[str], limit: float
    ) -> set[str]:
        """Return those whose sum is nearest to `total`, if the error's energy is within `limit`.

        For 0 or 1 as the weight w of each file x: |t - sum w x|^2 = t.t - 2 w.(x.t) + w.(x.x)w.
        """
        weights = (np.arange(2 ** len(among))[:, None] >> np.arange(len(among))) & 1
        fixed = [name in needed for name in among]
        weights = weights[weights[:, fixed].all(1)]
        rows, [t] = self._indices(among), self._indices([total])
        own, crossed = self._products[np.ix_(rows, rows)], self._products[rows, t]
        errors = self._products[t, t] - 2 * weights @ crossed + ((weights @ own) * weights).sum(1)
        best = int(errors.argmin())
        if errors[best] > limit:
            return set()
        return {name for name, weight in zip(among, weights[best], strict=True) if weight}
