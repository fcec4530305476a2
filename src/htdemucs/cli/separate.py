"""`htdemucs separate`: songs into stems."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli.shared import (
    Name,
    Precision,
    Repo,
    download_bars,
    messages,
    print_error,
    progress_bar,
)
from htdemucs.errors import HTDemucsError, SeparationError

if TYPE_CHECKING:
    from htdemucs.separation import OutputOptions, Separator


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


class Format(str, Enum):
    """Of the files written."""

    wav = "wav"
    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"
    opus = "opus"
    m4a = "m4a"


def separate(
    tracks: Annotated[list[Path] | None, typer.Argument(help="Audio or video files.")] = None,
    name: Name = "htdemucs",
    repo: Repo = None,
    list_models: Annotated[
        bool, typer.Option("--list-models", help="List the models that NAME can be, and exit.")
    ] = False,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder; stems go to OUT/MODEL/TRACK/STEM.EXT.")
    ] = Path("separated"),
    filename: Annotated[
        str,
        typer.Option(help="Template below OUT/MODEL, of {track}, {trackext}, {stem} and {ext}."),
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
    int24: Annotated[bool, typer.Option("--int24", help="24 bits instead of 16.")] = False,
    float32: Annotated[
        bool, typer.Option("--float32", help="32-bit float WAV; 24 bits in FLAC.")
    ] = False,
    clip_mode: Annotated[
        ClipMode, typer.Option(help="Make a clipping stem softer, cut its peaks, or neither.")
    ] = ClipMode.rescale,
    file_format: Annotated[Format | None, typer.Option("--format", help="By default wav.")] = None,
    flac: Annotated[bool, typer.Option("--flac", help="Same as --format flac.")] = False,
    mp3: Annotated[bool, typer.Option("--mp3", help="Same as --format mp3.")] = False,
    mp3_bitrate: Annotated[int, typer.Option(help="kbit/s.")] = 320,
    mp3_preset: Annotated[
        int, typer.Option(min=2, max=7, help="2 is the best quality, 7 the fastest.")
    ] = 2,
    bitrate: Annotated[int | None, typer.Option(help="kbit/s of opus (192) and m4a (256).")] = None,
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
    encoding = _encoding(file_format, flac, mp3, int24, float32, mp3_bitrate, mp3_preset, bitrate)
    from htdemucs.separation import OutputOptions

    options = OutputOptions(
        encoding=encoding,
        filename=filename,
        clip_mode=clip_mode.value,
        two_stems=two_stems,
        other_method=other_method.value,
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
    run = _Run(separators, options, out / _folder_name(name))
    run.separate(tracks)
    run.conclude()


@dataclass
class _Run:
    """The tracks of one command, and what became of them."""

    separators: "list[Separator]"  # one a device
    options: "OutputOptions"
    out_dir: Path
    failures: dict[Path, str] = field(default_factory=dict)
    done: list[Path] = field(default_factory=list)
    claimed: dict[Path, Path] = field(default_factory=dict)  # stem -> its track

    def separate(self, tracks: list[Path]) -> None:
        """Separate all tracks, as many at once as there are devices."""
        if len(self.separators) == 1:
            for track in tracks:
                self._separate(track, self.separators[0], progress_bar)
            return
        idle: Queue[Separator] = Queue()
        for separator in self.separators:
            idle.put(separator)

        def separate_on_the_next(track: Path) -> None:
            separator = idle.get()
            try:
                self._separate(track, separator, lambda _: nullcontext())
            finally:
                idle.put(separator)

        with ThreadPoolExecutor(len(self.separators)) as pool:
            try:
                for future in [pool.submit(separate_on_the_next, track) for track in tracks]:
                    future.result()
            finally:  # on Ctrl-C too: tracks not begun are not begun
                pool.shutdown(cancel_futures=True)

    def _separate(self, track: Path, separator: "Separator", bar: Any) -> None:
        """Separate one track; an expected failure is noted, and does not stop the others."""
        try:
            self._claim(track, separator.stems)
            with bar(track.name) as on_progress:
                stems = separator.separate_file(
                    track, self.out_dir, options=self.options, on_progress=on_progress
                )
        except HTDemucsError as error:
            for target in [t for t, owner in self.claimed.copy().items() if owner is track]:
                del self.claimed[target]
            self.failures[track] = str(error)
            print_error(str(error))
        else:
            self.done.append(track)
            folders = sorted({str(path.parent) for path in stems.values()})
            messages().print(
                f"  {', '.join(stems)} -> {', '.join(folders)}", highlight=False, markup=False
            )

    def _claim(self, track: Path, stems: tuple[str, ...]) -> None:
        """Refuse what another track of this command is or will be written to."""
        for stem in stems:
            target = self.options.path(track, stem, self.out_dir)
            other = self.claimed.setdefault(target, track)
            if other is not track:
                raise SeparationError(
                    f"{track} would overwrite the stems of {other}; "
                    "put {trackext} into --filename, or separate it into another folder"
                )

    def conclude(self) -> None:
        """Name the tracks that failed, and exit with 1 if there are any."""
        if not self.failures:
            return
        if len(self.failures) + len(self.done) > 1:
            names = ", ".join(str(track) for track in self.failures)
            print_error(f"{len(self.failures)} not separated: {names}")
        raise typer.Exit(1)


def _encoding(
    file_format: Format | None,
    flac: bool,
    mp3: bool,
    int24: bool,
    float32: bool,
    mp3_bitrate: int,
    mp3_preset: int,
    bitrate: int | None,
) -> Any:
    from htdemucs.audio import AudioEncoding

    formats = [f for f, wanted in (("flac", flac), ("mp3", mp3)) if wanted]
    formats += [file_format.value] if file_format else []
    if len(set(formats)) > 1:
        raise SeparationError(f"choose one format, not {' and '.join(formats)}")
    if int24 and float32:
        raise SeparationError("choose --int24 or --float32, not both")
    chosen = formats[0] if formats else "wav"
    depth = 24 if int24 or (float32 and chosen == "flac") else 32 if float32 else 16
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


def _folder_name(name: str) -> str:
    """What a model's stems are filed under: its name, without what a file name cannot hold."""
    if not name.startswith("hf://") and Path(name).exists():
        return Path(name).resolve().stem or "model"
    return name.removeprefix("hf://").replace("/", "_").lstrip(".") or "model"


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
