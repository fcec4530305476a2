"""The models that have names, as far as they are known without a download."""

from functools import cache
from typing import Any

import torch

from htdemucs.model import build
from htdemucs.weights.loading import known_config
from htdemucs.weights.registry import (
    SHIPPED_MODEL,
    License,
    cached_members,
    official_config,
    official_models,
    shipped_folder,
    shipped_license,
)


def named_models() -> list[dict[str, Any]]:
    """Return a dictionary for each model; `bytes` is its download, 0 where unknown."""
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
    with torch.device("meta"):
        return 2 * sum(p.numel() for p in build(official_config(signature)).parameters())


@cache
def _shipped_sources() -> tuple[str, ...]:
    return known_config(SHIPPED_MODEL).sources


def _shipped_row() -> dict[str, Any]:
    return {
        "name": SHIPPED_MODEL,
        "sources": list(_shipped_sources()),
        "members": [],
        "bytes": (shipped_folder() / "model.safetensors").stat().st_size,
        "cached": True,
        "about": "small, comes with this package: to try things, not for listening",
        **_license(shipped_license()),
    }


def _license(license: License) -> dict[str, str | None]:
    """Return what a source states, and when it was read; None for a licence that none states."""
    read = license.read.isoformat() if license.read else None
    return {"license": license.name, "license_read": read, "license_note": license.note}
