"""`htdemucs models`: list the names for -n."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from htdemucs.cli.shared import print_table

if TYPE_CHECKING:
    from rich.console import JustifyMethod


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models with names: sources, size, licence, and whether they are on this machine."""
    from htdemucs.weights.overview import named_models

    rows = named_models()
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
    print_table(table)
