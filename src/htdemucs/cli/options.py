"""Options that several commands share.

A group of options is one parameter of a command; `command` shows the group's fields to Typer.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from htdemucs.errors import HTDemucsError, SeparationError

if TYPE_CHECKING:
    from htdemucs.stems import OutputOptions

KEEP = "keep"
SAMPLE_RATES = range(8_000, 384_001)  # Hz
_FLAGS = {"split=False": "--no-split", "compiled": "--compile"}  # exceptions to the rule

Name = Annotated[
    str,
    typer.Option(
        "-n",
        "--name",
        help="Model: an official name or signature, hf://namespace/name, or a path.",
    ),
]
Repo = Annotated[
    Path | None,
    typer.Option("--repo", help="Folder of .th/.safetensors and .yaml files that has NAME."),
]
Device = Annotated[
    str | None, typer.Option("-d", "--device", help="By default cuda, else mps, else cpu.")
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Let torch compile the network, for GPUs; the start is slow."),
]
SkipExisting = Annotated[
    bool,
    typer.Option(help="Skip tracks whose htdemucs.json says that they are done in the same way."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print a summary for programs on standard output.")
]
ShowProgress = Annotated[
    Literal["bar", "json"],
    typer.Option(
        "--progress", help="On standard error: bars for people, or a line of JSON for each event."
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="Precision of the network's products; auto: the device's fastest."),
]


@dataclass(frozen=True)
class EngineOptions:
    """Options of the engine: arguments of the `Separator`."""

    shifts: Annotated[
        int, typer.Option(help="Average this many runs with random lead-ins; 0: one run without.")
    ] = 1
    overlap: Annotated[float, typer.Option(help="Shared fraction of neighbouring segments.")] = 0.25
    segment: Annotated[
        float | None, typer.Option(help="Seconds of a segment; a shorter one needs less memory.")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Segments in a batch, on any device.", min=1)
    ] = None
    precision: Precision = "auto"
    seed: Annotated[int, typer.Option(help="Seed of the random lead-ins.")] = 0

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the `Separator`."""
        return asdict(self)


@dataclass(frozen=True)
class OutputFlags:
    """Options of the files that are written for each track."""

    filename: Annotated[
        str,
        typer.Option(
            help="Template of paths below OUT/MODEL, with {track}, {trackext}, {stem}, {ext}, "
            "{artist}, {title} and {album}."
        ),
    ] = "{track}/{stem}.{ext}"
    stems: Annotated[str | None, typer.Option(help="Only these stems, such as vocals,drums.")] = (
        None
    )
    two_stems: Annotated[
        str | None, typer.Option(metavar="STEM", help="Write STEM and the rest of the mixture.")
    ] = None
    other_method: Annotated[
        Literal["add", "minus", "none"],
        typer.Option(help="The rest: sum of the other stems, mixture minus STEM, or no file."),
    ] = "add"
    residual: Annotated[
        Literal["none", "spread", "write"],
        typer.Option(help="Mixture minus stems: no file, shared among the stems, or a file."),
    ] = "none"
    sample_rate: Annotated[
        str, typer.Option(help="Hz of the stems; keep: the track's own.", metavar="HZ|keep")
    ] = KEEP
    bit_depth: Annotated[
        str | None,
        typer.Option(
            help="Bits in wav and flac: 16, 24 or 32 (floats); keep: the track's own.",
            metavar="BITS|keep",
        ),
    ] = None
    clip_mode: Annotated[
        Literal["rescale", "clamp", "none"],
        typer.Option(help="If a stem clips: lower all stems, cut its peaks, or neither."),
    ] = "rescale"
    file_format: Annotated[
        Literal["wav", "flac", "mp3", "ogg", "opus", "m4a"] | None,
        typer.Option("--format", help="Format of the files; by default wav."),
    ] = None
    bitrate: Annotated[
        int | None, typer.Option(help="kbit/s of mp3 (320), opus (192) and m4a (256).")
    ] = None
    mp3_preset: Annotated[
        int, typer.Option(min=2, max=7, help="2 is the best quality, 7 the fastest.")
    ] = 2
    align: Annotated[
        Literal["start", "video"],
        typer.Option(help="video: silence where a video's sound starts late or has gaps."),
    ] = "start"
    stem_file: Annotated[
        bool,
        typer.Option("--stem-file", help="One .stem.mp4 for DJ programs instead of four files."),
    ] = False

    def options(self, **others: Any) -> "OutputOptions":
        """Return the `OutputOptions` of these flags, with `others` as further fields.

        Raises:
            SeparationError: a flag is impossible or contradicts another one.
        """
        from htdemucs.audio import AudioEncoding
        from htdemucs.stems import OutputOptions

        file_format = self._format()
        depth = self._depth()
        return OutputOptions(
            encoding=AudioEncoding(
                format=file_format,
                bit_depth=min(depth, 24) if file_format == "flac" else depth,
                bitrate=self._bitrate(file_format),
                mp3_preset=self.mp3_preset,
            ),
            filename=self.filename,
            clip_mode=self.clip_mode,
            two_stems=self.two_stems,
            other_method=self.other_method,
            residual=self.residual,
            sample_rate=self._sample_rate(),
            keep_bit_depth=self.bit_depth == KEEP,
            align=self.align,
            stem_file=self.stem_file,
            **others,
        )

    def wanted_stems(self) -> tuple[str, ...] | None:
        """Return the names in --stems.

        Raises:
            SeparationError: another option needs all stems.
        """
        if self.stems and self.two_stems:
            raise SeparationError("choose --stems or --two-stems, not both")
        if self.stems and (self.residual == "spread" or self.stem_file):
            other = "--stem-file" if self.stem_file else "--residual spread"
            raise SeparationError(f"{other} needs all stems: leave out --stems")
        names = [name.strip() for name in (self.stems or "").split(",")]
        return tuple(name for name in names if name) or None

    def _sample_rate(self) -> int | None:
        text = self.sample_rate
        if text == KEEP:
            return None
        if not re.fullmatch(r"\d{1,7}", text) or int(text) not in SAMPLE_RATES:
            raise SeparationError(f"--sample-rate must be keep or 8000 to 384000, not {text}")
        return int(text)

    def _depth(self) -> int:
        depths = {None: 16, KEEP: 16, "16": 16, "24": 24, "32": 32}
        if self.bit_depth not in depths:
            raise SeparationError(f"--bit-depth must be keep, 16, 24 or 32, not {self.bit_depth}")
        return depths[self.bit_depth]

    def _format(self) -> str:
        return self.file_format or "wav"

    def _bitrate(self, file_format: str) -> int | None:  # noqa: ARG002  other flags depend on it
        return self.bitrate


@dataclass(frozen=True)
class DemucsFlags(OutputFlags):
    """The same options, and the flags of the published `demucs` command for them."""

    int24: Annotated[bool, typer.Option("--int24", help="Same as --bit-depth 24.")] = False
    float32: Annotated[
        bool, typer.Option("--float32", help="Same as --bit-depth 32; 24 bits in FLAC.")
    ] = False
    flac: Annotated[bool, typer.Option("--flac", help="Same as --format flac.")] = False
    mp3: Annotated[bool, typer.Option("--mp3", help="Same as --format mp3.")] = False
    mp3_bitrate: Annotated[int, typer.Option(help="kbit/s of mp3.")] = 320

    def _depth(self) -> int:
        if self.int24 + self.float32 + (self.bit_depth is not None) > 1:
            raise SeparationError("choose one of --int24, --float32 and --bit-depth")
        return 24 if self.int24 else 32 if self.float32 else super()._depth()

    def _format(self) -> str:
        wanted = {"flac": self.flac, "mp3": self.mp3, self.file_format: self.file_format}
        formats = [name for name, flag in wanted.items() if flag and name]
        if len(formats) > 1:
            raise SeparationError(f"choose one format, not {' and '.join(formats)}")
        return formats[0] if formats else super()._format()

    def _bitrate(self, file_format: str) -> int | None:
        return self.bitrate or (self.mp3_bitrate if file_format == "mp3" else None)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer. Groups of options become their fields, and errors name flags."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    groups = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    shown: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name not in groups:
            shown.append(parameter.replace(annotation=hints[name]))
            continue
        kinds = get_type_hints(groups[name], include_extras=True)
        shown += [
            inspect.Parameter(
                f.name, parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name]
            )
            for f in fields(groups[name])
        ]

    @wraps(function)
    def run(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})  # type: ignore
        try:
            function(**values)
        except HTDemucsError as error:
            raise type(error)(in_flags(str(error))) from error

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in shown]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def in_flags(message: str) -> str:
    """Return a library's message with its arguments, such as `two_stems=vocals`, as flags."""

    def flag(argument: re.Match[str]) -> str:
        if argument[1] in _FLAGS:
            return _FLAGS[argument[1]]
        name, _, value = argument[1].partition("=")
        flags = f"--{name.replace('_', '-')}"
        return f"{flags} {value}" if value and value != "True" else flags

    return re.sub(r"`(\w+(?:=\w+)?)`", flag, message)
