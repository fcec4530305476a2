"""A full-size network with random weights that both packages can load."""

from pathlib import Path

import torch
from demucs.htdemucs import HTDemucs

RELEASED = {
    "sources": ["drums", "bass", "other", "vocals"],
    "channels": 48,
    "depth": 4,
    "dconv_mode": 3,
    "dconv_comp": 8,
    "bottom_channels": 512,
    "t_layers": 5,
    "t_heads": 8,
    "segment": 7.8,
}
NAME = "random00"


def released_size(folder: Path) -> Path:
    """A folder for --repo in which `NAME` is a network as large as the released htdemucs."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{NAME}.th"
    if not target.exists():
        torch.manual_seed(0)
        network = HTDemucs(**RELEASED)
        state = {name: value.half() for name, value in network.state_dict().items()}
        package = {"klass": HTDemucs, "args": (), "kwargs": RELEASED, "state": state}
        torch.save(package, target)
    return folder
