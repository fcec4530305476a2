"""Write what a data set was made from: `ATTRIBUTION.md` for people, `manifest.json` for code."""

import json
from itertools import chain
from pathlib import Path

from htdemucs.fsutil import atomic_write
from recipes.mini import plan, sources
from recipes.mini.tracks import ABOUT


def write(out: Path, versions: dict[str, str], seed: int) -> None:
    """Collect every finished track's `track.json` and write both files into `out`."""
    tracks = {
        split: [json.loads(path.read_text(encoding="utf-8")) | {"name": path.parent.name}
                for path in sorted((out / split).glob(f"[0-9]*/{ABOUT}"))]
        for split in plan.SPLITS
    }  # fmt: skip
    manifest = {
        "seed": seed,
        "packages": [
            {"name": p.name, "version": versions[p.name], "licence": p.licence, "gives": p.role,
             "used_for": "training" if p.training else "held-out set only"}
            for p in sources.PACKAGES
        ],
        "hours": {s: round(sum(t["seconds"] for t in ts) / 3600, 3) for s, ts in tracks.items()},
        "tracks": tracks,
    }  # fmt: skip
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    for name, content in (("manifest.json", text), ("ATTRIBUTION.md", _page(manifest))):
        with atomic_write(out / name) as partial:
            partial.write_text(content, encoding="utf-8")


def _page(manifest: dict) -> str:
    lines = [
        "# What this data set was made from",
        "",
        f"Seed {manifest['seed']}. Hours: "
        + ", ".join(f"{split} {hours}" for split, hours in manifest["hours"].items())
        + ". Each track's own inputs are in its `track.json` and in `manifest.json`.",
        "",
        "| package | version | licence | gives | used for |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {p['name']} | {p['version']} | {p['licence']} | {p['gives']} | {p['used_for']} |"
        for p in manifest["packages"]
    ]
    lines += ["", "Inputs by how many tracks used them:", ""]
    for split, tracks in manifest["tracks"].items():
        counts: dict[str, int] = {}
        for track in tracks:
            for credit in set(chain.from_iterable(track["made_with"].values())):
                counts[credit] = counts.get(credit, 0) + 1
        listed = "; ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        lines += [f"## {split}", "", listed or "none yet", ""]
    return "\n".join(lines)
