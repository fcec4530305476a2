"""`htdemucs stream`: separate standard input to standard output while it arrives."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status
from htdemucs.cli.progress import event_reporter
from htdemucs.cli.stdio_options import (
    exit_on_signals,
    pipe_depth_option,
    pipe_format_option,
    raw_format,
    raw_option,
    refuse_terminals,
    standard_input,
    standard_output,
)

if TYPE_CHECKING:
    from htdemucs.separation import Normalization
    from htdemucs.separation.normalization import Running

EXAMPLES = """
ffmpeg -v error -i song.mp3 -f wav - | htdemucs stream --stems vocals > vocals.wav
sox song.wav -t wav - | htdemucs stream -n mini --stems drums,bass | play -
"""


@opt.command("stream", examples=EXAMPLES)
@opt.option(
    "--stems",
    heading=opt.OUTPUT,
    metavar="STEM,...",
    help="Write only these stems, such as vocals,drums, in this order.",
)
@raw_option
@pipe_format_option
@pipe_depth_option
@opt.name_option
@opt.repo_option
@opt.config_option
@opt.device_option
@opt.option(
    "--normalization",
    default="running",
    heading=opt.QUALITY,
    metavar="running|MEAN,STD",
    help="Mean and deviation of the input: measured on all that has arrived so far, or given.",
)
@opt.engine_options()
@opt.compile_option
@opt.progress_option
@opt.quiet_option
def stream(
    *,
    name: str,
    repo: Path | None,
    config: Path | None,
    device: str | None,
    stems: str | None,
    raw: str | None,
    normalization: str,
    file_format: str,
    bit_depth: str,
    engine: dict[str, Any],
    compiled: bool,
    progress: str,
    quiet: bool,
) -> None:
    """Separate audio from standard input as it arrives; write stems to standard output."""
    with event_reporter(progress, quiet=quiet) as on_event, exit_on_signals():
        from htdemucs.audio import AudioPipe
        from htdemucs.fast import keep_freed_memory
        from htdemucs.separation import Separator
        from htdemucs.settings import EngineSettings
        from htdemucs.stems.pipe import separate_pipe
        from htdemucs.weights import load_model

        input_format = raw_format(raw)
        parsed_normalization = _parse_normalization(normalization)
        selected = opt.split_list(stems)
        refuse_terminals()
        settings = EngineSettings(**engine, compiled=compiled)
        model = load_model(
            name, repo=repo, config=config, device=device, stems=selected, on_progress=on_event
        )
        separator = Separator(model, settings, stems=selected)
        keep_freed_memory()
        print_status(f"{name} on {separator.device}, {separator.precision}")
        pipe = AudioPipe(
            standard_input(),
            sample_rate=separator.sample_rate,
            channels=separator.audio_channels,
            raw=input_format,
        )
        rate, channels = pipe.source_sample_rate, len(separator.stems) * pipe.channels
        print_status(f"{', '.join(separator.stems)}: {channels} channels in all, {rate} Hz")
        with standard_output(rate, channels, file_format, bit_depth) as writer:
            separate_pipe(separator, pipe, writer, parsed_normalization, on_progress=on_event)


def _parse_normalization(text: str) -> "Normalization | Running":
    from htdemucs.separation import Normalization

    if text == "running":
        return "running"
    try:
        mean, std = (float(word) for word in text.split(","))
    except ValueError:
        raise click.UsageError(
            f"--normalization must be running or MEAN,STD as in 0,0.1, not {text}"
        ) from None
    if not (abs(mean) < 1e6 and 0 < std < 1e6):
        raise click.UsageError(f"--normalization {text}: STD must be above 0")
    return Normalization(mean, std)
