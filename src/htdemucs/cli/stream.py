"""`htdemucs stream`: separate what comes in through a pipe, while it comes."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.listeners import Terminal
from htdemucs.cli.pipes import (
    PipeDepth,
    PipeFormat,
    Raw,
    raw_format,
    refuse_terminals,
    standard_output,
    told,
)
from htdemucs.cli.shared import say
from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.separation import Normalization
    from htdemucs.separation.normalization import Running


def stream(
    name: opt.Name = "htdemucs",
    repo: opt.Repo = None,
    device: opt.Device = None,
    stems: Annotated[
        str | None,
        typer.Option(help="Only these stems, such as vocals,drums, in this order."),
    ] = None,
    raw: Raw = None,
    normalization: Annotated[
        str,
        typer.Option(
            metavar="running|MEAN,STD",
            help="Level of the input: of all that has come so far, or given.",
        ),
    ] = "running",
    file_format: PipeFormat = "wav",
    bit_depth: PipeDepth = "16",
    *,
    engine: opt.EngineOptions,
    compiled: opt.Compile = False,
    progress: opt.ShowProgress = "bar",  # noqa: ARG001  `wants_json` has read it
    quiet: opt.Quiet = False,
) -> None:
    """Separate standard input to standard output while it comes in."""
    from htdemucs.audio import AudioPipe
    from htdemucs.fast import keep_freed_memory
    from htdemucs.separation import Separator
    from htdemucs.stems.pipe import separate_pipe
    from htdemucs.weights import load_model

    level, source = _level(normalization), raw_format(raw)
    wanted = [word.strip() for word in (stems or "").split(",") if word.strip()] or None
    refuse_terminals()
    settings = engine.settings() | {"compiled": compiled, "batch_size": engine.batch_size or 1}
    with told(Terminal(), quiet=quiet) as tell:
        separator = Separator(
            load_model(name, repo=repo, device=device, stems=wanted, on_progress=tell),
            stems=wanted,
            **settings,
        )
        keep_freed_memory()
        say(f"{name} on {separator.device}, {separator.precision}")
        pipe = AudioPipe(
            sys.stdin.buffer,
            sample_rate=separator.sample_rate,
            channels=separator.audio_channels,
            raw=source,
        )
        rate, channels = pipe.source_sample_rate, len(separator.stems) * pipe.channels
        say(f"{', '.join(separator.stems)}: {channels} channels in all, {rate} Hz")
        with standard_output(rate, channels, file_format, bit_depth) as writer:
            separate_pipe(separator, pipe, writer, level, on_progress=tell)


def _level(text: str) -> "Normalization | Running":
    from htdemucs.separation import Normalization

    if text == "running":
        return "running"
    try:
        mean, std = (float(word) for word in text.split(","))
    except ValueError:
        raise SeparationError(
            f"--normalization must be running or MEAN,STD as in 0,0.1, not {text}"
        ) from None
    if not (abs(mean) < 1e6 and 0 < std < 1e6):
        raise SeparationError(f"--normalization {text} is no level: STD must be above 0")
    return Normalization(mean, std)
