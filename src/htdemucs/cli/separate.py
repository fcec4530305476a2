"""`htdemucs separate`: songs into stems."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.shared import Name, Precision, Repo, download_bars, messages
from htdemucs.cli.tracks import STANDARD_STREAM, separate_tracks
from htdemucs.errors import SeparationError

if TYPE_CHECKING:
    from htdemucs.separation import OutputOptions, Separator


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
    filename: opt.Filename = "{track}/{stem}.{ext}",
    device: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--device",
            help="By default cuda, else mps, else cpu; several, such as cuda:0,cuda:1, share the "
            "tracks.",
        ),
    ] = None,
    shifts: opt.Shifts = 1,
    overlap: opt.Overlap = 0.25,
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Refuse tracks longer than one segment.")
    ] = False,
    segment: opt.Segment = None,
    stems: opt.Stems = None,
    two_stems: opt.TwoStems = None,
    other_method: opt.Other = opt.OtherMethod.add,
    residual: opt.WithResidual = opt.Residual.none,
    sample_rate: opt.SampleRate = "keep",
    bit_depth: opt.BitDepth = None,
    int24: opt.Int24 = False,
    float32: opt.Float32 = False,
    clip_mode: opt.Clip = opt.ClipMode.rescale,
    file_format: opt.FileFormat = None,
    flac: opt.Flac = False,
    mp3: opt.Mp3 = False,
    mp3_bitrate: opt.Mp3Bitrate = 320,
    mp3_preset: opt.Mp3Preset = 2,
    bitrate: opt.Bitrate = None,
    stem_file: opt.StemFile = False,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Give stems the track's time of modification.")
    ] = False,
    skip_existing: opt.SkipExisting = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done with each track.")
    ] = False,
    as_json: opt.AsJson = False,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", help="Segments run at once on a CPU.", min=0)
    ] = 0,
    batch_size: opt.BatchSize = None,
    precision: opt.WithPrecision = Precision.auto,
    compiled: opt.Compile = False,
    seed: opt.Seed = 0,
    quiet: opt.Quiet = False,
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
    options = opt.output_options(
        filename=filename,
        two_stems=two_stems,
        other_method=other_method,
        residual=residual,
        sample_rate=sample_rate,
        bit_depth=bit_depth,
        int24=int24,
        float32=float32,
        clip_mode=clip_mode,
        file_format=file_format,
        flac=flac,
        mp3=mp3,
        mp3_bitrate=mp3_bitrate,
        mp3_preset=mp3_preset,
        bitrate=bitrate,
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
        compiled=compiled,
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

    wanted = opt.wanted_stems(stems, options)
    keep_freed_memory()
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
