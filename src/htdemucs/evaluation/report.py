"""The reports of an evaluation and of a comparison: HTML pages without external files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from htdemucs.evaluation.aggregate import ALL
from htdemucs.evaluation.band_spectrogram import LOWEST
from htdemucs.evaluation.evaluate import Evaluation
from htdemucs.evaluation.json_report import rows, statistics, to_document, write_text
from htdemucs.evaluation.metrics import BLEED_METRICS
from htdemucs.evaluation.plots import RANGE, box_plot, spectrogram
from htdemucs.evaluation.scoring import TrackScores
from htdemucs.results import counted

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em;
  color: #222; background: #fff }
h1 { margin-bottom: 0 } h2 { margin: 1.6em 0 .4em } h3 { margin: .6em 0 0 }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .2em .6em; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, td.left { text-align: left }
th[colspan] { text-align: center; border-bottom-color: #888 }
tr.model td { font-weight: 600 } tr.stem td { border-top: 2px solid #bbb }
small, figcaption, dt { color: #666 } small { font-weight: 400 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2em 1.2em } dd { margin: 0 }
pre { background: #f5f5f5; padding: 1em; overflow-x: auto; font-size: 12px }
summary { cursor: pointer; margin: .4em 0 }
.scroll { overflow-x: auto } .scroll table { font-size: 13px }
.scroll td:first-child { position: sticky; left: 0; background: #fff }
td.silent { text-align: center; color: #666; font-style: italic }
.plots { display: flex; flex-wrap: wrap; gap: 0 2em } figure { margin: 0 }
svg text { font: 12px system-ui, sans-serif; fill: #444 }
svg .tick { text-anchor: end } svg .name { text-anchor: middle } svg .grid { stroke: #e4e4e4 }
svg .baseline { stroke: #777 }
.model { --ink: #1b6ca8 } .mixture { --ink: #8a8a8a } .oracle { --ink: #3a8f4d }
svg g line, svg g rect { stroke: var(--ink); stroke-width: 1.5 }
svg g rect { fill: var(--ink); fill-opacity: .18 }
svg g circle { fill: var(--ink); fill-opacity: .55 }
.key { color: var(--ink); font-weight: 600; margin-right: 1.2em }
.pair { display: grid; grid-template-columns: max-content 1fr 1fr; gap: .4em 1em;
  align-items: center }
.pair img { display: block; width: 100%; height: 110px; background: #000004 }
.pair .ends { display: flex; justify-content: space-between; line-height: 1 }
"""


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report of an evaluation, atomically.

    Raises:
        EvaluationError: the file cannot be written.
    """
    write_text(to_html(evaluation), path)


def to_html(evaluation: Evaluation) -> str:
    """Return the page: averages, box plots, tracks, spectrograms of errors, and definitions."""
    document, labels = to_document(evaluation), rows(evaluation)
    title = escape(f"{evaluation.options.model}: evaluation")
    sections = "\n".join(
        [
            _header(document),
            _averages(document, labels),
            *_failures_and_notes(document),
            _box_plots(document, labels),
            _track_table(document),
            *_spectrograms(evaluation.results),
            _definitions(document),
        ]
    )
    return _page(title, sections)


def write_comparison_report(comparison: Mapping[str, Any], path: Path) -> None:
    """Write the report of what `compare` has returned, atomically.

    Raises:
        EvaluationError: the file cannot be written.
    """
    write_text(comparison_to_html(comparison), path)


def comparison_to_html(comparison: Mapping[str, Any]) -> str:
    """Return the page of a comparison: statistics, notes, box plots, tracks, and definitions."""
    runs = comparison["runs"]
    title = escape(f"{runs['b']['model']} compared with {runs['a']['model']}")
    sections = [
        _comparison_header(comparison),
        _statistics(comparison),
        _notes_list(comparison["notes"]),
        _difference_plots(comparison),
        _difference_table(comparison),
        f"<h2>Definitions</h2>{_terms(comparison['definitions'])}",
    ]
    return _page(title, "\n".join(sections))


def _page(title: str, sections: str) -> str:
    """Return a page; title and sections are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{sections}\n</body></html>\n"
    )


def _comparison_header(comparison: Mapping[str, Any]) -> str:
    """Return what A and B are, and which of their settings differ."""
    terms = {
        name.upper(): f"{run['model']} on {run['data']} ({run['file']})"
        for name, run in comparison["runs"].items()
    }
    terms |= {
        option: f"{values['a']} in A, {values['b']} in B"
        for option, values in comparison["settings"].items()
    }
    return _terms(terms)


def _statistics(comparison: Mapping[str, Any]) -> str:
    """Return a table of every metric's stems."""
    names = ("tracks", "A", "B", "mean of B − A", "median of B − A", "p", "wins", "losses", "ties")
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = ""
    for metric in comparison["metrics"]:
        for i, (stem, by_metric) in enumerate(comparison["statistics"].items()):
            row = by_metric[metric]
            cells = (
                row["tracks"],
                format_score(row["a"]),
                format_score(row["b"]),
                *(
                    f"{format_score(row[name])} {_format_interval(row[f'{name}_interval'])}"
                    for name in ("mean", "median")
                ),
                format_p(row["p"]),
                *(row[name] for name in ("wins", "losses", "ties")),
            )
            lines += (
                f'<tr class="{"" if i else "stem"}"><td>{"" if i else metric}</td>'
                f'<td class="left">{escape(stem)}</td>'
                f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
            )
    tracks = counted(len(comparison["differences"]), "track")
    return (
        f"<h2>Differences over {tracks}</h2><p>In {units(comparison['metrics'])}; a positive "
        "difference is in favour of B. Beside each mean and median is its 95 % bootstrap interval; "
        "p is that of Wilcoxon's signed-rank test.</p>"
        f'<div class="scroll"><table><tr><th></th><th></th>{head}</tr>{lines}</table></div>'
    )


def _difference_plots(comparison: Mapping[str, Any]) -> str:
    """Return a box plot per metric, with every track's difference as a point."""
    figures = ""
    for metric in comparison["metrics"]:
        groups = {
            stem: {
                "model": {
                    track: row[stem][metric]
                    for track, row in comparison["differences"].items()
                    if row[stem][metric] is not None
                }
            }
            for stem in comparison["stems"]
        }
        plot = box_plot(groups, baseline=0.0)
        figures += f'<figure class="scroll"><h3>{metric}{_unit(metric)}</h3>{plot}</figure>'
    return (
        "<h2>Tracks</h2><p>Every point is the difference B − A of a track; above the dark line, B "
        f'is better.</p><div class="plots">{figures}</div>'
    )


def _difference_table(comparison: Mapping[str, Any]) -> str:
    """Return a table of every track's differences."""
    silent = comparison["silent"]
    return _score_table(comparison["differences"], comparison["metrics"], silent, signed=True)


def _header(document: Mapping[str, Any]) -> str:
    """Return a line about the data, the time and the memory."""
    data, run = document["data"], document["run"]
    facts = [counted(data["tracks"], "track"), f"{data['duration'] / 60:.1f} minutes"]
    if run["real_time_factor"] is not None:
        facts.append(f"{run['real_time_factor']:.3g} s of separation for a second of music")
    for name, peak in (("", run["peak_memory"]), (" of the GPU", run["peak_device_memory"])):
        if peak:
            facts.append(f"peak memory{name} {peak / 1e9:.2f} GB")
    silent = [f"{escape(s)} in {count}" for s, count in document["silent"].items() if count]
    if silent:
        facts.append(f"tracks with a silent stem, left out of its averages: {', '.join(silent)}")
    return f"<p>{'; '.join(facts)}.</p>"


def _averages(document: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return a table of every stem's rows: mean with interval, and median."""
    metrics = document["options"]["metrics"]
    head = "".join(f'<th colspan="2">{metric}</th>' for metric in metrics)
    lines = []
    for stem in (*document["stems"], ALL):
        for row, label in labels.items():
            mean, median = statistics(row)
            cells = "".join(
                f"<td>{format_score(document[mean][stem][metric])} "
                f"{_format_interval(document[f'{mean}_interval'][stem][metric])}</td>"
                f"<td>{format_score(document[median][stem][metric])}</td>"
                for metric in metrics
            )
            first = escape(stem) if row == "model" else ""
            kind = "model stem" if row == "model" else row
            lines.append(
                f'<tr class="{kind}"><td>{first}</td><td class="left">{label}</td>{cells}</tr>'
            )
    return (
        f"<h2>Averages over tracks</h2><p>In {units(metrics)}; more is better. Beside each mean is "
        "its 95 % bootstrap interval.</p>"
        f'<div class="scroll"><table><tr><th></th><th></th>{head}</tr>'
        f"<tr><th></th><th></th>{'<th>mean</th><th>median</th>' * len(metrics)}</tr>"
        f"{''.join(lines)}</table></div>"
    )


def _box_plots(document: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return a box plot per metric, with every track as a point."""
    tracks = {row: document["tracks" if row == "model" else f"{row}_tracks"] for row in labels}
    silent = {name: info["silent_stems"] for name, info in document["track_info"].items()}
    keys = "".join(f'<span class="key {row}">{label}</span>' for row, label in labels.items())
    figures = []
    for metric in document["options"]["metrics"]:
        groups = {
            stem: {
                row: {
                    track: scores[stem][metric]
                    for track, scores in of_row.items()
                    if scores[stem][metric] is not None and stem not in silent[track]
                }
                for row, of_row in tracks.items()
            }
            for stem in document["stems"]
        }
        heading = f"<h3>{metric}{_unit(metric)}</h3>"
        figures.append(f'<figure class="scroll">{heading}{box_plot(groups)}</figure>')
    return (
        f"<h2>Tracks</h2><p>{keys}</p>"
        f'<div class="plots">{"".join(figures)}</div>'
        "<p><small>Every point is a track. Boxes span the middle half of the tracks and show the "
        "median; whiskers end at the last track within one and a half box lengths.</small></p>"
    )


def _failures_and_notes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield lists of failures and of notes."""
    failures = [
        f"<li>{escape(name)}: {escape(text)}</li>" for name, text in document["failures"].items()
    ]
    if failures:
        yield f"<h2>Not scored</h2><ul>{''.join(failures)}</ul>"
    notes = [
        *document["data"]["notes"],
        *(
            f"{name}: {note}"
            for name, info in document["track_info"].items()
            for note in info["notes"]
        ),
    ]
    yield _notes_list(notes)


def _notes_list(notes: Sequence[str]) -> str:
    """Return a list of notes; nothing if there are none."""
    if not notes:
        return ""
    return f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _track_table(document: Mapping[str, Any]) -> str:
    """Return a table of every track's scores."""
    silent = {name: info["silent_stems"] for name, info in document["track_info"].items()}
    return _score_table(document["tracks"], document["options"]["metrics"], silent)


def _score_table(
    tracks: Mapping[str, Any],
    metrics: Sequence[str],
    silent: Mapping[str, Sequence[str]],
    *,
    signed: bool = False,
) -> str:
    """Return a table of scores or differences by track, stem and metric.

    Args:
        tracks: at least one.
        metrics: those of the columns.
        silent: the stems of each track whose scores are not shown.
        signed: with a sign for positive numbers.
    """
    stems = list(next(iter(tracks.values())))
    head = "".join(f'<th colspan="{len(metrics)}">{escape(stem)}</th>' for stem in stems)
    names = "".join(f"<th>{metric}</th>" for metric in metrics) * len(stems)
    silence = f'<td class="silent" colspan="{len(metrics)}">silent</td>'
    lines = ""
    for track, scores in tracks.items():
        cells = (
            silence
            if stem in silent[track]
            else "".join(f"<td>{format_score(scores[stem][m], signed)}</td>" for m in metrics)
            for stem in stems
        )
        lines += f"<tr><td>{escape(track)}</td>{''.join(cells)}</tr>"
    return (
        '<div class="scroll"><table>'
        f"<tr><th></th>{head}</tr><tr><th></th>{names}</tr>{lines}</table></div>"
        "<p><small>silent: the true stem is silent, so its scores mean nothing and are left out. "
        "–: undefined; see the definitions below.</small></p>"
    )


def _spectrograms(results: tuple[TrackScores, ...]) -> Iterator[str]:
    """Yield for each track the spectrograms of its stems and of their errors, on one scale."""
    with_spectra = [result for result in results if result.spectra]
    if not with_spectra:
        return
    yield (
        "<h2>Errors</h2><p>The right-hand side of a perfect estimate is black. All pictures of a "
        f"track have the same scale, from the loudest bin of its stems to {RANGE:g} dB below it. "
        "The frequency axis is logarithmic.</p>"
    )
    for result in with_spectra:
        opened = ' open=""' if result is with_spectra[0] else ""
        yield (
            f"<details{opened}><summary>{escape(result.name)}</summary>"
            f'<div class="pair">{_spectrogram_rows(result)}</div></details>'
        )


def _spectrogram_rows(result: TrackScores) -> str:
    """Return a row of three cells for each stem: name, content, error."""
    top = result.sample_rate / 2000
    cells = ["<span></span><span>the stem</span><span>its estimate minus the stem</span>"]
    loudest = max(float(reference.max()) for reference, _ in result.spectra.values())
    for stem, (reference, error) in result.spectra.items():
        images = "".join(
            f'<img alt="{what} of {escape(stem)}" src="{spectrogram(powers, loudest)}">'
            for what, powers in (("content", reference), ("error", error))
        )
        span = f"<small>{LOWEST:g} Hz to {top:.3g} kHz</small>"
        silent = "<br/><small>silent</small>" if stem in result.silent_stems else ""
        cells.append(f"<span>{escape(stem)}<br/>{span}{silent}</span>{images}")
    ends = f'<small class="ends"><span>0</span><span>{result.duration:.0f} s</span></small>'
    return "".join([*cells, "<span></span>", ends, ends])


def _definitions(document: Mapping[str, Any]) -> str:
    """Return the definitions of the scores, and the rest of the JSON file."""
    names = ("model", "data", "options", "undefined", "silent", "versions", "run")
    text = json.dumps({name: document[name] for name in names}, indent=2, ensure_ascii=False)
    return (
        f"<h2>Definitions and settings</h2>{_terms(document['definitions'])}"
        "<details><summary>Hashes, options, versions, machine</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def _terms(texts: Mapping[str, str]) -> str:
    """Return a list of terms with their texts."""
    items = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts.items())
    return f"<dl>{''.join(items)}</dl>"


def _unit(metric: str) -> str:
    return "" if metric in BLEED_METRICS else " <small>dB</small>"


def units(metrics: Sequence[str]) -> str:
    """Return the units of some metrics."""
    others = [metric for metric in metrics if metric in BLEED_METRICS]
    if not others:
        return "dB"
    names = " and ".join(others)
    return "0 to 100" if len(others) == len(metrics) else f"dB ({names}: 0 to 100)"


def format_score(value: float | None, signed: bool = False) -> str:
    """Return a score with two decimals, or a dash if it is undefined."""
    return "–" if value is None else f"{value:+.2f}" if signed else f"{value:.2f}"


def format_p(value: float | None) -> str:
    """Return a probability with two digits, or a dash if it is undefined."""
    return "–" if value is None else f"{value:.2g}"


def _format_interval(bounds: list[float | None]) -> str:
    low, high = bounds
    return "" if low is None else f"<small>[{format_score(low)}, {format_score(high)}]</small>"
