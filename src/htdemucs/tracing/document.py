"""A trace as a document: rows for tables, JSON, CSV and Markdown."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from htdemucs.audio.ffmpeg import display_path
from htdemucs.model import NetworkConfig
from htdemucs.separation.separator import MAX_SHIFT, shift_offsets
from htdemucs.settings import EngineSettings
from htdemucs.tracing.song import SongTrace, Statistics
from htdemucs.tracing.stages import Resolution, Stage
from htdemucs.tracing.texts import AXES, HEADERS, NOTES, Language, words

SEPARATORS: dict[Language, str] = {"en": "; ", "zh": "；"}


@dataclass(frozen=True)
class Trace:
    """The stages of a network, and what they are of.

    Attributes:
        model: its name.
        config: of the network.
        samples: in the mixture that the stages are for.
        stages: of depth 2.
        member: the network's number in its bag, from 1; None if it is alone.
        members: the number of networks in the bag.
        alike: the numbers of the bag's networks that have the same sizes.
        track_samples: the length that was asked for, if the engine cuts it into segments.
        song: the data of a song.
    """

    model: str
    config: NetworkConfig
    samples: int
    stages: Sequence[Stage]
    member: int | None = None
    members: int = 1
    alike: Sequence[int] = field(default_factory=list)
    track_samples: int | None = None
    song: SongTrace | None = None

    @property
    def segments(self) -> int:
        """How many segments the engine computes for the length that was asked for."""
        if self.track_samples is None:
            return 1
        settings, rate = EngineSettings(), self.config.sample_rate
        stride = max(1, int((1 - settings.overlap) * self.config.segment_length))
        lead_in = int(MAX_SHIFT * rate) - shift_offsets(settings.shifts, settings.seed, rate)[0]
        return math.ceil((self.track_samples + lead_in) / stride)

    @property
    def parameters(self) -> int:
        """Of the network."""
        return sum(stage.parameters for stage in self.to_depth(1))

    @property
    def flop(self) -> float:
        """Of one run of the network."""
        return sum(stage.flop for stage in self.to_depth(1))

    def to_depth(self, depth: int) -> list[Stage]:
        """Return the stages and, with a depth of 2, their parts."""
        return [stage for stage in self.stages if stage.depth <= depth]

    def title(self, language: Language = "en") -> str:
        """Return a line that says what this is."""
        rate = self.config.sample_rate
        parts = [display_path(self.model)]
        if self.member is not None:
            parts.append(words(NOTES, "member", language).format(self.member, self.members))
        duration = _seconds(self.samples / rate)
        key = "sample" if self.samples == 1 else "samples"
        text = words(NOTES, key, language).format(self.samples, rate, duration)
        if self.song is not None:
            name = display_path(Path(self.song.track).name)
            text += words(NOTES, "from", language).format(name, self.song.start)
        return ", ".join(parts) + words(NOTES, "colon", language) + text

    def notes(self, language: Language = "en") -> list[str]:
        """Return lines about what the table does not say."""
        lines = []
        if self.song is not None and self.track_samples is not None:
            lines.append(words(NOTES, "shortened", language).format(self.track_samples))
        elif self.track_samples is not None:
            lines.append(
                words(NOTES, "segments", language).format(
                    self.track_samples, self.segments, self.segments * self.flop / 1e9
                )
            )
        if self.members > 1:
            numbers = ", ".join(map(str, self.alike))
            key = "alike" if len(self.alike) == self.members else "differ"
            lines.append(words(NOTES, key, language).format(self.members, numbers))
        return lines


def as_json(trace: Trace, depth: int) -> str:
    """Return everything that is known as JSON."""
    statistics = None if trace.song is None else trace.song.statistics
    document: dict[str, Any] = {
        "model": trace.model,
        "architecture": type(trace.config).__name__.removesuffix("Config"),
        "member": trace.member,
        "members": trace.members,
        "members_alike": list(trace.alike) or None,
        "sample_rate": trace.config.sample_rate,
        "samples": trace.samples,
        "track": trace.song and {"path": trace.song.track, "start": trace.song.start},
        "track_samples": trace.track_samples,
        "segments": trace.segments,
        "parameters": trace.parameters,
        "gflop": trace.flop / 1e9,
        "stages": [_stage_json(stage, statistics) for stage in trace.to_depth(depth)],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _stage_json(stage: Stage, statistics: Mapping[str, Statistics] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": stage.number,
        "stage": stage.label(),
        "stage_zh": stage.label("zh"),
        "branch": stage.branch,
        "module": stage.module or None,
        "operation": stage.operation or None,
        "shape": list(stage.shape),
        "axes": [asdict(size) for size in stage.sizes],
        "resolution": stage.resolution and asdict(stage.resolution),
        "skip": stage.skip or None,
        "parameters": stage.parameters,
        "gflop": stage.flop / 1e9,
        "bytes": 4 * math.prod(stage.shape),
    }
    if statistics is not None:
        row["seconds"] = stage.seconds
        row["statistics"] = asdict(statistics[stage.number])
    return row


def as_csv(trace: Trace, depth: int, language: Language) -> str:
    """Return a table with a row for each stage; numbers have no units, headings do."""
    statistics = None if trace.song is None else trace.song.statistics
    rows = []
    for stage in trace.to_depth(depth):
        resolution = stage.resolution or Resolution(0.0)
        row: dict[str, Any] = {
            "number": stage.number,
            "stage": stage.label(language),
            "shape": stage.shape_text,
            "derivation": SEPARATORS[language].join(formulas(stage, language)),
            "module": stage.module,
            "operation": stage.operation,
            "step_seconds": resolution.seconds,
            "step_hertz": resolution.hertz,
            "reach_seconds": resolution.reach_seconds,
            "reach_hertz": resolution.reach_hertz,
            "parameters": stage.parameters,
            "gflop": stage.flop / 1e9,
        }
        if statistics is not None:
            row |= {"seconds": stage.seconds} | asdict(statistics[stage.number])
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(trace: Trace, depth: int, language: Language) -> str:
    """Return a table for documents."""
    header, rows = table(trace, depth, language, wide=True)
    lines = [f"{trace.title(language)}", ""]
    lines += ["| " + " | ".join(words(HEADERS, key, language) for key in header) + " |"]
    lines += ["|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines += ["", *trace.notes(language)] if trace.notes(language) else []
    return "\n".join(lines) + "\n"


def table(
    trace: Trace, depth: int, language: Language, *, wide: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return the keys of the headers, and rows of text.

    `wide` adds how each size comes about, and what one step is.
    """
    header = ["number", "stage", "shape"]
    if wide:
        header += ["formula", "operation", "step", "reach"]
    if trace.song is None or wide:
        header += ["parameters", "gflop"]
    if trace.song is not None:
        header += ["mean", "std", "low", "high", "zeros", "ms", "mb"]
    rows = []
    for stage in trace.to_depth(depth):
        cells = {
            "number": stage.number,
            "stage": stage.label(language),
            "shape": stage.shape_text,
            "formula": SEPARATORS[language].join(formulas(stage, language)),
            "operation": stage.operation,
            "step": step_text(stage.resolution),
            "reach": reach_text(stage.resolution, language),
            "parameters": f"{stage.parameters:,}" if stage.parameters else "",
            "gflop": f"{stage.flop / 1e9:.2f}" if stage.flop else "",
        }
        if trace.song is not None:
            cells |= statistics_cells(trace.song.statistics[stage.number], stage.seconds)
        rows.append([cells[key] for key in header])
    return header, rows


def statistics_cells(figures: Statistics, seconds: float | None) -> dict[str, str]:
    """Return the figures of a tensor as text, by the keys of the headers."""
    return {
        "mean": f"{figures.mean:.3g}",
        "std": f"{figures.std:.3g}",
        "low": f"{figures.low:.3g}",
        "high": f"{figures.high:.3g}",
        "zeros": f"{100 * figures.zeros:.1f} %" if figures.zeros else "",
        "closed": "" if figures.closed is None else f"{100 * figures.closed:.1f} %",
        "ms": "" if seconds is None else f"{1000 * seconds:.1f}",
        "mb": f"{figures.bytes / 1e6:.2f}",
    }


def formulas(stage: Stage, language: Language) -> list[str]:
    """Return how the sizes come about, as in "64651 = ⌈258602 / 4⌉", for those that changed."""
    return [
        f"{words(AXES, size.axis, language)} {size.value} = {size.formula}"
        for size in stage.sizes
        if size.formula
    ]


def step_text(resolution: Resolution | None) -> str:
    """Return what one step of the data is, as in "23.2 ms, 43.1 Hz"."""
    if resolution is None:
        return ""
    text = _seconds(resolution.seconds)
    return text if resolution.hertz is None else f"{text}, {resolution.hertz:.4g} Hz"


def reach_text(resolution: Resolution | None, language: Language) -> str:
    """Return what one step sees, as in "232 ms, 345 Hz"."""
    if resolution is None:
        return ""
    if resolution.reach_seconds is None:
        return words(NOTES, "whole", language)
    text = _seconds(resolution.reach_seconds)
    return text if resolution.reach_hertz is None else f"{text}, {resolution.reach_hertz:.4g} Hz"


def _seconds(seconds: float) -> str:
    if seconds < 0.001:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
