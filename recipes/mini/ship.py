"""Put a trained model into the package: `python -m recipes.mini.ship recipes/mini/run/best`.

Parameters are rounded to float16, as released checkpoints are.
"""

import argparse
import sys
from pathlib import Path

import torch

from htdemucs import HTDemucsError, load_model, save_model
from htdemucs.weights.registry import bundled_folder

LARGEST = 12_000_000  # bytes: what a package may carry


def main(arguments: list[str] | None = None) -> int:
    """Round the model and write it to the package's folder. Return 0 when it is there."""
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.ship", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the trained model")
    parser.add_argument("--to", type=Path, default=bundled_folder(), help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        size = ship(options.model, options.to)
    except HTDemucsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.to}: {size / 1e6:.1f} MB")
    return 0


def ship(source: Path, target: Path) -> int:
    """Round and write the model; return the bytes of its parameters.

    Raises:
        HTDemucsError: the model cannot be read, or is too large to ship.
    """
    model = load_model(source, device="cpu")
    parameters = sum(p.numel() for p in model.parameters())
    if 2 * parameters > LARGEST:
        raise HTDemucsError(f"{source} has {parameters} parameters; {LARGEST // 2} can be shipped")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    save_model(model, target)
    return (target / "model.safetensors").stat().st_size


if __name__ == "__main__":
    sys.exit(main())
