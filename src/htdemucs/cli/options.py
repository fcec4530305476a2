"""What `separate` and `batch` write, and how: options and what they come to."""

import re
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli.shared import Precision
from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.separation import OutputOptions

KEEP = "keep"
SAMPLE_RATES = range(8_000, 384_001)  # Hz


class OtherMethod(str, Enum):
    """What --two-stems writes beside the stem."""

    add = "add"
    minus = "minus"
    none = "none"


class ClipMode(str, Enum):
    """What happens to peaks that an integer format cannot hold."""

    rescale = "rescale"
    clamp = "clamp"
    none = "none"


class Residual(str, Enum):
    """What becomes of the difference between the mixture and the sum of the stems."""

    none = "none"
    spread = "spread"
    write = "write"


class Format(str, Enum):
    """Of the files written."""

    wav = "wav"
    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"
    opus = "opus"
    m4a = "m4a"


Filename = Annotated[
    str,
    typer.Option(
        help="Template below OUT/MODEL, of {track}, {trackext}, {stem}, {ext}, {artist}, "
        "{title} and {album}."
    ),
]
Shifts = Annotated[
    int, typer.Option(help="Average this many runs over random lead-ins; 0 for none.")
]
Overlap = Annotated[float, typer.Option(help="Shared fraction of neighbouring segments.")]
Segment = Annotated[
    float | None, typer.Option(help="Seconds of a segment; less needs less memory.")
]
Stems = Annotated[str | None, typer.Option(help="Only these stems, such as vocals,drums.")]
TwoStems = Annotated[str | None, typer.Option(metavar="STEM", help="Write STEM and all but STEM.")]
Other = Annotated[
    OtherMethod,
    typer.Option(help="All but STEM: sum of the others, mixture minus STEM, or not written."),
]
WithResidual = Annotated[
    Residual,
    typer.Option(help="Spread what the stems lack of the mixture over them, or write it too."),
]
SampleRate = Annotated[
    str, typer.Option(help="Hz of the stems; keep is each track's own.", metavar="HZ|keep")
]
BitDepth = Annotated[
    str | None,
    typer.Option(
        help="16, 24 or 32 (floats) in wav and flac; keep is each track's own.",
        metavar="BITS|keep",
    ),
]
Int24 = Annotated[bool, typer.Option("--int24", help="24 bits instead of 16.")]
Float32 = Annotated[bool, typer.Option("--float32", help="32-bit float WAV; 24 bits in FLAC.")]
Clip = Annotated[
    ClipMode,
    typer.Option(help="If a stem clips: make all stems softer, cut its peaks, or neither."),
]
FileFormat = Annotated[Format | None, typer.Option("--format", help="By default wav.")]
Flac = Annotated[bool, typer.Option("--flac", help="Same as --format flac.")]
Mp3 = Annotated[bool, typer.Option("--mp3", help="Same as --format mp3.")]
Mp3Bitrate = Annotated[int, typer.Option(help="kbit/s.")]
Mp3Preset = Annotated[int, typer.Option(min=2, max=7, help="2 is the best quality, 7 the fastest.")]
Bitrate = Annotated[int | None, typer.Option(help="kbit/s of opus (192) and m4a (256).")]
StemFile = Annotated[
    bool,
    typer.Option("--stem-file", help="One .stem.mp4 for DJ programs instead of four files."),
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        help="Leave out tracks of which htdemucs.json says that the same was done already."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print a summary for programs, on standard output.")
]
BatchSize = Annotated[int | None, typer.Option(help="Segments run at once on any device.", min=1)]
WithPrecision = Annotated[
    Precision, typer.Option(help="By default the fastest that the device is made for.")
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Let torch compile the network, for GPUs: slow to start."),
]
Seed = Annotated[int, typer.Option(help="Of the random lead-ins.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]


def output_options(
    *,
    filename: str,
    two_stems: str | None,
    other_method: OtherMethod,
    residual: Residual,
    sample_rate: str,
    bit_depth: str | None,
    int24: bool,
    float32: bool,
    clip_mode: ClipMode,
    file_format: Format | None,
    flac: bool,
    mp3: bool,
    mp3_bitrate: int,
    mp3_preset: int,
    bitrate: int | None,
    stem_file: bool,
    keep_times: bool = False,
) -> "OutputOptions":
    """What these options come to.

    Raises:
        SeparationError: one contradicts another, or makes no sense.
    """
    from htdemucs.audio import AudioEncoding
    from htdemucs.separation import OutputOptions

    chosen = _format(file_format, flac, mp3)
    depth = _depth(bit_depth, int24, float32)
    return OutputOptions(
        encoding=AudioEncoding(
            format=chosen,
            bit_depth=min(depth, 24) if chosen == "flac" else depth,
            bitrate=mp3_bitrate if chosen == "mp3" else bitrate,
            mp3_preset=mp3_preset,
        ),
        filename=filename,
        clip_mode=clip_mode.value,
        two_stems=two_stems,
        other_method=other_method.value,
        residual=residual.value,
        sample_rate=_sample_rate(sample_rate),
        keep_bit_depth=bit_depth == KEEP,
        stem_file=stem_file,
        keep_times=keep_times,
    )


def wanted_stems(stems: str | None, options: "OutputOptions") -> list[str] | None:
    """The names in --stems.

    Raises:
        SeparationError: another option needs all stems.
    """
    if stems and options.two_stems:
        raise SeparationError("choose --stems or --two-stems, not both")
    if stems and (options.residual == "spread" or options.stem_file):
        other = "--stem-file" if options.stem_file else "--residual spread"
        raise SeparationError(f"{other} needs all stems: leave out --stems")
    return [stem.strip() for stem in stems.split(",")] if stems else None


def _sample_rate(text: str) -> int | None:
    if text == KEEP:
        return None
    if not re.fullmatch(r"\d{1,7}", text) or int(text) not in SAMPLE_RATES:
        raise SeparationError(f"--sample-rate must be keep or 8000 to 384000, not {text}")
    return int(text)


def _depth(bit_depth: str | None, int24: bool, float32: bool) -> int:
    if int24 + float32 + (bit_depth is not None) > 1:
        raise SeparationError("choose one of --int24, --float32 and --bit-depth")
    depths = {None: 24 if int24 else 32 if float32 else 16, KEEP: 16, "16": 16, "24": 24, "32": 32}
    if bit_depth not in depths:
        raise SeparationError(f"--bit-depth must be keep, 16, 24 or 32, not {bit_depth}")
    return depths[bit_depth]


def _format(file_format: Format | None, flac: bool, mp3: bool) -> Any:
    formats = [f for f, wanted in (("flac", flac), ("mp3", mp3)) if wanted]
    formats += [file_format.value] if file_format else []
    if len(set(formats)) > 1:
        raise SeparationError(f"choose one format, not {' and '.join(formats)}")
    return formats[0] if formats else "wav"
