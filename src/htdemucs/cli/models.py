"""`htdemucs models`: list the names for -n."""

import json
from functools import cache
from typing import Annotated, Any

import typer

from htdemucs.cli.shared import table_console


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models with names: sources, size, and whether they are on this machine."""
    rows = model_rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    table = Table()
    for header in ("name", "sources", "members", "download", "here", "about"):
        table.add_column(header, justify="right" if header == "download" else "left")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else ""
        about = row["about"] if row["supported"] else f"not yet: {row['about']}"
        here = {True: "yes", False: "no", None: ""}[row["cached"]]
        table.add_row(
            row["name"], ", ".join(row["sources"]), " ".join(row["members"]), size, here, about
        )
    table_console().print(table)


def model_rows() -> list[dict[str, Any]]:
    """Return a dictionary for each model; `bytes` is the size of a download in float16."""
    from htdemucs.weights.registry import cached_members, official_models

    rows = [_shipped_row()]
    for model in official_models().values():
        supported = not model.unsupported
        rows.append(
            {
                "name": model.name,
                "sources": list(model.sources) if supported else [],
                "members": list(model.members),
                "bytes": sum(map(_size, set(model.members))) if supported else 0,
                "cached": cached_members(model) == len(model.members) if supported else None,
                "supported": supported,
                "about": model.unsupported or model.about,
            }
        )
    return rows


@cache
def _size(signature: str) -> int:
    """Return the bytes of an official network in float16, as far as its sizes are known."""
    import torch

    from htdemucs.model import build
    from htdemucs.weights.registry import official_config

    with torch.device("meta"):
        return 2 * sum(p.numel() for p in build(official_config(signature)).parameters())


def _shipped_row() -> dict[str, Any]:
    from htdemucs.weights.loading import known_config
    from htdemucs.weights.registry import SHIPPED_MODEL, shipped_folder

    return {
        "name": SHIPPED_MODEL,
        "sources": list(known_config(SHIPPED_MODEL).sources),
        "members": [],
        "bytes": (shipped_folder() / "model.safetensors").stat().st_size,
        "cached": True,
        "supported": True,
        "about": "small, comes with this package: to try things, not for listening",
    }
