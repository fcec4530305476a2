"""`htdemucs stream`: separate what comes in through a pipe, while it comes."""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.listeners import Terminal, listening
from htdemucs.cli.shared import Interruption, say
from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.audio import RawFormat
    from htdemucs.separation import Normalization
    from htdemucs.separation.normalization import Running

BROKEN_PIPE = 141  # exit code: 128 and the number of SIGPIPE


def stream(
    name: opt.Name = "htdemucs",
    repo: opt.Repo = None,
    device: opt.Device = None,
    stems: Annotated[
        str | None,
        typer.Option(help="Only these stems, such as vocals,drums, in this order."),
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(
            metavar="SAMPLES,HZ,CHANNELS",
            help="Standard input has no header, as in s16le,44100,2.",
        ),
    ] = None,
    normalization: Annotated[
        str,
        typer.Option(
            metavar="running|MEAN,STD",
            help="Level of the input: of all that has come so far, or given.",
        ),
    ] = "running",
    file_format: Annotated[
        Literal["wav", "raw"],
        typer.Option("--format", help="raw: samples without a header."),
    ] = "wav",
    bit_depth: Annotated[
        Literal["16", "24", "32"], typer.Option(help="Bits of a sample; 32: floats.")
    ] = "16",
    *,
    engine: opt.EngineOptions,
    compiled: opt.Compile = False,
    progress: opt.ShowProgress = "bar",  # noqa: ARG001  `wants_json` has read it
    quiet: opt.Quiet = False,
) -> None:
    """Separate standard input to standard output while it comes in."""
    from htdemucs.audio import AudioPipe, PipeWriter
    from htdemucs.fast import keep_freed_memory
    from htdemucs.separation import Separator
    from htdemucs.stems.pipe import separate_pipe
    from htdemucs.weights import load_model

    level, source = _level(normalization), _raw(raw)
    wanted = [word.strip() for word in (stems or "").split(",") if word.strip()] or None
    _refuse_terminals()
    keep_freed_memory()
    settings = engine.settings() | {"compiled": compiled, "batch_size": engine.batch_size or 1}
    interruption = Interruption()
    with listening(Terminal(), quiet=quiet) as tell, interruption:
        try:
            model = load_model(name, repo=repo, device=device, stems=wanted, on_progress=tell)
            separator = Separator(model, stems=wanted, **settings)
            say(f"{name} on {separator.device}, {separator.precision}")
            pipe = AudioPipe(
                sys.stdin.buffer,
                sample_rate=separator.sample_rate,
                channels=separator.audio_channels,
                raw=source,
            )
            rate, channels = pipe.source_sample_rate, len(separator.stems) * pipe.channels
            say(f"{', '.join(separator.stems)}: {channels} channels in all, {rate} Hz")
            is_raw, depth = file_format == "raw", int(bit_depth)
            with (
                open(sys.stdout.fileno(), "wb", 0, closefd=False) as file,
                PipeWriter(file, rate, channels, depth, raw=is_raw) as writer,
            ):
                separate_pipe(separator, pipe, writer, level, on_progress=tell)
        except KeyboardInterrupt:
            raise typer.Exit(128 + (interruption.signal or 2)) from None
        except BrokenPipeError:
            raise typer.Exit(BROKEN_PIPE) from None


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


def _raw(text: str | None) -> "RawFormat | None":
    from htdemucs.audio import RawFormat

    if text is None:
        return None
    match = re.fullmatch(r"(\w+),(\d{1,7}),(\d{1,2})", text)
    if not match:
        raise SeparationError(f"--raw must be like s16le,44100,2, not {text}")
    return RawFormat(match[1], int(match[2]), int(match[3]))


def _refuse_terminals() -> None:
    if sys.stdin.isatty():
        raise SeparationError("standard input is a terminal; send audio to it")
    if sys.stdout.isatty():
        raise SeparationError("standard output is a terminal; send it to a player or a file")
