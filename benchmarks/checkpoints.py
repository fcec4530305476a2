"""Full-size networks with random weights that both packages can load."""

from pathlib import Path

import torch
import yaml
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
BAG = "random_ft"  # like htdemucs_ft: a member for each stem
LAYER_SCALE = 0.1  # at the initial 1e-4 most of the network would hardly affect its output


def network() -> HTDemucs:
    """Return a published network of the released htdemucs' size."""
    torch.manual_seed(0)
    model = HTDemucs(**RELEASED)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("scale"):
                value.fill_(LAYER_SCALE)
    return model.eval()


def released_size(folder: Path) -> Path:
    """Write the network `NAME` and a bag of four, `BAG`, and return the folder for --repo."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"random0{i}" for i in range(4)]
    model = network()
    state = {name: value.half() for name, value in model.state_dict().items()}
    for i, name in enumerate(names):
        target = folder / f"{name}.th"
        if not target.exists():
            changed = {key: value + i * 1e-3 for key, value in state.items()}
            package = {"klass": HTDemucs, "args": (), "kwargs": RELEASED, "state": changed}
            torch.save(package, target)
    weights = [[float(i == j) for j in range(4)] for i in range(4)]
    bag = {"models": names, "weights": weights}
    (folder / f"{BAG}.yaml").write_text(yaml.safe_dump(bag), encoding="utf-8")
    return folder
