"""Options that several commands share, and help that lists options under headings."""

import math
from collections.abc import Callable
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from htdemucs.formats import BIT_DEPTHS, FORMATS, MP3_PRESETS
from htdemucs.settings import EngineSettings

if TYPE_CHECKING:
    from htdemucs.stems import OutputOptions

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]
KEEP = "keep"
SAMPLE_RATES = range(8_000, 384_001)  # Hz
DEFAULTS = EngineSettings()

# Headings of the help, in the order in which a command uses them.
OUTPUT = "What to write"
MODEL = "Model"
QUALITY = "Quality and speed"
MANY = "Many files"
SCRIPTS = "For scripts"
DEMUCS = "As in the demucs command"


class Option(click.Option):
    """An option that the help lists under a heading."""

    def __init__(self, *args: Any, heading: str = "Options", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose help has a heading for each group of options, and examples at the end."""

    def __init__(self, *args: Any, examples: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; an error names this command, even that of a missing value."""
        self._check_dashes(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _check_dashes(self, ctx: click.Context, args: list[str]) -> None:
        """Refuse long options with a single dash, and files that look like options.

        click would take "-out" as "-o ut".
        """
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        for arg in takewhile(lambda arg: arg != "--", args):
            if not arg.startswith("-") or len(arg) == 1:
                continue
            name = arg.partition("=")[0]
            if len(name) > 2 and f"-{name}" in known:
                raise click.UsageError(f"no option {name}; did you mean -{name}?", ctx)
            if name not in known and "." in arg and Path(arg).is_file():
                raise click.UsageError(f"{arg} looks like an option; write ./{arg}", ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                heading = getattr(parameter, "heading", "Options")
                groups.setdefault(heading, []).append(record)
        for last in (DEMUCS, "Options"):  # --help is the very last
            if last in groups:
                groups[last] = groups.pop(last)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line.strip()}\n")


def command(name: str, *, examples: str = "") -> Callable[[Callable[..., None]], Command]:
    """Return a decorator that makes a command of a function; its docstring is the help."""
    return click.command(
        name, cls=Command, examples=examples, context_settings={"show_default": True}
    )


def option(*names: str, heading: str = "Options", **settings: Any) -> Decorator[Any]:
    """Return a decorator that adds an option under a heading of the help."""
    return click.option(*names, cls=Option, heading=heading, **settings)


def flag(*names: str, heading: str = "Options", **settings: Any) -> Decorator[Any]:
    """Return a decorator that adds an option without a value."""
    return option(*names, heading=heading, is_flag=True, show_default=False, **settings)


def number(low: float, high: float = math.inf) -> Callable[..., Any]:
    """Return the callback of an option whose number must be in a range."""

    def check(_ctx: click.Context, _option: click.Parameter, value: Any) -> Any:
        if value is not None and not low <= value <= high:
            limits = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise click.BadParameter(f"must be {limits}, not {value}")
        return value

    return check


def choice(*values: str) -> "click.Choice[str]":  # generic since click 8.2
    """Return the type of an option that takes one of these values, in upper or lower case."""
    return click.Choice(values, case_sensitive=False)


def _bitrate_help() -> str:
    """Return the formats that have a bitrate, with the default one."""
    *others, last = (
        f"{row.name} ({row.default_bitrate})" for row in FORMATS.values() if row.default_bitrate
    )
    return f"kbit/s of {', '.join(others)} and {last}."


def _bit_depth_help() -> str:
    """Return the bit depths, with the names of the formats if not all have them."""
    lossless = [row for row in FORMATS.values() if row.is_lossless]
    depths = []
    for depth in BIT_DEPTHS:
        rows = [row for row in lossless if depth in row.bit_depths]
        is_float = any(codec.is_float for codec in rows[0].codecs if codec.bit_depth == depth)
        names = "" if rows == lossless else f"{' and '.join(row.name for row in rows)} only"
        notes = ", ".join(filter(None, ["float" if is_float else "", names]))
        depths.append(f"{depth} ({notes})" if notes else f"{depth}")
    formats = " and ".join(row.name for row in lossless)
    return f"In {formats}: {', '.join(depths)}, or keep the track's; by default 16."


def _all(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Return a decorator that applies several; their options keep this order in the help."""

    def decorate(function: F) -> F:
        for one in reversed(decorators):
            function = one(function)
        return function

    return decorate


name_option = option(
    "-n",
    "--name",
    default="htdemucs",
    heading=MODEL,
    metavar="MODEL",
    help="A name (see `htdemucs models`), a signature, hf://namespace/name, or a path.",
)
repo_option = option(
    "--repo",
    type=click.Path(path_type=Path),
    heading=MODEL,
    metavar="FOLDER",
    help="Look for MODEL in this folder of .th, .safetensors and .yaml files.",
)
config_option = option(
    "--config",
    type=click.Path(path_type=Path),
    heading=MODEL,
    metavar="YAML",
    help="For a .ckpt of Music-Source-Separation-Training: its yaml file, by default the one of "
    "the same name next to it.",
)
device_option = option(
    "-d",
    "--device",
    heading=MODEL,
    metavar="DEVICE",
    help="cuda, mps, cpu or another; by default the first of these that this machine has.",
)
compile_option = flag(
    "--compile",
    "compiled",
    heading=QUALITY,
    help="Use torch.compile, for GPUs (slow first run).",
)
skip_existing_option = option(
    "--skip-existing/--no-skip-existing",
    default=True,
    heading=MANY,
    help="Skip tracks that are finished, according to their htdemucs.json.",
)
json_option = flag(
    "--json", "as_json", heading=SCRIPTS, help="Print a summary as JSON on standard output."
)
progress_option = option(
    "--progress",
    type=choice("bar", "json"),
    default="bar",
    heading=SCRIPTS,
    help="On standard error: bars for people, or a line of JSON for each event.",
)
quiet_option = flag("-q", "--quiet", heading=SCRIPTS, help="Print only errors.")
verbose_option = flag("-v", "--verbose", heading=SCRIPTS, help="Print details on standard error.")


def precision_option(default: str) -> Decorator[Any]:
    """Return the decorator for --precision."""
    return option(
        "--precision",
        type=choice("auto", "fp32", "bf16", "fp16"),
        default=default,
        heading=QUALITY,
        help="auto takes the one that suits this device; leave it as it is. fp32 gives the same "
        "stems on all devices, to within rounding.",
    )


def engine_options(precision: str = DEFAULTS.precision) -> Decorator[Any]:
    """Return a decorator for the engine's options; the command gets them as `engine`, a dict.

    Args:
        precision: the default.
    """
    add = _all(
        option(
            "--shifts",
            default=DEFAULTS.shifts,
            heading=QUALITY,
            metavar="N",
            help="Average N runs with random lead-ins: N times the time for a little quality; 1 "
            "is usual. 0: one run without a lead-in.",
        ),
        option(
            "--overlap",
            default=DEFAULTS.overlap,
            heading=QUALITY,
            metavar="FRACTION",
            help="Overlap of neighbouring segments, from 0 to below 1. More takes longer and gains "
            "little; leave it as it is.",
        ),
        option(
            "--segment",
            type=float,
            heading=QUALITY,
            metavar="SECONDS",
            help="Length of a segment. Leave it as it is, unless memory is short: shorter segments "
            "separate worse.",
        ),
        option(
            "--batch-size",
            type=int,
            callback=number(1),
            heading=QUALITY,
            metavar="N",
            help="Segments in a batch; by default 1 on a CPU, as many as fit on a GPU.",
        ),
        precision_option(precision),
        option(
            "--seed",
            default=DEFAULTS.seed,
            heading=QUALITY,
            metavar="N",
            help="Seed of the random lead-ins.",
        ),
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(
            *,
            shifts: int,
            overlap: float,
            segment: float | None,
            batch_size: int | None,
            precision: str,
            seed: int,
            **others: Any,
        ) -> None:
            engine = {
                "shifts": shifts,
                "overlap": overlap,
                "segment": segment,
                "batch_size": batch_size,
                "precision": precision,
                "seed": seed,
            }
            function(engine=engine, **others)

        return add(run)

    return decorate


output_options = _all(
    option(
        "--two-stems",
        heading=OUTPUT,
        metavar="STEM",
        help="Write STEM and the rest: with vocals, an a cappella and a karaoke version.",
    ),
    option(
        "--stems",
        heading=OUTPUT,
        metavar="STEM,...",
        help="Write only these stems, such as vocals,drums.",
    ),
    option(
        "--format",
        "file_format",
        type=choice(*FORMATS),
        heading=OUTPUT,
        help="File format; by default wav.",
    ),
    option(
        "--bitrate",
        type=int,
        heading=OUTPUT,
        metavar="KBPS",
        help=_bitrate_help(),
    ),
    option(
        "--bit-depth",
        heading=OUTPUT,
        metavar="BITS|keep",
        help=_bit_depth_help(),
    ),
    option(
        "--sample-rate",
        default=KEEP,
        heading=OUTPUT,
        metavar="HZ|keep",
        help="Sample rate of the stems, or keep the track's.",
    ),
    option(
        "--filename",
        default="{track}/{stem}.{ext}",
        heading=OUTPUT,
        metavar="TEMPLATE",
        help="Path below OUT/MODEL; also {trackext}, {artist}, {title} and {album}.",
    ),
    flag(
        "--stem-file",
        heading=OUTPUT,
        help="Write one .stem.mp4 for DJ programs instead of four files.",
    ),
    option(
        "--other-method",
        type=choice("add", "minus", "none"),
        default="add",
        heading=OUTPUT,
        help="The rest is the sum of the other stems, the mixture minus STEM, or not written.",
    ),
    option(
        "--residual",
        type=choice("none", "spread", "write"),
        default="none",
        heading=OUTPUT,
        help="The mixture minus all stems: drop it, spread it over the stems, or write it too.",
    ),
    option(
        "--clip-mode",
        type=choice("rescale", "clamp", "none"),
        default="rescale",
        heading=OUTPUT,
        help="If a stem would clip: lower all stems, cut off its peaks, or do nothing.",
    ),
    option(
        "--align",
        type=choice("start", "video"),
        default="start",
        heading=OUTPUT,
        help="video: insert silence where a video's sound starts late or has gaps.",
    ),
    option(
        "--mp3-preset",
        type=int,
        callback=number(MP3_PRESETS[0], MP3_PRESETS[-1]),
        default=2,
        heading=OUTPUT,
        metavar="N",
        help="2 is the best quality, 7 the fastest.",
    ),
)


def wanted_stems(
    *, stems: str | None, two_stems: str | None, residual: str, stem_file: bool, **_: Any
) -> tuple[str, ...] | None:
    """Return the names in --stems; None for all.

    Raises:
        click.UsageError: another option needs all stems.
    """
    if stems and two_stems:
        raise click.UsageError("choose --stems or --two-stems, not both")
    if stems and (residual == "spread" or stem_file):
        other = "--stem-file" if stem_file else "--residual spread"
        raise click.UsageError(f"{other} needs all stems: leave out --stems")
    return split_list(stems)


def output_settings(
    *,
    file_format: str | None,
    bit_depth: str | None,
    sample_rate: str,
    bitrate: int | None,
    mp3_preset: int,
    stems: str | None,  # noqa: ARG001  `wanted_stems` reads it
    **others: Any,
) -> "OutputOptions":
    """Return the `OutputOptions` for the values of `output_options`.

    Raises:
        click.UsageError: a value is impossible.
        SeparationError: the values contradict each other.
    """
    from htdemucs.audio import AudioEncoding
    from htdemucs.errors import AudioError
    from htdemucs.stems import OutputOptions

    file_format = file_format or "wav"
    depths: dict[str | None, int] = {str(depth): depth for depth in BIT_DEPTHS}
    depths |= {None: 16, KEEP: 16}
    if bit_depth not in depths:
        *lower, highest = map(str, BIT_DEPTHS)
        raise click.UsageError(
            f"--bit-depth must be keep, {', '.join(lower)} or {highest}, not {bit_depth}"
        )
    depth = depths[bit_depth]
    if bit_depth not in (None, KEEP) and not FORMATS[file_format].is_lossless:
        raise click.UsageError(f"{file_format} has no bit depth; leave out --bit-depth")
    rate = None
    if sample_rate != KEEP:
        if not sample_rate.isdecimal() or int(sample_rate[:8]) not in SAMPLE_RATES:
            raise click.UsageError(
                f"--sample-rate must be keep or 8000 to 384000, not {sample_rate}"
            )
        rate = int(sample_rate)
    try:
        encoding = AudioEncoding(
            format=file_format,
            bit_depth=FORMATS[file_format].nearest_bit_depth(depth),
            bitrate=bitrate,
            mp3_preset=mp3_preset,
        )
    except AudioError as error:
        raise click.UsageError(str(error)) from None
    return OutputOptions(
        encoding=encoding,
        sample_rate=rate,
        keep_bit_depth=bit_depth == KEEP,
        **others,
    )


def split_list(text: str | None) -> tuple[str, ...] | None:
    """Return the items of a comma-separated list; None if there are none."""
    return tuple(item.strip() for item in (text or "").split(",") if item.strip()) or None
