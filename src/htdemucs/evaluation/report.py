"""An evaluation as one HTML page that needs no other file."""

import json
import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from htdemucs.evaluation.aggregate import ALL
from htdemucs.evaluation.document import rows, statistics, to_document, write_text
from htdemucs.evaluation.evaluate import Evaluation
from htdemucs.evaluation.figures import RANGE, box_plot, spectrogram
from htdemucs.evaluation.metrics import METRICS
from htdemucs.evaluation.scoring import TrackResult

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, td.left { text-align: left }
tr.model td { font-weight: 600 } tr.all td { border-top: 2px solid #888 }
small { color: #666; font-weight: 400 } .scroll { overflow-x: auto }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 12px }
svg text { font: 12px system-ui, sans-serif; fill: #444 }
svg .tick { text-anchor: end } svg .name { text-anchor: middle } svg .grid { stroke: #e4e4e4 }
.model { --ink: #1b6ca8 } .mixture { --ink: #8a8a8a } .oracle { --ink: #3a8f4d }
svg g line, svg g rect { stroke: var(--ink); stroke-width: 1.5 }
svg g rect { fill: var(--ink); fill-opacity: .18 } svg g circle { fill: var(--ink) }
.key { color: var(--ink); font-weight: 600; margin-right: 1.2em }
.pair { display: grid; grid-template-columns: 5em 1fr 1fr; gap: .4em 1em; align-items: center }
.pair img { width: 100%; height: 96px; image-rendering: auto; background: #000004 }
"""


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write it; the file appears only when whole.

    Raises:
        EvaluationError: it cannot be written.
    """
    write_text(to_html(evaluation), path)


def to_html(evaluation: Evaluation) -> str:
    """Table, box plots, tracks, spectrograms of what is left wrong, and provenance."""
    document = to_document(evaluation)
    title = escape(f"{evaluation.options.model}: evaluation")
    sections = "\n".join(
        [
            _summary(document, rows(evaluation)),
            *_plots(document, rows(evaluation)),
            *_problems(document),
            _tracks(document),
            *_spectrograms(evaluation.results),
            _provenance(document),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{sections}\n</body></html>\n"
    )


def _summary(document: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Every stem with its rows; the mean with its interval, and the median."""
    head = "".join(f'<th colspan="2">{metric}</th>' for metric in METRICS)
    lines = []
    for stem in (*document["stems"], ALL):
        for row, label in labels.items():
            mean, median = statistics(row)
            cells = "".join(
                f"<td>{decibels(document[mean][stem][metric])} "
                f"{_interval(document[f'{mean}_interval'][stem][metric])}</td>"
                f"<td>{decibels(document[median][stem][metric])}</td>"
                for metric in METRICS
            )
            first = escape(stem) if row == "model" else ""
            kind = f"{row} all" if stem == ALL and row == "model" else row
            lines.append(
                f'<tr class="{kind}"><td>{first}</td><td class="left">{label}</td>{cells}</tr>'
            )
    data = document["data"]
    return (
        f"<p>{data['tracks']} tracks, {data['duration'] / 60:.1f} minutes. Decibels; mean with its "
        "95 % bootstrap interval, and median, over tracks.</p>"
        f"<table><tr><th></th><th></th>{head}</tr>"
        f"<tr><th></th><th></th>{'<th>mean</th><th>median</th>' * len(METRICS)}</tr>"
        f"{''.join(lines)}</table>"
    )


def _plots(document: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[str]:
    """One picture a metric: every track a point."""
    tracks = {row: document["tracks" if row == "model" else f"{row}_tracks"] for row in labels}
    keys = "".join(f'<span class="key {row}">{label}</span>' for row, label in labels.items())
    yield f"<h2>Tracks</h2><p>{keys}</p>"
    for metric in METRICS:
        groups = {
            stem: {
                row: [math.nan if (v := of[stem][metric]) is None else v for of in of_row.values()]
                for row, of_row in tracks.items()
            }
            for stem in document["stems"]
        }
        yield f'<h3>{metric} <small>dB</small></h3><div class="scroll">{box_plot(groups)}</div>'


def _problems(document: Mapping[str, Any]) -> Iterator[str]:
    """What failed, and what was odd."""
    failures = [
        f"<li>{escape(name)}: {escape(text)}</li>" for name, text in document["failures"].items()
    ]
    if failures:
        yield f"<h2>Not scored</h2><ul>{''.join(failures)}</ul>"
    notes = [
        f"<li>{escape(name)}: {escape(note)}</li>"
        for name, info in document["track_info"].items()
        for note in info["notes"]
    ]
    if notes:
        yield f"<h2>Notes</h2><ul>{''.join(notes)}</ul>"


def _tracks(document: Mapping[str, Any]) -> str:
    stems = document["stems"]
    head = "".join(f'<th colspan="{len(METRICS)}">{escape(stem)}</th>' for stem in stems)
    names = "".join(f"<th>{metric}</th>" for metric in METRICS) * len(stems)
    lines = "".join(
        f"<tr><td>{escape(track)}</td>"
        + "".join(f"<td>{decibels(scores[stem][m])}</td>" for stem in stems for m in METRICS)
        + "</tr>"
        for track, scores in document["tracks"].items()
    )
    return (
        '<div class="scroll"><table>'
        f"<tr><th></th>{head}</tr><tr><th></th>{names}</tr>{lines}</table></div>"
    )


def _spectrograms(results: tuple[TrackResult, ...]) -> Iterator[str]:
    """Of each track and stem, what it holds and what its estimate has wrong, equally bright."""
    if not any(result.spectra for result in results):
        return
    yield (
        "<h2>What is left wrong</h2><p>Left the stem, right its estimate minus the stem, on one "
        f"scale of {RANGE:g} dB; time to the right, pitch upwards from 40 Hz.</p>"
    )
    for result in results:
        pairs = []
        for stem, (reference, error) in result.spectra.items():
            loudest = float(reference.max())
            pictures = "".join(
                f'<img alt="{what} of {escape(stem)}" src="{spectrogram(powers, loudest)}">'
                for what, powers in (("content", reference), ("error", error))
            )
            pairs.append(f"<span>{escape(stem)}</span>{pictures}")
        yield (
            f"<details><summary>{escape(result.name)}</summary>"
            f'<div class="pair">{"".join(pairs)}</div></details>'
        )


def _provenance(document: Mapping[str, Any]) -> str:
    """All else that the JSON file says."""
    names = ("model", "data", "options", "definitions", "undefined", "versions", "run")
    text = json.dumps({name: document[name] for name in names}, indent=2, ensure_ascii=False)
    return f"<h2>Where this comes from</h2><pre>{escape(text)}</pre>"


def decibels(value: float | None) -> str:
    """Two decimals; a dash where a score is undefined."""
    return "–" if value is None else f"{value:.2f}"


def _interval(bounds: list[float | None]) -> str:
    low, high = bounds
    return "" if low is None else f"<small>[{decibels(low)}, {decibels(high)}]</small>"
