"""Plots for the report: box plots as inline SVG, spectrograms as PNG data URIs."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.images import heat_map

RANGE = 70.0  # dB between the brightest and the darkest colour
MAX_COLUMNS = 480

HEIGHT, TOP, BOTTOM, LEFT = 260, 14, 30, 44  # pixels of a box plot and of its margins
GROUP, BOX = 110, 26  # pixels of a group of boxes, and of a box with its gap

Points = Mapping[str, float]  # by track


def box_plot(groups: Mapping[str, Mapping[str, Points]], *, baseline: float | None = None) -> str:
    """Return an SVG with a group of boxes per stem, a box per row, and a point per track.

    Boxes span the quartiles and show the median; whiskers end at the last value within one and a
    half box lengths. A point's tooltip names its track. The axis includes the baseline, a darker
    line.
    """
    values = [v for rows in groups.values() for points in rows.values() for v in points.values()]
    if baseline is not None:
        values.append(baseline)
    ticks = _ticks(min(values, default=0.0), max(values, default=1.0))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    width = LEFT + GROUP * len(groups)
    parts = [
        f'<line x1="{LEFT}" x2="{width}" y1="{y(t):.1f}" y2="{y(t):.1f}" '
        f'class="{"baseline" if t == baseline else "grid"}"/>'
        f'<text x="{LEFT - 6}" y="{y(t) + 4:.1f}" class="tick">{t:g}</text>'
        for t in ticks
    ]
    for i, (stem, rows) in enumerate(groups.items()):
        middle = LEFT + GROUP * (i + 0.5)
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" class="name">{escape(stem)}</text>')
        for j, (row, points) in enumerate(rows.items()):
            x = middle + (j - (len(rows) - 1) / 2) * BOX
            parts.append(f'<g class="{row}">{_box(x, points, y)}</g>')
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img">'
        f"{''.join(parts)}</svg>"
    )


def spectrogram(powers: Tensor, loudest: float) -> str:
    """Return (bands, columns) of power, low bands first, as the data URI of a PNG, low bands below.

    `loudest` is the power that gets the brightest colour.
    """
    if powers.shape[-1] > MAX_COLUMNS:
        powers = F.adaptive_avg_pool1d(powers, MAX_COLUMNS)
    decibels = 10 * torch.log10(powers.nan_to_num(0.0, 0.0) / max(loudest, 1e-30) + 1e-30)
    levels = ((decibels / RANGE + 1).clamp(0, 1) * 255).round().to(torch.uint8)
    return heat_map(levels.numpy())


def _box(x: float, points: Points, y: Callable[[float], float]) -> str:
    """Return one box around `x`, with its points."""
    if not points:
        return ""
    low, first, middle, third, high = (y(v) for v in _five_numbers(list(points.values())))
    half = BOX / 2 - 4
    box = (
        f'<line x1="{x}" x2="{x}" y1="{low:.1f}" y2="{high:.1f}"/>'
        f'<rect x="{x - half}" width="{2 * half}" y="{third:.1f}" height="{first - third:.1f}"/>'
        f'<line x1="{x - half}" x2="{x + half}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
    )
    return box + "".join(
        f'<circle cx="{x}" cy="{y(value):.1f}" r="2.5">'
        f"<title>{escape(track)}: {value:.2f}</title></circle>"
        for track, value in points.items()
    )


def _five_numbers(points: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Return whisker, quartile, median, quartile, whisker."""
    first, middle, third = (float(v) for v in np.percentile(points, [25, 50, 75]))
    reach = 1.5 * (third - first)
    low = min(p for p in points if p >= first - reach)
    high = max(p for p in points if p <= third + reach)
    return low, first, middle, third, high


def _ticks(low: float, high: float) -> list[float]:
    """Return four to eleven round values around all values."""
    span = max(high - low, 1.0)
    step = 10 ** math.floor(math.log10(span / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 8)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]
