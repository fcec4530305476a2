"""`htdemucs separate`: separate songs into stems."""

import json
import math
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.options import in_flags
from htdemucs.cli.shared import (
    Interruption,
    download_bars,
    folder_name,
    messages,
    print_error,
    progress_bar,
    say,
    set_verbosity,
)
from htdemucs.errors import HTDemucsError, SeparationError

if TYPE_CHECKING:
    from htdemucs.batch import Library, Outcome, Track
    from htdemucs.separation import Progress, Separator
    from htdemucs.stems import OutputOptions

STANDARD_STREAM = Path("-")


def separate(
    tracks: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Audio or video files, folders of them, patterns, .m3u8 playlists, or - for "
            "standard input."
        ),
    ] = None,
    name: opt.Name = "htdemucs",
    sig: Annotated[
        str | None,
        typer.Option("-s", "--sig", help="One network by its signature; the same as -n."),
    ] = None,
    repo: opt.Repo = None,
    list_models: Annotated[
        bool, typer.Option("--list-models", help="List the models that NAME can be, and exit.")
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            "--output",
            help="Folder; stems go to OUT/MODEL/TRACK/STEM.EXT. With - a single stem goes to "
            "standard output.",
        ),
    ] = Path("separated"),
    device: Annotated[
        str | None,
        typer.Option(
            "-d",
            "--device",
            help="By default cuda, else mps, else cpu; several, such as cuda:0,cuda:1, share the "
            "tracks.",
        ),
    ] = None,
    no_split: Annotated[
        bool, typer.Option("--no-split", help="Refuse tracks longer than one segment.")
    ] = False,
    *,
    engine: opt.EngineOptions,
    jobs: Annotated[
        int, typer.Option("-j", "--jobs", help="Segments in a batch, on a CPU.", min=0)
    ] = 0,
    compiled: opt.Compile = False,
    output: opt.DemucsFlags,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Give stems the track's time of modification.")
    ] = False,
    skip_existing: opt.SkipExisting = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done with each track.")
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print details on standard error.")
    ] = False,
) -> None:
    """Separate songs into stems."""
    set_verbosity(quiet, verbose)
    if list_models:
        _list_models(repo)
        return
    if not tracks:
        raise SeparationError("no tracks given; name one or more audio files")
    if as_json and out == STANDARD_STREAM:
        raise SeparationError("standard output takes the stem or the summary, not both")
    options = output.options(keep_times=keep_times)
    stems = output.wanted_stems()
    name = sig or name
    with ExitStack() as stack:
        to_stream = out == STANDARD_STREAM
        if to_stream:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-")))
        library_folder = out / folder_name(name)
        inputs = _find(tracks, [out, library_folder], stack)
        settings = engine.settings() | {"split": not no_split, "compiled": compiled}
        settings["batch_size"] = engine.batch_size or jobs or None
        separators = _load(name, repo, device, stems, options, settings)
        if to_stream:
            _check_one_output(options, separators[0], tracks)
        from htdemucs.batch import Library

        library = Library(library_folder, options, skip_existing=skip_existing)
        run = _Run(library, separators, to_stream)
        if dry_run:
            run.list(inputs)
        else:
            run.separate(inputs)
            run.conclude(as_json)


def _find(
    words: list[Path], without: list[Path], stack: ExitStack
) -> "list[Track | HTDemucsError]":
    """Return the tracks; if none can be read, print why and exit before a model is loaded."""
    from htdemucs.audio import AudioFile
    from htdemucs.batch import Track, find_tracks

    if STANDARD_STREAM in words:
        words = [_standard_input(stack) if word == STANDARD_STREAM else word for word in words]
    tracks: list[Track | HTDemucsError] = list(find_tracks(words, without))
    reasons = []
    for item in tracks:
        try:
            if isinstance(item, HTDemucsError):
                raise item
            AudioFile(item.path)
        except HTDemucsError as error:
            reasons.append(str(error))
        else:
            return tracks
    for reason in reasons:
        print_error(reason)
    raise typer.Exit(1)


def _load(
    name: str,
    repo: Path | None,
    device: str | None,
    stems: tuple[str, ...] | None,
    options: "OutputOptions",
    settings: dict[str, Any],
) -> "list[Separator]":
    """Return a separator for each device, with only those networks that the files need."""
    from htdemucs.fast import keep_freed_memory
    from htdemucs.separation import Separator
    from htdemucs.weights import load_model

    keep_freed_memory()
    separators = []
    for place in device.split(",") if device else [None]:
        with download_bars(shown=not messages().quiet):
            model = load_model(name, repo=repo, device=place, stems=stems or options.only_stem)
        needed = stems or options.needed_stems(model.sources)
        separator = Separator(model, stems=needed, **settings)
        separators.append(separator)
        say(f"{name} on {separator.device}, {separator.precision}")
    return separators


def _check_one_output(options: "OutputOptions", separator: "Separator", words: list[Path]) -> None:
    """Refuse several tracks and several stems: standard output is a single file."""
    if not options.stem_file and len(options.output_names(separator.stems)) != 1:
        raise SeparationError(
            "standard output takes one stem: add --stems or --two-stems STEM --other-method none"
        )
    if len(words) != 1 or words[0].is_dir():
        raise SeparationError("standard output takes one track; name one file")


class _Run:
    """Prints the progress of a library's work, and collects its outcomes for the summary."""

    def __init__(self, library: "Library", separators: "list[Separator]", to_stream: bool) -> None:
        self.library, self.separators, self.to_stream = library, separators, to_stream
        self.outcomes: list[Outcome] = []
        self.interruption = Interruption()

    def separate(self, tracks: "list[Track | HTDemucsError]") -> None:
        """Separate all tracks, until a signal."""
        bars = _Bars()
        on_progress = bars.update if len(self.separators) == 1 else None
        with self.interruption, bars:
            try:
                for outcome in self.library.separate_all(tracks, self.separators, on_progress):
                    bars.close()
                    self._add(outcome)
            except KeyboardInterrupt:
                bars.close()
                say("stopped; run the same command again to resume")

    def list(self, tracks: "list[Track | HTDemucsError]") -> None:
        """Print what would be done with each track."""
        separator = self.separators[0]
        failures = 0
        for track in tracks:
            try:
                if isinstance(track, HTDemucsError):
                    raise track
                placed = self.library.place(track)
                step = self.library.preview(placed, separator)
                files = ", ".join(self.library.files(placed, separator).values())
                print(f"{step:8}  {placed.location}  ->  {files}")
            except HTDemucsError as error:
                failures += 1
                print_error(str(error))
        if failures:
            raise typer.Exit(1)

    def conclude(self, as_json: bool) -> None:
        """Print the summary; exit with an error if a track failed or a signal stopped the run."""
        from htdemucs.batch.outcomes import STATUSES, summary

        counts = summary(self.outcomes)
        number = self.interruption.signal
        if as_json:
            print(json.dumps({**counts, "stopped": number is not None}, indent=2))
        failures = [o for o in self.outcomes if o.status == "failed"]
        if len(self.outcomes) > 1:
            parts = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
            say(f"{len(self.outcomes)} tracks: {', '.join(parts)}")
            for failure in failures if not messages().quiet else ():
                print_error(failure.reason or "")
        if number is not None:
            raise typer.Exit(128 + number)
        if failures:
            raise typer.Exit(1)
        if self.to_stream:
            [[file]] = [outcome.files.values() for outcome in self.outcomes]
            with Path(file).open("rb") as stem:
                shutil.copyfileobj(stem, sys.stdout.buffer)

    def _add(self, outcome: "Outcome") -> None:
        self.outcomes.append(outcome)
        if outcome.status == "failed":
            print_error(outcome.reason or "")
            return
        folders = sorted({str(Path(path).parent) for path in outcome.files.values()})
        if self.to_stream:
            folders = ["standard output"]
        prefix = "  already there: " if outcome.status == "skipped" else "  "
        say(f"{prefix}{', '.join(outcome.files)} -> {', '.join(folders)}")
        for warning in outcome.warnings:
            say(f"  warning: {in_flags(warning)}")
        if outcome.gain not in (None, 1.0):
            decibels = -20 * math.log10(outcome.gain or 1.0)
            say(f"  all stems lowered by {decibels:.1f} dB to avoid clipping")


class _Bars:
    """The progress bar of the current track."""

    def __init__(self) -> None:
        self._track: Track | None = None
        self._bar = ExitStack()
        self._report: Any = None

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, track: "Track", progress: "Progress") -> None:
        """Show the progress of a track."""
        if track != self._track:
            self.close()
            self._track = track
            self._report = self._bar.enter_context(progress_bar(track.path.name))
        self._report(progress)

    def close(self) -> None:
        """Remove the bar."""
        self._track = None
        self._bar.close()


def _standard_input(stack: ExitStack) -> Path:
    """Save standard input to a file, and return its path."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-"))
    path = Path(folder) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


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
