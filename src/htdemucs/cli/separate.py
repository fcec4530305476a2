"""`htdemucs separate`: separate songs into stems."""

import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from htdemucs.cli import options as opt
from htdemucs.cli.listeners import Terminal, listening
from htdemucs.cli.shared import Interruption, messages, print_error, say
from htdemucs.errors import HTDemucsError, SeparationError
from htdemucs.events import Event, Failed, Finished, Found, Listener, Written
from htdemucs.files import model_folder

if TYPE_CHECKING:
    from htdemucs.batch import Library, Outcome, Track
    from htdemucs.separation import Separator
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
    progress: opt.ShowProgress = "bar",  # noqa: ARG001  `wants_json` has read it
    quiet: opt.Quiet = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Print details on standard error.")
    ] = False,
) -> None:
    """Separate songs into stems."""
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
    terminal = Terminal(bars="," not in (device or ""))
    with ExitStack() as stack:
        tell = stack.enter_context(listening(terminal, quiet=quiet, verbose=verbose))
        to_stream = out == STANDARD_STREAM
        if to_stream:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-")))
        library_folder = out / model_folder(name)
        inputs = _find(tracks, [out, library_folder], stack, tell)
        settings = engine.settings() | {"split": not no_split, "compiled": compiled}
        settings["batch_size"] = engine.batch_size or jobs or None
        separators = _load(name, repo, device, stems, options, settings, tell)
        if to_stream:
            _check_one_output(options, separators[0], tracks)
        from htdemucs.batch import Library

        library = Library(library_folder, options, skip_existing=skip_existing)
        run = _Run(library, separators, to_stream, tell)
        if dry_run:
            run.list(inputs)
        else:
            run.separate(inputs)
            run.conclude(as_json)


def _find(
    words: list[Path], without: list[Path], stack: ExitStack, tell: Listener
) -> "list[Track | HTDemucsError]":
    """Return the tracks; if none can be read, tell why and exit before a model is loaded."""
    from htdemucs.audio import AudioFile
    from htdemucs.batch import Track, find_tracks

    if STANDARD_STREAM in words:
        words = [_standard_input(stack) if word == STANDARD_STREAM else word for word in words]
    tracks: list[Track | HTDemucsError] = list(find_tracks(words, without))
    tell(Found(len(tracks)))
    failures = []
    for item in tracks:
        try:
            if isinstance(item, HTDemucsError):
                raise item
            AudioFile(item.path)
        except HTDemucsError as error:
            location = item.location if isinstance(item, Track) else None
            failures.append(Failed(location, str(error)))
        else:
            return tracks
    for failure in failures:
        tell(failure)
    raise typer.Exit(1)


def _load(
    name: str,
    repo: Path | None,
    device: str | None,
    stems: tuple[str, ...] | None,
    options: "OutputOptions",
    settings: dict[str, Any],
    tell: Listener,
) -> "list[Separator]":
    """Return a separator for each device, with only those networks that the files need."""
    from htdemucs.fast import keep_freed_memory
    from htdemucs.separation import Separator
    from htdemucs.weights import load_model

    separators = []
    for place in device.split(",") if device else [None]:
        only = stems or options.only_stem
        model = load_model(name, repo=repo, device=place, stems=only, on_progress=tell)
        needed = stems or options.needed_stems(model.sources)
        separator = Separator(model, stems=needed, **settings)
        separators.append(separator)
        say(f"{name} on {separator.device}, {separator.precision}")
    keep_freed_memory()
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
    """Lets a library work, and collects its outcomes for the summary."""

    def __init__(
        self,
        library: "Library",
        separators: "list[Separator]",
        to_stream: bool,
        tell: Listener,
    ) -> None:
        self.library, self.separators, self.to_stream = library, separators, to_stream
        self.tell = _to_standard_output(tell) if to_stream else tell
        self.outcomes: list[Outcome] = []
        self.interruption = Interruption()

    def separate(self, tracks: "list[Track | HTDemucsError]") -> None:
        """Separate all tracks, until a signal."""
        with self.interruption:
            try:
                work = self.library.separate_all(tracks, self.separators, self.tell)
                self.outcomes.extend(work)
            except KeyboardInterrupt:
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
                location = None if isinstance(track, HTDemucsError) else track.location
                self.tell(Failed(location, str(error)))
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


def _to_standard_output(tell: Listener) -> Listener:
    """Return a listener that names standard output where the stem's file is only on its way."""

    def listener(event: Event) -> None:
        if isinstance(event, Written):
            event = replace(event, path="-")
        elif isinstance(event, Finished):
            event = replace(event, files=dict.fromkeys(event.files, "-"))
        tell(event)

    return listener


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
