"""`htdemucs models`: list the names for -n."""

import json
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli.shared import table_console

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from htdemucs.weights.registry import License


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models with names: sources, size, licence, and whether they are on this machine."""
    rows = model_rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    table = Table(caption="\n".join(dict.fromkeys(filter(None, (r["license_note"] for r in rows)))))
    for header in (
        "name",
        "sources",
        "members",
        "download",
        "here",
        "licence of the weights",
        "about",
    ):
        justify: JustifyMethod = "right" if header == "download" else "left"
        table.add_column(header, justify=justify, max_width=17 if header == "members" else None)
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else ""
        here = "yes" if row["cached"] else "no"
        licence = row["license"] or "not stated"
        if row["license_read"]:
            licence += f" (read {row['license_read']})"
        sources, members = ", ".join(row["sources"]), " ".join(row["members"])
        table.add_row(row["name"], sources, members, size, here, licence, row["about"])
    table_console().print(table)


def model_rows() -> list[dict[str, Any]]:
    """Return a dictionary for each model; `bytes` is its download, 0 where unknown."""
    from htdemucs.weights.registry import cached_members, official_models

    rows = [_shipped_row()]
    for model in official_models().values():
        size = 0 if model.quantised else sum(map(_size, set(model.members)))
        rows.append(
            {
                "name": model.name,
                "sources": list(model.sources),
                "members": list(model.members),
                "bytes": size,
                "cached": cached_members(model) == len(model.members),
                "about": model.about,
                **_license(model.license),
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
    from htdemucs.weights.registry import SHIPPED_MODEL, shipped_folder, shipped_license

    return {
        "name": SHIPPED_MODEL,
        "sources": list(known_config(SHIPPED_MODEL).sources),
        "members": [],
        "bytes": (shipped_folder() / "model.safetensors").stat().st_size,
        "cached": True,
        "about": "small, comes with this package: to try things, not for listening",
        **_license(shipped_license()),
    }


def _license(license: "License") -> dict[str, str | None]:
    """Return what a source states, and when it was read; None for a licence that none states."""
    read = license.read.isoformat() if license.read else None
    return {"license": license.name, "license_read": read, "license_note": license.note}
