"""Begin a wider network with what a narrow one knows: `python -m recipes.mini.widen mini WIDE`.

`WIDE` is a model that separates as the narrow one does, for `init_from=WIDE` (Net2Net, arXiv
1511.05641): every channel is there `FACTOR` times, and each weight that reads it is shared out at
random among the copies, so that training tells them apart.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor

from htdemucs import HTDemucs, HTDemucsError, load_model, save_model

FACTOR = 2
UNEVENNESS = 0.5  # at most, of a weight's even share


def main(arguments: list[str] | None = None) -> int:
    """Widen the model and write it. Return 0 when it is there."""
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.widen", description=__doc__)
    parser.add_argument("model", help="name or folder of the narrow model")
    parser.add_argument("to", type=Path, help="folder to write to")
    parser.add_argument("--hidden-scale", type=float, default=4.0, help="t_hidden_scale")
    parser.add_argument("--dconv-mode", type=int, default=3, choices=(1, 3))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    try:
        narrow = load_model(options.model, device="cpu")
        wide = widen(narrow, options.hidden_scale, options.dconv_mode)
        save_model(wide, options.to)
    except HTDemucsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    parameters = sum(p.numel() for p in wide.parameters())
    print(f"{options.to}: {parameters / 1e6:.2f} M parameters")
    return 0


def widen(narrow: HTDemucs, hidden_scale: float, dconv_mode: int) -> HTDemucs:
    """Return a network with `FACTOR` times the channels and the same output.

    The transformer keeps its width, and gets hidden units that do nothing yet where `hidden_scale`
    is higher. A DConv that only the wide network has begins almost as the identity.
    """
    config = dataclasses.replace(
        narrow.config,
        channels=FACTOR * narrow.config.channels,
        bottom_channels=narrow.config.transformer_channels,
        t_hidden_scale=hidden_scale,
        dconv_mode=dconv_mode,
    )
    wide = HTDemucs(config)
    known = narrow.state_dict()
    with torch.no_grad():
        for name, parameter in wide.named_parameters():
            if name in known:
                parameter.copy_(_widen_parameter(name, known[name], parameter))
            elif name.startswith("transformer.") and ("_in." in name or "_out." in name):
                parameter.copy_(_projection(parameter))
    return wide


def _widen_parameter(name: str, narrow: Tensor, wide: Tensor) -> Tensor:
    """Return the narrow parameter in the wide one's shape."""
    if "feed_forward.linear" in name:
        return _add_idle_units(name, narrow, wide)
    read = 0 if "conv_transpose" in name else 1  # the dimension of the channels that it reads
    for dim in range(narrow.dim()):
        if wide.shape[dim] == narrow.shape[dim]:
            continue
        narrow = narrow.repeat_interleave(FACTOR, dim)
        if name.endswith(".weight") and narrow.dim() > 1 and dim == read:
            narrow = narrow * _random_shares(narrow.shape, dim)
    return narrow


def _random_shares(shape: torch.Size, dim: int) -> Tensor:
    """Return factors for the copies along `dim`; those of one channel add up to 1."""
    uneven = 1 + UNEVENNESS * (2 * torch.rand(shape) - 1)
    groups = uneven.unflatten(dim, (-1, FACTOR))
    return (groups / groups.sum(dim + 1, keepdim=True)).flatten(dim, dim + 1)


def _add_idle_units(name: str, narrow: Tensor, wide: Tensor) -> Tensor:
    """Return a feed-forward parameter with the wide one's own units added; nothing reads them."""
    grown = wide.clone()
    if ".linear2.weight" in name:
        grown.zero_()
    grown[tuple(slice(size) for size in narrow.shape)] = narrow
    return grown


def _projection(wide: Tensor) -> Tensor:
    """Return what leads from all copies to one channel and back; without a bias."""
    if wide.dim() == 1:
        return torch.zeros_like(wide)
    rows, columns = wide.shape[:2]
    copies = torch.eye(min(rows, columns)).repeat_interleave(FACTOR, 0)
    return copies if rows > columns else copies.T * _random_shares(copies.T.shape, 1)


if __name__ == "__main__":
    sys.exit(main())
