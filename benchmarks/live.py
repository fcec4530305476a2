"""Live separation: what its look-ahead is worth, and whether this machine keeps up.

    python -m benchmarks.live MULTITRACK... [-n mini] [--hop 0.2] [--plot OUT.svg]
    python -m benchmarks.live [SONG] --realtime SECONDS [-n mini] [--latency 0.5]

The first scores multitracks (folders) separated live and synchronously, with segments and
look-aheads of several lengths, and prints a table of the mean nsdr and of what offline separation
gives. The second plays a song (else noise) at its real speed through the real-time layer, without
a sound card, and reports the delay, how often the network was late, and what `push` itself took;
`-n released` is a network of the released htdemucs' size with random weights.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

from benchmarks.plot import curves
from benchmarks.processes import machine
from htdemucs import LiveSeparator, RealTimeSeparator, Separator, Timing, load_model
from htdemucs.audio import AudioFile
from htdemucs.evaluation.dataset import Multitrack, read_multitrack
from htdemucs.evaluation.metrics import nsdr
from htdemucs.fast import keep_freed_memory, use_this_thread_only
from htdemucs.model import HTDemucsConfig, Model, build
from htdemucs.separation.live_tuning import CROSSFADE, candidate_separators, tuned_separator

LOOK_AHEADS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # seconds
BLOCK = 4096  # samples


class CachingSeparator(Separator):
    """Caches the output for the last window, which several look-aheads share."""

    _last: tuple[Tensor, Tensor] | None = None

    def run_network(self, window: Tensor) -> Tensor:
        """(C, window_length) -> (S, C, segment_length)"""
        if self._last is None or not torch.equal(self._last[0], window):
            self._last = window, super().run_network(window)
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
    for separator in candidate_separators(model).values():
        segment = separator.segment_length / separator.sample_rate
        caching = CachingSeparator(model, segment=segment, shifts=0)
        scores = [live_scores(caching, song, hop) for song in songs]
        means = {ahead: fmean(one[ahead] for one in scores) for ahead in scores[0]}
        yield segment, fmean(offline_score(caching, song) for song in songs), means


def loop(path: Path | None, live: LiveSeparator) -> Iterator[Tensor]:
    """Yield blocks of a song over and over, or of noise."""
    if path:
        song = waveform(path, live.separator)
    else:
        song = 0.1 * torch.randn(live.separator.audio_channels, 10 * live.sample_rate)
    while True:
        yield from song.split(round(0.02 * live.sample_rate), dim=-1)


def play(live: LiveSeparator, path: Path | None, seconds: float) -> None:
    """Push blocks at the times at which a sound card would, and print how it went."""
    changes: list[Timing] = []
    pieces: tuple[list[Tensor], list[Tensor]] = ([], [])
    slowest, heard = 0.0, 0
    length = int(20 * live.sample_rate)  # of the end, where the delay is measured
    use_this_thread_only()
    with RealTimeSeparator(live, changes.append) as real:
        started = time.monotonic()
        for block in loop(path, live):
            heard += block.shape[-1]
            ahead = started + heard / live.sample_rate - time.monotonic()
            time.sleep(max(0.0, ahead))
            before = time.monotonic()
            mix = torch.stack(list(real.push(block).values())).sum(0)
            slowest = max(slowest, time.monotonic() - before)
            for kept, new in zip(pieces, (block, mix), strict=True):
                kept.append(new)
                del kept[: max(0, len(kept) - length // block.shape[-1])]
            if heard >= seconds * live.sample_rate:
                break
    took, rate = sorted(real.inference_times), live.sample_rate
    print(f"{heard / rate:.0f} s; late {real.late} times, "
          f"mixture for {live.passthrough / rate:.2f} s; "
          f"timing changed {len(changes)} times")  # fmt: skip
    print(f"network: median {median(took):.3f} s, longest {took[-1]:.3f} s of {len(took)}; "
          f"load {median(took) / live.timing.hop:.0%}; longest push {slowest:.3f} s")  # fmt: skip
    found, alike = lag(*(torch.cat(kept, dim=-1).mean(0) for kept in pieces))
    measured = f"measured {found / rate:.3f} s" if alike > 0.5 else "not measurable"
    print(f"delay {live.delay / rate:.3f} s, {measured} (correlation {alike:.2f})")


def lag(given: Tensor, heard: Tensor) -> tuple[int, float]:
    """Return by how many samples one signal follows another, and their correlation there."""
    size = 2 * max(len(given), len(heard))
    product = torch.fft.rfft(given, size).conj() * torch.fft.rfft(heard, size)
    best = torch.fft.irfft(product, size)[: size // 2].max(0)
    energies = given[: len(given) - int(best.indices)].norm() * heard.norm()
    return int(best.indices), float(best.values / energies.clamp(1e-9))


def model_of(name: str) -> Model:
    """Return a model by its name; "released": the released network's size, random weights."""
    return build(HTDemucsConfig()).eval() if name == "released" else load_model(name)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("-n", "--name", default="mini")
    parser.add_argument("--hop", type=float, default=0.2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--realtime", type=float, metavar="SECONDS")
    parser.add_argument("--latency", type=float)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    print(machine())
    if args.realtime:
        keep_freed_memory()
        live, options = tuned_separator(model_of(args.name), args.precision, args.latency)
        for option in options:
            print(option, f"delay {option.timing.delay:.3f} s, load {option.load:.0%}")
        play(live, next(iter(args.paths), None), args.realtime)
        return
    songs = [read_multitrack(folder) for folder in args.paths]
    print(f"| segment | {' | '.join(f'{ahead:g} s' for ahead in LOOK_AHEADS)} | offline |")
    print("|---" * (len(LOOK_AHEADS) + 2) + "|")
    lines, levels = {}, {}
    for segment, offline, means in table(load_model(args.name), songs, args.hop):
        cells = [f"{means[ahead]:.2f}" if ahead in means else "" for ahead in LOOK_AHEADS]
        print(f"| {segment:g} s | {' | '.join(cells)} | {offline:.2f} |", flush=True)
        lines[f"{segment:g} s"], levels[f"{segment:g} s"] = means, offline
    if args.plot:
        args.plot.write_text(
            curves(lines, levels, "look-ahead, seconds", "nsdr, dB"), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
