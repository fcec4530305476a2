"""Draw speeds as bars in an SVG file."""

import math
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


STEP = 0.2  # dB between lines of the grid


def curves(
    lines: Mapping[str, Mapping[float, float]], levels: Mapping[str, float], x: str, y: str
) -> str:
    """Return an SVG of lines over a logarithmic axis, each with a level that it may reach."""
    width, height, left, top = 560, 320, 60, 30
    xs = sorted({value for line in lines.values() for value in line})
    ys = [*levels.values(), *(value for line in lines.values() for value in line.values())]
    low, high = math.floor(min(ys) / STEP), math.ceil(max(ys) / STEP)

    def across(value: float) -> float:
        return left + (width - 2 * left) * math.log(value / xs[0]) / math.log(xs[-1] / xs[0])

    def down(score: float) -> float:
        return top + height * (high - score / STEP) / (high - low)

    parts = []
    for score in (step * STEP for step in range(low, high + 1)):
        v, place = down(score), f'x="{left - 8}" y="{down(score) + 4:.1f}" text-anchor="end"'
        parts.append(f'<path d="M{left} {v:.1f}H{width - left}" stroke="#d9dce1"/>')
        parts.append(f"<text {place}>{score:.1f}</text>")
    for value in xs:
        place = f'x="{across(value):.1f}" y="{top + height + 18}" text-anchor="middle"'
        parts.append(f"<text {place}>{value:g}</text>")
    for (name, line), colour in zip(lines.items(), (OURS, OTHERS, THEIRS, "#b5485d"), strict=False):
        points = [(across(value), down(score)) for value, score in line.items()]
        path = "L".join(f"{h:.1f} {v:.1f}" for h, v in points)
        level, (h, v) = f"M{left} {down(levels[name]):.1f}H{width - left}", points[-1]
        parts += [
            f'<path d="{level}" stroke="{colour}" stroke-dasharray="3 4"/>',
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
            f'<text x="{h + 6:.1f}" y="{v + 14:.1f}" fill="{colour}">{escape(name)}</text>',
        ]
    bottom = top + height + 40
    parts.append(f'<text x="{width / 2}" y="{bottom}" text-anchor="middle">{escape(x)}</text>')
    parts.append(f'<text x="8" y="{top - 14}">{escape(y)}; dashed: offline</text>')
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 12}" '
    label = f'role="img" aria-label="{escape(y)} over {escape(x)}">'
    style = "<style>text{font:13px sans-serif;fill:#4a4f57}</style>"
    ground = f'<rect width="{width}" height="{bottom + 12}" fill="#ffffff"/>'
    return "\n".join([opening + label, style, ground, *parts, "</svg>", ""])
