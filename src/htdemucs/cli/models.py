"""`htdemucs models`: list the names for -n."""

import json
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
        about = row["about"] if row["supported"] else f"not yet: {row['about']}"
        here = {True: "yes", False: "no", None: ""}[row["cached"]]
        licence = row["license"] or "not stated"
        if row["license_read"]:
            licence += f" (read {row['license_read']})"
        sources, members = ", ".join(row["sources"]), " ".join(row["members"])
        table.add_row(row["name"], sources, members, size, here, licence, about)
    table_console().print(table)


def model_rows() -> list[dict[str, Any]]:
    """Return a dictionary for each model; `bytes` is the size of a download in float16."""
    import torch

    from htdemucs.model import HTDemucs, HTDemucsConfig
    from htdemucs.weights.registry import cached_members, official_models

    rows = [_shipped_row()]
    for model in official_models().values():
        supported = not model.unsupported
        size, sources = 0, []
        if supported:
            config = HTDemucsConfig(**model.config)
            with torch.device("meta"):
                parameters = sum(p.numel() for p in HTDemucs(config).parameters())
            size, sources = 2 * parameters * len(model.members), list(config.sources)
        rows.append(
            {
                "name": model.name,
                "sources": sources,
                "members": list(model.members),
                "bytes": size,
                "cached": cached_members(model) == len(model.members) if supported else None,
                "supported": supported,
                "about": model.unsupported or model.about,
                **_license(model.license),
            }
        )
    return rows


def _shipped_row() -> dict[str, Any]:
    from htdemucs.weights.loading import known_config
    from htdemucs.weights.registry import SHIPPED_MODEL, shipped_folder, shipped_license

    return {
        "name": SHIPPED_MODEL,
        "sources": list(known_config(SHIPPED_MODEL).sources),
        "members": [],
        "bytes": (shipped_folder() / "model.safetensors").stat().st_size,
        "cached": True,
        "supported": True,
        "about": "small, comes with this package: to try things, not for listening",
        **_license(shipped_license()),
    }


def _license(license: "License") -> dict[str, str | None]:
    """Return what a source states, and when it was read; None for a licence that none states."""
    read = license.read.isoformat() if license.read else None
    return {"license": license.name, "license_read": read, "license_note": license.note}
