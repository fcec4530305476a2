"""`htdemucs convert`: write any model in our format or in the official one."""

from pathlib import Path
from typing import Annotated

import typer

from htdemucs.cli.options import Repo
from htdemucs.cli.shared import messages


def convert(
    source: Annotated[
        str, typer.Argument(help="Model: a name, signature, hf://namespace/name, or a path.")
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="Folder for config.json and model.safetensors; or, for a single network, a file "
            "ending in .safetensors, in the format that the published package reads."
        ),
    ],
    repo: Repo = None,
) -> None:
    """Convert a model, an official one for instance, to another format."""
    from htdemucs.errors import CheckpointError
    from htdemucs.model import Bag
    from htdemucs.weights import load_model, official, save_model

    model = load_model(source, repo=repo, device="cpu")
    if target.suffix == ".safetensors":
        if isinstance(model, Bag):
            raise CheckpointError("a bag cannot be a single file; name a folder as TARGET")
        official.write(model, target)
    else:
        save_model(model, target)
    messages().print(f"wrote {target}", highlight=False)
