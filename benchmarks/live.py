"""Live separation: what its look-ahead is worth, and whether this machine keeps up.

    python -m benchmarks.live MULTITRACK... [-n mini] [--hop 0.2] [--plot docs/live.svg]

scores multitracks (folders) separated live and synchronously, with segments and look-aheads of
several lengths. It prints a table of the mean nsdr, and what offline separation gives.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.plot import curves
from benchmarks.processes import machine
from htdemucs import LiveSeparator, Separator, Timing, load_model
from htdemucs.audio import AudioFile
from htdemucs.evaluation.metrics import nsdr
from htdemucs.evaluation.multitracks import Multitrack, read_multitrack
from htdemucs.model import Model

SEGMENTS = (7.8, 4.0, 2.0, 1.0)  # seconds; those longer than the model's own are left out
LOOK_AHEADS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # seconds
CROSSFADE = 0.03  # seconds
BLOCK = 4096  # samples


class Remembering(Separator):
    """Gives the last answer again where the window is the same: look-aheads share windows."""

    _last: tuple[Tensor, Tensor] | None = None

    def answer(self, window: Tensor) -> Tensor:
        """(C, window_length) -> (S, C, segment_length)"""
        if self._last is None or not torch.equal(self._last[0], window):
            self._last = window, super().answer(window)
        return self._last[1]


def waveform(path: Path, separator: Separator) -> Tensor:
    """Return a file (C, L) as the model hears it."""
    blocks = AudioFile(path, sample_rate=separator.sample_rate, channels=separator.audio_channels)
    return torch.cat(list(blocks), dim=-1)


def score(separator: Separator, song: Multitrack, stems: Tensor) -> float:
    """Return the mean nsdr of stems (S, C, L)."""
    files = [waveform(song.file(name), separator) for name in separator.stems]
    return float(nsdr(torch.stack(files), stems).mean())


def live_scores(separator: Separator, song: Multitrack, hop: float) -> dict[float, float]:
    """Return the score for each look-ahead for which the segment is long enough."""
    longest = separator.segment_length / separator.sample_rate - hop - CROSSFADE
    lives = {
        ahead: LiveSeparator(separator, Timing(hop, ahead, CROSSFADE))
        for ahead in LOOK_AHEADS
        if ahead <= longest
    }
    pieces: dict[float, list[Tensor]] = {ahead: [] for ahead in lives}
    mixture = waveform(song.mixture or song.folder, separator)
    silence = torch.zeros(len(mixture), max(live.delay for live in lives.values()))
    for block in torch.cat([mixture, silence], dim=-1).split(BLOCK, dim=-1):
        for ahead, live in lives.items():
            pieces[ahead].append(torch.stack(list(live.push(block).values())))
    length = mixture.shape[-1]
    return {
        ahead: score(
            separator, song, torch.cat(pieces[ahead], dim=-1)[..., live.delay :][..., :length]
        )
        for ahead, live in lives.items()
    }


def offline_score(separator: Separator, song: Multitrack) -> float:
    """Return the score of the same network, which hears the whole song."""
    mixture = waveform(song.mixture or song.folder, separator)
    stems = separator.separate(mixture, separator.sample_rate)
    return score(separator, song, torch.stack(list(stems.values())))


def table(
    model: Model, songs: Sequence[Multitrack], hop: float
) -> Iterator[tuple[float, float, dict[float, float]]]:
    """Yield each segment's length with the mean score offline and for each look-ahead."""
    for segment in SEGMENTS:
        if model.longest_segment is None or segment <= model.longest_segment:
            separator = Remembering(model, segment=segment)
            scores = [live_scores(separator, song, hop) for song in songs]
            means = {ahead: fmean(one[ahead] for one in scores) for ahead in scores[0]}
            yield segment, fmean(offline_score(separator, song) for song in songs), means


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("multitracks", type=Path, nargs="+")
    parser.add_argument("-n", "--name", default="mini")
    parser.add_argument("--hop", type=float, default=0.2)
    parser.add_argument("--plot", type=Path)
    chosen = parser.parse_args()
    print(machine())
    songs = [read_multitrack(folder) for folder in chosen.multitracks]
    print(f"| segment | {' | '.join(f'{ahead:g} s' for ahead in LOOK_AHEADS)} | offline |")
    print("|---" * (len(LOOK_AHEADS) + 2) + "|")
    lines, levels = {}, {}
    for segment, offline, means in table(load_model(chosen.name), songs, chosen.hop):
        cells = [f"{means[ahead]:.2f}" if ahead in means else "" for ahead in LOOK_AHEADS]
        print(f"| {segment:g} s | {' | '.join(cells)} | {offline:.2f} |", flush=True)
        lines[f"{segment:g} s"], levels[f"{segment:g} s"] = means, offline
    if chosen.plot:
        chosen.plot.write_text(
            curves(lines, levels, "look-ahead, seconds", "nsdr, dB"), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
