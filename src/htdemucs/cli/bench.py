"""`htdemucs bench`: measure how fast this machine separates."""

import os
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status, print_table
from htdemucs.settings import EngineSettings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from htdemucs.model import Network

OVERLAP = EngineSettings().overlap  # the share of each segment that is computed twice
BATCH_SIZES = {"cpu": (1, 2), "cuda": (1, 4, 16)}


@opt.command("bench", examples="htdemucs bench\nhtdemucs bench -n mini")
@opt.name_option
@opt.device_option
@opt.compile_option
@opt.option(
    "--repeat",
    type=int,
    callback=opt.number(1),
    default=3,
    metavar="N",
    help="Runs for each precision and batch size; the median is printed.",
)
def bench(name: str, device: str | None, compiled: bool, repeat: int) -> None:
    """Measure how fast this machine separates, by precision and batch size. Needs no weights."""
    import torch
    from rich.table import Table

    from htdemucs.devices import choose_device
    from htdemucs.environment import machine
    from htdemucs.fast import choose_precision, keep_freed_memory
    from htdemucs.model import build
    from htdemucs.version import __version__
    from htdemucs.weights.load import known_config

    keep_freed_memory()
    network = build(known_config(name)).to(choose_device(device)).eval()
    target = next(network.parameters()).device
    segment = float(network.segment)
    parameters = "random parameters, compiled" if compiled else "random parameters"
    table = Table()
    for header in ("precision", "batch", "s a segment", "times real time"):
        table.add_column(header, justify="left" if header == "precision" else "right")
    default = choose_precision(network)
    print_status(f"measuring on {target}; this takes a minute")
    for precision, batch, seconds in _measure(network, target, compiled, repeat):
        speed = (1 - OVERLAP) * segment / seconds
        label = f"{precision} (auto)" if precision == default else precision
        table.add_row(label, str(batch), f"{seconds:.3f}", f"{speed:.1f}")
    print_table(table, f"{name}, segments of {segment:g} s, {parameters}")
    about = machine(str(target))
    processors = ", ".join(filter(None, [about["processor"], about.get("gpu")]))
    threads = f"{about['threads']} threads on {os.cpu_count()} cores"
    print(f"htdemucs {__version__}, torch {torch.__version__}, {processors}, {threads}")


def _measure(
    network: "Network", device: "torch.device", compiled: bool, repeat: int
) -> Iterator[tuple[str, int, float]]:
    """Yield each precision and batch size with the seconds that a segment takes."""
    import torch

    from htdemucs.fast import PRECISIONS, prepare

    for precision in PRECISIONS:
        if precision == "fp16" and device.type == "cpu":
            continue
        prepared = prepare(network, precision, compiled)
        for batch in BATCH_SIZES.get(device.type, (1,)):
            length = network.config.segment_length
            mixture = torch.randn(batch, network.audio_channels, length).to(device)
            try:
                seconds = [_seconds(prepared, mixture) for _ in range(repeat + 1)]
            except torch.OutOfMemoryError:
                continue
            yield precision, batch, median(seconds[1:]) / batch


def _seconds(network: "nn.Module", mixture: "torch.Tensor") -> float:
    import torch

    start = time.perf_counter()
    with torch.inference_mode():
        network(mixture).cpu()  # waits for a GPU
    return time.perf_counter() - start
