"""All measurements of a GPU, in one run of a few minutes on a fresh machine.

    python -m benchmarks.gpu [--device cuda|mps|xpu|cpu] [--minutes 8] [--model htdemucs] [--out .]

Writes gpu.json and gpu.md after each part. Each part has a share of the time. If a part fails or a
package is missing, the report says so and the other parts run. Weights are random.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_parts
from benchmarks.gpu_parts import Bench, Row
from htdemucs import DemucsConfig, HDemucsConfig, HTDemucsConfig, __version__
from htdemucs.devices import choose_device
from htdemucs.errors import ConfigError
from htdemucs.model import Network, build
from htdemucs.model.config import NetworkConfig

LAYER_SCALE = 0.1  # with the small initial value, most layers would hardly affect the output
MODELS: dict[str, NetworkConfig] = {
    "htdemucs": HTDemucsConfig(),
    "hdemucs": HDemucsConfig(),
    "demucs": DemucsConfig(),
    "tiny": HTDemucsConfig(
        sample_rate=8000,
        segment=Fraction(1),
        channels=8,
        depth=2,
        n_fft=512,
        bottom_channels=16,
        t_layers=1,
        t_heads=2,
    ),
}


@dataclass(frozen=True)
class Part:
    """A group of measurements.

    Attributes:
        title: heading of its table.
        run: yields the table's rows.
        share: fraction of the whole time.
    """

    title: str
    run: Callable[[Bench], Iterator[Row]]
    share: float


PARTS = (
    Part("Correctness against fp32 on the CPU", gpu_parts.correctness, 0.15),
    Part("Precisions and batch sizes", gpu_parts.speed, 0.15),
    Part("Layout, algorithms, TF32", gpu_parts.variants, 0.1),
    Part("Copies between host and device", gpu_parts.copies, 0.02),
    Part("CUDA graphs", gpu_parts.graphs, 0.08),
    Part("Profile: operators by time", gpu_parts.profile, 0.05),
    Part("The engine, from tensor to tensor", gpu_parts.engine, 0.1),
    Part("File to file", gpu_parts.files, 0.12),
    Part("Several files at once", gpu_parts.several, 0.08),
    Part("Compiled", gpu_parts.compiled, 0.15),
)


def random_network(config: NetworkConfig) -> Network:
    """Return a random network in which every layer affects the output."""
    torch.manual_seed(0)
    network = build(config).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("scale"):
                value.fill_(LAYER_SCALE)
    return network


def measure(part: Part, bench: Bench, minutes: float) -> dict[str, Any]:
    """Return a part's rows, and why it stopped, if it did."""
    result: dict[str, Any] = {"title": part.title, "rows": []}
    begun = time.monotonic()
    bench.deadline = begun + 60 * minutes * part.share
    try:
        for row in part.run(bench):
            result["rows"].append(row)
            if bench.left() <= 0:
                result["stopped"] = "its share of the time is used up"
                break
    except ModuleNotFoundError as error:
        result["left out"] = f"{error.name} is not installed"
    except gpu_parts.SkippedError as reason:
        result["left out"] = str(reason)
    except Exception as error:
        result["failed"] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    result["seconds"] = round(time.monotonic() - begun, 1)
    return result


def about(device: torch.device, model: str) -> dict[str, Any]:
    """Return the machine, versions and model that the results depend on."""
    module = getattr(torch, device.type)
    name = getattr(module, "get_device_name", lambda _: platform.processor())(device)
    return {
        "model": model,
        "device": str(device),
        "name": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "htdemucs": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the report's tables for benchmarks/results/gpu.md."""
    facts = report["about"]
    lines = [f"{facts['model']} on {facts['name'] or facts['device']}, torch {facts['torch']}.", ""]
    for part in report["parts"]:
        lines += [f"#### {part['title']}", ""]
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        if columns:
            lines += [_line(columns), _line(["---"] * len(columns))]
            lines += [_line([_cell(row.get(key, "")) for key in columns]) for row in part["rows"]]
        for why in ("stopped", "left out", "failed"):
            if why in part:
                lines += ["", f"{why.capitalize()}: {part[why]}."]
        lines.append("")
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(bench: Bench, model: str, minutes: float, out: Path) -> dict[str, Any]:
    """Measure all parts, and write the report after each of them."""
    report: dict[str, Any] = {"about": about(bench.device, model), "parts": []}
    out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        print(f"{part.title} ...", file=sys.stderr, flush=True)
        report["parts"].append(measure(part, bench, minutes))
        (out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (out / "gpu.md").write_text(markdown(report), encoding="utf-8")
    return report


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--model", choices=MODELS, default="htdemucs")
    parser.add_argument("--seconds", type=float, default=240, help="of the tracks")
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()
    try:
        device = choose_device(args.device)
    except ConfigError as error:
        sys.exit(str(error))
    network = random_network(MODELS[args.model])
    bench = Bench(deepcopy(network).to(device), reference=network, seconds=args.seconds)
    print(markdown(run(bench, args.model, args.minutes, args.out)))


if __name__ == "__main__":
    main()
