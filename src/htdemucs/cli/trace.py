"""`htdemucs trace`: show the size of the data at every stage, and the data of a song."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status, print_table, table_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from htdemucs.model import NetworkConfig
    from htdemucs.tracing.document import Trace
    from htdemucs.tracing.texts import Language

FORMATS = {".json": "json", ".csv": "csv", ".md": "markdown", ".svg": "svg", ".html": "html"}
MAX_SECONDS = 1e6
EXAMPLES = """
htdemucs trace --samples 258602 --language zh
htdemucs trace -n htdemucs_6s --depth 2
htdemucs trace -o network.svg                    # the figure
htdemucs trace song.mp3 -n mini -o song.html     # a song inside the network
"""


@opt.command("trace", examples=EXAMPLES)
@click.argument("track", required=False, type=click.Path(path_type=Path))
@opt.name_option
@opt.option(
    "--samples", type=int, metavar="N", help="Length of the mixture; by default one segment."
)
@opt.option(
    "--seconds",
    type=float,
    callback=opt.number(0, MAX_SECONDS),
    metavar="SECONDS",
    help="The same, in seconds.",
)
@opt.option(
    "--at",
    type=float,
    callback=opt.number(0, MAX_SECONDS),
    metavar="SECONDS",
    help="Where in TRACK the segment begins; by default the loudest one is taken.",
)
@opt.option(
    "--depth",
    type=int,
    callback=opt.number(1, 2),
    default=1,
    metavar="N",
    help="2: also the parts of each stage.",
)
@opt.option(
    "--channel",
    type=int,
    callback=opt.number(0),
    metavar="N",
    help="In the pictures of an html page: this channel, from 0, instead of the mean of all.",
)
@opt.option(
    "--member",
    type=int,
    callback=opt.number(1),
    metavar="N",
    help="The number of the network in a bag, from 1.",
)
@opt.option(
    "--format",
    "file_format",
    type=opt.choice("table", *FORMATS.values()),
    help="svg is the figure, html a page with everything; by default what the name of FILE ends "
    "with, else table.",
)
@opt.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write to FILE instead of standard output.",
)  # fmt: skip
@opt.option("--language", type=opt.choice("en", "zh"), default="en", help="Language of the output.")
def trace(
    track: Path | None,
    name: str,
    samples: int | None,
    seconds: float | None,
    at: float | None,
    depth: int,
    channel: int | None,
    member: int | None,
    file_format: str | None,
    output: Path | None,
    language: "Language",
) -> None:
    """Show a network: its figure, the shape of the data at every stage, and a song inside it.

    With TRACK one segment of it runs through the network, and -o FILE.html has a picture of each
    stage's data; the model's weights are needed for this. A mixture longer than a segment is shown
    as a segment.
    """
    if samples is not None and seconds is not None:
        raise click.UsageError("choose --samples or --seconds, not both")
    if track is None and (at is not None or channel is not None):
        raise click.UsageError("--at and --channel need a TRACK")
    if output is not None and not output.name:
        raise click.UsageError("-o needs the name of a file")
    suffix = "" if output is None else output.suffix.lower()
    if output is not None and file_format is None and suffix not in FORMATS:
        raise click.UsageError(
            f"the name of FILE must end with {', '.join(FORMATS)}, or choose a --format"
        )
    file_format = file_format or FORMATS.get(suffix, "table")
    result = _trace(track, name, samples, seconds, at, channel, member, file_format)
    text = _text(result, file_format, depth, language)
    if output is not None:
        from htdemucs.fsutil import atomic_write

        with atomic_write(output) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        for note in result.notes(language):
            print_status(note)
        print_status(f"wrote {output}")
    elif text:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))  # whatever the locale
    else:
        _print_table(result, depth, language)


def _trace(
    track: Path | None,
    name: str,
    samples: int | None,
    seconds: float | None,
    at: float | None,
    channel: int | None,
    member: int | None,
    file_format: str,
) -> "Trace":
    """Return the stages, of the network alone or with the data of a track."""
    from htdemucs.model.architectures import network_class
    from htdemucs.tracing import stages_of
    from htdemucs.tracing.document import Trace
    from htdemucs.weights.load import known_configs

    if track is not None:
        from htdemucs.model.bag import networks
        from htdemucs.tracing.song import trace_song
        from htdemucs.weights import load_model

        members = networks(load_model(name, device="cpu"))
        configs: Sequence[NetworkConfig] = [network.config for network in members]
    else:
        configs = known_configs(name)
    if member is not None and member > len(configs):
        raise click.UsageError(f"{name} has no network {member}; its last is {len(configs)}")
    chosen = (member or 1) - 1
    config = configs[chosen]
    if seconds is not None:
        samples = round(seconds * config.sample_rate)
    asked = config.segment_length if samples is None else samples
    if asked < 1:
        raise click.UsageError("the mixture must have at least one sample")
    length = asked if config.max_segment is None else min(asked, config.segment_length)
    song = None
    if track is not None:
        pictures = file_format == "html"
        song = trace_song(
            members[chosen], track, samples=length, at=at, channel=channel, pictures=pictures
        )
        stages, length = song.stages, song.mixture.shape[-1]
    else:
        stages = stages_of(network_class(config).empty(config), length, 2)
    alike = [i for i, other in enumerate(configs, 1) if other == config]
    return Trace(
        model=name,
        config=config,
        samples=length,
        stages=stages,
        member=chosen + 1 if len(configs) > 1 else None,
        members=len(configs),
        alike=alike,
        track_samples=asked if asked > length and config.max_segment is not None else None,
        song=song,
    )


def _text(result: "Trace", file_format: str, depth: int, language: "Language") -> str:
    """Return the trace in a format; nothing for a table in a terminal."""
    from htdemucs.tracing import document

    match file_format:
        case "json":
            return document.as_json(result, depth)
        case "csv":
            return document.as_csv(result, depth, language)
        case "markdown":
            return document.as_markdown(result, depth, language)
        case "svg":
            from htdemucs.tracing.figure import figure

            return figure(result.stages, result.title(language), language)
        case "html":
            from htdemucs.model.architectures import network_class
            from htdemucs.tracing.page import to_html

            network = network_class(result.config).empty(result.config)
            return to_html(result, network, language)
    return ""


def _print_table(result: "Trace", depth: int, language: "Language") -> None:
    from rich.table import Table

    from htdemucs.tracing.document import table
    from htdemucs.tracing.texts import HEADERS, NOTES, words

    header, rows = table(result, depth, language)
    header, rows = _fitting(header, rows, language)
    shown = Table()
    for key in header:
        left = key in ("number", "stage", "shape")
        shown.add_column(words(HEADERS, key, language), justify="left" if left else "right")
    for row in rows:
        shown.add_row(*row)
    if "parameters" in header:
        shown.add_section()
        total = {
            "stage": words(NOTES, "total", language),
            "parameters": f"{result.parameters:,}",
            "gflop": f"{result.flop / 1e9:.2f}",
        }
        shown.add_row(*(total.get(key, "") for key in header))
    print_table(shown, result.title(language))
    for note in result.notes(language):
        print(note)


def _fitting(
    header: list[str], rows: list[list[str]], language: "Language"
) -> tuple[list[str], list[list[str]]]:
    """Return a table without the statistics for which the terminal is too narrow."""
    from rich.cells import cell_len

    from htdemucs.tracing.texts import HEADERS, words

    names = [words(HEADERS, key, language) for key in header]
    widths = [max(map(cell_len, column)) + 3 for column in zip(names, *rows, strict=True)]
    for key in ("mb", "zeros", "mean", "ms", "low", "high", "std"):
        if key in header and sum(widths) + 1 > table_width():
            i = header.index(key)
            header, widths = header[:i] + header[i + 1 :], widths[:i] + widths[i + 1 :]
            rows = [row[:i] + row[i + 1 :] for row in rows]
    return header, rows
