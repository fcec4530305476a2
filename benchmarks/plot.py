"""Draw speeds as bars in an SVG file."""

from collections.abc import Mapping
from html import escape
from typing import Any

from benchmarks.forward import PUBLISHED

WIDTH, LEFT, BAR, GAP = 760, 250, 18, 8
THEIRS, OURS, OTHERS = "#8a8f98", "#2f6fde", "#c9a227"


def draw(result: Mapping[str, Any]) -> str:
    """Return an SVG of each comparison's speeds relative to the published package."""
    groups = {"one segment through the network": result["forward"]["seconds"]}
    for title, runs in result.items():
        if isinstance(runs, dict) and PUBLISHED in runs:
            groups[title] = {name: run["seconds"] for name, run in runs.items()}
    most = max(seconds[PUBLISHED] / min(seconds.values()) for seconds in groups.values())
    scale = (WIDTH - LEFT - 70) / most
    parts, y = [], 34
    for title, seconds in groups.items():
        parts.append(f'<text x="8" y="{y}" class="title">{escape(title)}</text>')
        y += 12
        for name, time in seconds.items():
            speed = seconds[PUBLISHED] / time
            colour = THEIRS if PUBLISHED in name else OURS if "htdemucs" in name else OTHERS
            middle = y + BAR * 0.72
            parts += [
                f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{LEFT}" y="{y}" width="{speed * scale:.1f}" height="{BAR}" rx="3" '
                f'fill="{colour}"/>',
                f'<text x="{LEFT + speed * scale + 6:.1f}" y="{middle:.1f}">{speed:.2f}x</text>',
            ]
            y += BAR + GAP
        y += 26
    style = "text{font:13px sans-serif;fill:#4a4f57}.title{font-weight:600}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" '
        f'role="img" aria-label="Speed relative to {PUBLISHED}">\n<style>{style}</style>\n'
        f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
