"""`htdemucs separate`: songs into stems."""

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli.shared import (
    Name,
    Precision,
    Repo,
    download_bars,
    messages,
)
from htdemucs.cli.tracks import STANDARD_STREAM, separate_tracks
from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.separation import OutputOptions, Separator


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


def separate(
    tracks: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Audio or video files, folders of them, patterns, .m3u8 playlists, or - for "
            "standard input."
        ),
    ] = None,
    name: Name = "htdemucs",
    repo: Repo = None,
    list_models: Annotated[
        bool, typer.Option("--list-models", help="List the models that NAME can be, and exit.")
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            "--output",
            help="Folder; stems go to OUT/MODEL/TRACK/STEM.EXT. With - the one stem that is "
            "written goes to standard output.",
        ),
    ] = Path("separated"),
    filename: Annotated[
        str,
        typer.Option(
            help="Template below OUT/MODEL, of {track}, {trackext}, {stem}, {ext}, {artist}, "
            "{title} and {album}."
        ),
    ] = "{track}/{stem}.{ext}",
    device: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--device",
            help="By default cuda, else mps, else cpu; several, such as cuda:0,cuda:1, share the "
            "tracks.",
        ),
    ] = None,
    shifts: Annotated[
        int, typer.Option(help="Average this many runs over random lead-ins; 0 for none.")
    ] = 1,
    overlap: Annotated[
        float, typer.Option(help="Shared fraction of neighbouring segments.")
    ] = 0.25,
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Refuse tracks longer than one segment.")
    ] = False,
    segment: Annotated[
        float | None, typer.Option(help="Seconds of a segment; less needs less memory.")
    ] = None,
    stems: Annotated[
        str | None, typer.Option(help="Only these stems, such as vocals,drums.")
    ] = None,
    two_stems: Annotated[
        str | None, typer.Option(metavar="STEM", help="Write STEM and all but STEM.")
    ] = None,
    other_method: Annotated[
        OtherMethod,
        typer.Option(help="All but STEM: sum of the others, mixture minus STEM, or not written."),
    ] = OtherMethod.add,
    residual: Annotated[
        Residual,
        typer.Option(help="Spread what the stems lack of the mixture over them, or write it too."),
    ] = Residual.none,
    sample_rate: Annotated[
        str, typer.Option(help="Hz of the stems; keep is each track's own.", metavar="HZ|keep")
    ] = "keep",
    bit_depth: Annotated[
        str | None,
        typer.Option(
            help="16, 24 or 32 (floats) in wav and flac; keep is each track's own.",
            metavar="BITS|keep",
        ),
    ] = None,
    int24: Annotated[bool, typer.Option("--int24", help="24 bits instead of 16.")] = False,
    float32: Annotated[
        bool, typer.Option("--float32", help="32-bit float WAV; 24 bits in FLAC.")
    ] = False,
    clip_mode: Annotated[
        ClipMode,
        typer.Option(help="If a stem clips: make all stems softer, cut its peaks, or neither."),
    ] = ClipMode.rescale,
    file_format: Annotated[Format | None, typer.Option("--format", help="By default wav.")] = None,
    flac: Annotated[bool, typer.Option("--flac", help="Same as --format flac.")] = False,
    mp3: Annotated[bool, typer.Option("--mp3", help="Same as --format mp3.")] = False,
    mp3_bitrate: Annotated[int, typer.Option(help="kbit/s.")] = 320,
    mp3_preset: Annotated[
        int, typer.Option(min=2, max=7, help="2 is the best quality, 7 the fastest.")
    ] = 2,
    bitrate: Annotated[int | None, typer.Option(help="kbit/s of opus (192) and m4a (256).")] = None,
    stem_file: Annotated[
        bool,
        typer.Option("--stem-file", help="One .stem.mp4 for DJ programs instead of four files."),
    ] = False,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Give stems the track's time of modification.")
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            help="Leave out tracks of which htdemucs.json says that the same was done already."
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done with each track.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a summary for programs, on standard output.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", help="Segments run at once on a CPU.", min=0)
    ] = 0,
    batch_size: Annotated[
        int | None, typer.Option(help="Segments run at once on any device.", min=1)
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="By default the fastest that the device is made for.")
    ] = Precision.auto,
    seed: Annotated[int, typer.Option(help="Of the random lead-ins.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Separate songs into stems."""
    if list_models:
        _list_models(repo)
        return
    if not tracks:
        raise SeparationError("no tracks given; name one or more audio files")
    messages().quiet = quiet
    if as_json and out == STANDARD_STREAM:
        raise SeparationError("standard output takes the stem or the summary, not both")
    encoding = _encoding(
        file_format, flac, mp3, _depth(bit_depth, int24, float32), mp3_bitrate, mp3_preset, bitrate
    )
    from htdemucs.separation import OutputOptions

    options = OutputOptions(
        encoding=encoding,
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
    separators = _separators(
        name,
        repo,
        device,
        options,
        stems,
        overlap=overlap,
        shifts=shifts,
        segment=segment,
        batch_size=batch_size or jobs or None,
        seed=seed,
        split=not no_split,
        precision=precision.value,
    )
    separate_tracks(
        tracks,
        separators,
        options,
        out,
        name=name,
        repo=repo,
        skip_existing=skip_existing,
        dry_run=dry_run,
        as_json=as_json,
    )


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


def _encoding(
    file_format: Format | None,
    flac: bool,
    mp3: bool,
    depth: int,
    mp3_bitrate: int,
    mp3_preset: int,
    bitrate: int | None,
) -> Any:
    from htdemucs.audio import AudioEncoding

    formats = [f for f, wanted in (("flac", flac), ("mp3", mp3)) if wanted]
    formats += [file_format.value] if file_format else []
    if len(set(formats)) > 1:
        raise SeparationError(f"choose one format, not {' and '.join(formats)}")
    chosen = formats[0] if formats else "wav"
    if chosen == "flac":
        depth = min(depth, 24)
    return AudioEncoding(
        format=chosen,
        bit_depth=depth,
        bitrate=mp3_bitrate if chosen == "mp3" else bitrate,
        mp3_preset=mp3_preset,
    )


def _separators(
    name: str,
    repo: Path | None,
    device: str | None,
    options: "OutputOptions",
    stems: str | None,
    **settings: Any,
) -> "list[Separator]":
    from htdemucs.fast import keep_freed_memory
    from htdemucs.separation import Separator
    from htdemucs.weights import load_model

    if stems and options.two_stems:
        raise SeparationError("choose --stems or --two-stems, not both")
    if stems and (options.residual == "spread" or options.stem_file):
        other = "--stem-file" if options.stem_file else "--residual spread"
        raise SeparationError(f"{other} needs all stems: leave out --stems")
    keep_freed_memory()
    wanted = [stem.strip() for stem in stems.split(",")] if stems else None
    separators = []
    for place in device.split(",") if device else [None]:
        with download_bars(shown=not messages().quiet):
            model = load_model(name, repo=repo, device=place, stems=wanted or options.only_stem)
        needed = wanted or list(options.needed_stems(model.sources))
        separator = Separator(model, stems=needed, **settings)
        separators.append(separator)
        messages().print(
            f"{name} on {separator.device}, {separator.precision}", highlight=False, markup=False
        )
    return separators


def _list_models(repo: Path | None) -> None:
    from htdemucs.cli.models import models

    if repo is None:
        models(as_json=False)
        return
    if not repo.is_dir():
        raise SeparationError(f"--repo {repo} is not a folder")
    for path in sorted(repo.iterdir()):
        if path.suffix in (".th", ".safetensors", ".yaml"):
            print(path.stem.partition("-")[0] if path.suffix == ".th" else path.stem)
