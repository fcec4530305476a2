"""`htdemucs convert`: any loadable model into a folder of our own format."""

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
            "ending in .safetensors, which is then written as the published package reads it."
        ),
    ],
    repo: Repo = None,
) -> None:
    """Convert a model, an official one for instance, into another format."""
    from htdemucs.errors import CheckpointError
    from htdemucs.model import Bag
    from htdemucs.weights import load_model, official, save_model

    model = load_model(source, repo=repo, device="cpu")
    if target.suffix == ".safetensors":
        if isinstance(model, Bag):
            raise CheckpointError("a bag fills a folder; give a folder's name to convert to")
        official.write(model, target)
    else:
        save_model(model, target)
    messages().print(f"wrote {target}", highlight=False)
