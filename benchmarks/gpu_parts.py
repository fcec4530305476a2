"""The parts of `benchmarks.gpu`: each yields the rows of a table."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from htdemucs.fast import PRECISIONS, choose_precision, prepare
from htdemucs.model import Network
from htdemucs.model.hybrid import HybridNetwork

OVERLAP = 0.25  # the separator's default: this part of each segment is computed twice
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
OPERATORS = 20  # lines of the profile
SEVERAL = (1, 2, 4)  # files at once
MIB = 2**20
Row = dict[str, Any]
Forward = Callable[[Tensor], Tensor]


class SkippedError(Exception):
    """A part cannot run on the machine."""


@dataclass
class Bench:
    """The networks that the parts measure, and how.

    Attributes:
        network: the network on the device.
        reference: the same network on the CPU.
        seconds: length of tracks.
        deadline: end of the current part's time.
        batch: the fastest batch size so far.
    """

    network: Network
    reference: Network
    seconds: float
    deadline: float = 0.0
    batch: int = 1

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next(self.network.parameters()).device

    @property
    def precisions(self) -> list[str]:
        """The precisions that the device supports."""
        return [p for p in PRECISIONS if p != "fp16" or self.device.type != "cpu"]

    def left(self) -> float:
        """Return the seconds left for this part."""
        return self.deadline - time.monotonic()

    def mixture(self, batch: int) -> Tensor:
        """Return (B, C, L) of noise, a segment long, on the CPU."""
        shape = (batch, self.network.audio_channels, self.network.config.segment_length)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def time_call(self, call: Callable[[], object], rounds: int = 5) -> float:
        """Return the median seconds of some rounds, after two warm-up rounds."""
        taken: list[float] = []
        for _ in range(rounds + 2):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            taken.append(time.perf_counter() - start)
            if len(taken) > 2 and self.left() <= 0:
                break
        return median(taken[2:])

    def row(self, forward: Forward, batch: int) -> Row:
        """Return the speed of a network."""
        mixture = self.mixture(batch).to(self.device)
        with torch.inference_mode():
            seconds = self.time_call(lambda: forward(mixture)) / batch
        segment = (1 - OVERLAP) * float(self.network.segment)
        return {"batch": batch, "ms a segment": 1e3 * seconds, "x real time": segment / seconds}

    def best(self) -> str:
        """Return the precision that "auto" chooses."""
        return choose_precision(self.network)


def correctness(bench: Bench) -> Iterator[Row]:
    """Compare each precision with fp32 on the CPU."""
    mixture = bench.mixture(1)
    with torch.inference_mode():
        expected = bench.reference(mixture)
        for precision in bench.precisions:
            for tf32 in (True, False) if precision == "fp32" else (False,):
                with _tf32(tf32):
                    forward = bench.network if tf32 else prepare(bench.network, precision)
                    output = forward(mixture.to(bench.device)).cpu()
                error = float((output - expected).double().norm() / expected.double().norm())
                name = f"{precision}, TF32 allowed" if tf32 else precision
                yield {
                    "precision": name,
                    "difference, dB": 20 * math.log10(error) if error else "none",
                }


def speed(bench: Bench) -> Iterator[Row]:
    """Try batch sizes in each precision, the fastest one first."""
    best = bench.best()
    fastest = 0.0
    for precision in sorted(bench.precisions, key=lambda precision: precision != best):
        forward = prepare(bench.network, precision)
        for batch in BATCH_SIZES:
            _reset_peak_memory(bench.device)
            try:
                row = bench.row(forward, batch)
            except torch.OutOfMemoryError:
                yield {"precision": precision, "batch": batch, "ms a segment": "out of memory"}
                break
            if precision == best and row["x real time"] > fastest:
                fastest, bench.batch = row["x real time"], batch
            yield {"precision": precision} | row | {"peak MiB": _peak_memory(bench.device)}


def variants(bench: Bench) -> Iterator[Row]:
    """Try other settings of torch."""
    half = prepare(bench.network, bench.best())
    yield {"variant": f"default, {bench.best()}"} | bench.row(half, bench.batch)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        yield {"variant": "cuDNN benchmark mode"} | bench.row(half, bench.batch)
    layout = prepare(_channels_last(bench.network), bench.best())
    yield {"variant": "channels-last weights"} | bench.row(layout, bench.batch)
    with _tf32(True):
        yield {"variant": "fp32 with TF32"} | bench.row(bench.network, bench.batch)
    if isinstance(bench.network, HybridNetwork):
        yield {"variant": "STFT and its inverse alone"} | bench.row(
            _stft_alone(bench.network), bench.batch
        )


def copies(bench: Bench) -> Iterator[Row]:
    """Copy a batch's samples, in pageable and in pinned memory."""
    if bench.device.type == "cpu":
        raise SkippedError("there is no device to copy to")
    size = torch.empty(64 * MIB // 4)
    for pinned in (False, True):
        here = size.pin_memory() if pinned else size
        there = here.to(bench.device)
        for name, call in {
            "to the device": partial(there.copy_, here, non_blocking=pinned),
            "from the device": partial(here.copy_, there, non_blocking=pinned),
        }.items():
            rate = 64 * MIB / bench.time_call(call)
            yield {"copy": name, "memory": "pinned" if pinned else "ordinary", "GB/s": rate / 1e9}


def graphs(bench: Bench) -> Iterator[Row]:
    """Replay the network as one graph."""
    if bench.device.type != "cuda":
        raise SkippedError(f"{bench.device.type} has no CUDA graphs")
    forward = prepare(bench.network, bench.best())
    for batch in sorted({1, bench.batch}):
        mixture = bench.mixture(batch).to(bench.device)
        yield {"way": "operator by operator"} | bench.row(forward, batch)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            side_stream = torch.cuda.Stream()
            with torch.cuda.stream(side_stream):
                forward(mixture)
            torch.cuda.current_stream().wait_stream(side_stream)
            with torch.cuda.graph(graph):
                output = forward(mixture)
        expected = forward(mixture)
        graph.replay()
        same = bool(torch.equal(output, expected))
        yield {"way": "graph"} | bench.row(partial(_replay, graph), batch) | {"same bits": same}


def profile(bench: Bench) -> Iterator[Row]:
    """Yield the operators that take most of the time, and their share."""
    from torch.profiler import ProfilerActivity

    kinds = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
    kind = kinds.get(bench.device.type, ProfilerActivity.CPU)
    forward, mixture = prepare(bench.network, bench.best()), bench.mixture(bench.batch)
    mixture = mixture.to(bench.device)
    with torch.inference_mode():
        forward(mixture)
        with torch.profiler.profile(activities={ProfilerActivity.CPU, kind}) as profiler:
            forward(mixture)
            bench.wait()
    where = "cpu" if kind is ProfilerActivity.CPU else "device"
    found = [
        (float(getattr(event, f"self_{where}_time_total")), event.count, event.key)
        for event in profiler.key_averages()
    ]
    total = sum(microseconds for microseconds, _, _ in found) or 1.0
    for microseconds, count, name in sorted(found, reverse=True)[:OPERATORS]:
        yield {
            "operator": name[:80].replace("|", "/"),
            "calls": count,
            "ms": microseconds / 1e3,
            "share": f"{microseconds / total:.1%}",
        }


def engine(bench: Bench) -> Iterator[Row]:
    """Separate a whole track, from tensor to tensor."""
    from htdemucs.separation import Separator

    track = _track(bench)
    for shifts in (0, 1):
        separator = Separator(bench.network, shifts=shifts)
        blocks = list(track.split(separator.sample_rate, dim=-1))
        seconds = bench.time_call(partial(_stream, separator, blocks), rounds=1)
        yield {
            "shifts": shifts,
            "batch": separator.batch_size,
            "s": seconds,
            "x real time": bench.seconds / seconds,
        }


def files(bench: Bench) -> Iterator[Row]:
    """Separate a file into files, after a warm-up."""
    for form in ("wav", "flac"):
        yield {"format": form} | _file_to_file(bench, form, 1)


def several(bench: Bench) -> Iterator[Row]:
    """Separate several files at once, each in a thread with its own separator."""
    for count in SEVERAL:
        yield {"files at once": count} | _file_to_file(bench, "flac", count)


def compiled(bench: Bench) -> Iterator[Row]:
    """Use torch.compile."""
    forward = prepare(bench.network, bench.best(), compiled=True)
    mixture = bench.mixture(bench.batch).to(bench.device)
    start = time.perf_counter()
    with torch.inference_mode():
        forward(mixture)
    bench.wait()
    first = time.perf_counter() - start
    yield {"precision": bench.best()} | bench.row(forward, bench.batch) | {"s to compile": first}


def _file_to_file(bench: Bench, form: str, count: int) -> Row:
    from htdemucs.audio import AudioEncoding, AudioWriter
    from htdemucs.separation import Separator
    from htdemucs.stems import OutputOptions, separate_file

    encoding, rate = AudioEncoding(form), bench.network.sample_rate
    separators = [Separator(bench.network, shifts=0) for _ in range(count)]
    with tempfile.TemporaryDirectory() as name:
        song = Path(name) / f"song.{form}"
        with AudioWriter(song, rate, bench.network.audio_channels, encoding) as writer:
            for block in _track(bench).split(rate, dim=-1):
                writer.write(block)

        def separate(i: int) -> None:
            out = Path(name) / str(i)
            separate_file(separators[i], song, out, options=OutputOptions(encoding))

        with ThreadPoolExecutor(count) as pool:
            separate(0)
            start = time.perf_counter()
            list(pool.map(separate, range(count)))
            seconds = time.perf_counter() - start
    return {"s": seconds, "x real time": count * bench.seconds / seconds}


def _stream(separator: Any, blocks: list[Tensor]) -> None:
    for stems in separator.stream(blocks):
        torch.stack(list(stems.values())).cpu()


def _track(bench: Bench) -> Tensor:
    """Return (C, L) of noise with a decay on every beat, like music."""
    length = int(bench.seconds * bench.network.sample_rate)
    shape = (bench.network.audio_channels, length)
    noise = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    beat = torch.arange(length) % (bench.network.sample_rate // 2)
    return noise * torch.exp(-beat * (10 / bench.network.sample_rate))


def _channels_last(network: Network) -> Network:
    """Return a copy whose two-dimensional convolutions have channels-last weights."""
    twin = deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return twin


def _stft_alone(network: HybridNetwork) -> Forward:
    def forward(mixture: Tensor) -> Tensor:
        spectrogram = network.spectrogram(mixture)
        sources = spectrogram[:, None].expand(-1, len(network.sources), -1, -1, -1)
        return network.spectrogram.inverse(sources, mixture.shape[-1])

    return forward


def _replay(graph: Any, mixture: Tensor) -> Tensor:
    graph.replay()
    return mixture


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32; by default torch forbids it in matrix products only."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _reset_peak_memory(device: torch.device) -> None:
    if hasattr(module := getattr(torch, device.type), "reset_peak_memory_stats"):
        module.empty_cache()
        module.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int | str:
    peak = getattr(getattr(torch, device.type), "max_memory_allocated", None)
    return round(peak(device) / MIB) if peak else ""
