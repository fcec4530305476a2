"""File to file with the network replaced by an identity: what everything around it costs.

    python -m benchmarks.pipeline [--minutes 4] [--formats wav flac mp3] [--rates 44100 48000]

For each format and rate a row: how many times real time the whole (`separate_file`) is, and the
milliseconds of processor time for a minute of audio, of the whole and of each part by itself, for
all stems. Processor time does not depend on what else runs. Eight cores at 800 times real time
have 600 ms.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.processes import machine
from htdemucs import AudioEncoding, AudioFile, HTDemucsConfig, OutputOptions, Separator
from htdemucs.audio import AudioWriter, Resampler, SampleCache
from htdemucs.fast import keep_freed_memory
from htdemucs.model import Network
from htdemucs.separation import measure
from htdemucs.stems import separate_file

ROUNDS = 2  # the quicker counts
BLOCK = 257_985  # samples: the stride of htdemucs' segments
PARTS = ("decode", "to 44.1 kHz", "measure", "engine", "spool", "from 44.1 kHz", "encode")


class Identity(Network):
    """Every source is the mixture."""

    def __init__(self) -> None:
        super().__init__(HTDemucsConfig())
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, mixture: Tensor) -> Tensor:
        """(B, C, L) -> (B, S, C, L)"""
        return mixture[:, None].expand(-1, len(self.sources), -1, -1)


def music(rate: int, seconds: float) -> Tensor:
    """Return (2, L) that a lossless encoder finds about as hard as music."""
    length = int(rate * seconds)
    moment = torch.arange(length) / rate  # seconds
    fade = torch.exp(-10 * (moment % 0.5))
    tones = torch.stack([torch.sin(moment * 2 * torch.pi * 110 * k) / k for k in range(1, 9)])
    noise = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    return fade * (0.1 * tones.sum(0) + 0.02 * noise)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the least seconds, and the least seconds of processor time, of some rounds."""
    taken = []
    for _ in range(ROUNDS + 1):  # the first fills caches
        start, used = time.perf_counter(), time.process_time()
        call()
        taken.append((time.perf_counter() - start, time.process_time() - used))
    return min(seconds for seconds, _ in taken), min(used for _, used in taken)


def exhaust(blocks: Iterable[object]) -> None:
    """Take all blocks and keep none."""
    for _ in blocks:
        pass


def parts(song: Path, folder: Path, separator: Separator, encoding: AudioEncoding) -> list[float]:
    """Return the seconds of processor time of each of `PARTS`."""
    rate, channels = separator.sample_rate, separator.audio_channels
    own = AudioFile(song)
    original = torch.cat(list(own), dim=-1)
    resampled = torch.cat(list(AudioFile(song, sample_rate=rate)), dim=-1)
    seconds = list(resampled.split(rate, dim=-1))
    level = measure(seconds)
    stem_blocks = list(resampled.split(BLOCK, dim=-1))
    stems = [block.repeat(len(separator.stems), 1) for block in stem_blocks]

    def converted(waveform: Tensor, source: int, target: int) -> None:
        resampler = Resampler(source, target, channels)
        exhaust(resampler.push(block) for block in waveform.split(source, dim=-1))

    def spooled() -> None:
        with SampleCache(folder, len(stems[0])) as spool:
            for block in stems:
                spool.write(block)

    def encoded() -> None:
        path = folder / f"stem.{encoding.format}"
        with AudioWriter(path, own.sample_rate, channels, encoding) as writer:
            for block in original.split(BLOCK, dim=-1):
                writer.write(block)

    count = len(separator.stems)
    return [
        timed(lambda: exhaust(own))[1],
        timed(lambda: converted(original, own.sample_rate, rate))[1],
        timed(lambda: measure(seconds))[1],
        timed(lambda: exhaust(separator.stream(seconds, level)))[1],
        timed(spooled)[1],
        count * timed(lambda: converted(resampled, rate, own.sample_rate))[1],
        count * timed(encoded)[1],
    ]


def row(form: str, rate: int, minutes: float) -> str:
    """Return a line of the table."""
    encoding, separator = AudioEncoding(form), Separator(Identity().eval(), device="cpu", shifts=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = folder / f"song.{form}"
        with AudioWriter(song, rate, separator.audio_channels, encoding) as writer:
            writer.write(music(rate, 60 * minutes))
        options = OutputOptions(encoding)
        wall, used = timed(lambda: separate_file(separator, song, folder / "out", options=options))
        single = parts(song, folder, separator, encoding)
    cells = [f"{1000 * seconds / minutes:.0f}" for seconds in (used, *single)]
    return f"| {form} | {rate} | {60 * minutes / wall:.0f}x | {' | '.join(cells)} |"


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--formats", nargs="+", default=["wav", "flac", "mp3"])
    parser.add_argument("--rates", nargs="+", type=int, default=[44_100, 48_000])
    args = parser.parse_args()
    keep_freed_memory()
    print(machine())
    print(f"| format | Hz | x real time | whole | {' | '.join(PARTS)} |")
    print("|---|---|---|---|" + "---|" * len(PARTS))
    for form in args.formats:
        for rate in args.rates:
            print(row(form, rate, args.minutes), flush=True)


if __name__ == "__main__":
    main()
