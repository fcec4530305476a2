"""`htdemucs separate`: separate songs into stems."""

import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import SignalHandler, print_error, print_status
from htdemucs.cli.progress import ConsoleReporter, event_reporter
from htdemucs.errors import HTDemucsError, SeparationError
from htdemucs.events import Event, EventCallback, Failed, Finished, Found, Written
from htdemucs.fsutil import model_folder
from htdemucs.results import STATUSES, TrackResult, summary

if TYPE_CHECKING:
    from htdemucs.batch import Library, Track
    from htdemucs.separation import Separator
    from htdemucs.stems import OutputOptions

STANDARD_STREAM = Path("-")
EXAMPLES = """
htdemucs separate song.mp3
htdemucs separate song.mp3 --two-stems vocals --mp3     # karaoke, a cappella
htdemucs separate album/ --format flac -o stems         # a folder
htdemucs separate song.mp3 -n mini                      # small, offline, fast
"""


@opt.command("separate", examples=EXAMPLES)
# A file that cannot be read fails as a track; click would refuse all of them.
@click.argument("tracks", nargs=-1, type=click.Path(path_type=Path, readable=False))
@opt.option(
    "-o",
    "--out",
    "--output",
    type=click.Path(path_type=Path),
    default="separated",
    heading=opt.OUTPUT,
    metavar="FOLDER",
    help="Stems go to FOLDER/MODEL/TRACK/STEM.EXT. With - a single stem goes to standard output.",
)
@opt.output_options
@opt.flag("--int24", heading=opt.DEMUCS, help="Same as --bit-depth 24.")
@opt.flag("--float32", heading=opt.DEMUCS, help="Same as --bit-depth 32; 24 bits in flac.")
@opt.flag("--flac", heading=opt.DEMUCS, help="Same as --format flac.")
@opt.flag("--mp3", heading=opt.DEMUCS, help="Same as --format mp3.")
@opt.option("--mp3-bitrate", default=320, heading=opt.DEMUCS, metavar="KBPS", help="Of mp3.")
@opt.flag("--keep-times", heading=opt.OUTPUT, help="Copy the track's modification time to stems.")
@opt.name_option
@opt.option(
    "-s", "--sig", heading=opt.DEMUCS, metavar="SIG", help="A network by its signature; same as -n."
)
@opt.repo_option
@opt.config_option
@opt.flag("--list-models", heading=opt.DEMUCS, help="List the models for -n, and exit.")
@opt.option(
    "-d",
    "--device",
    heading=opt.MODEL,
    metavar="DEVICE",
    help="By default cuda, else mps, else cpu; several, such as cuda:0,cuda:1, share the tracks.",
)
@opt.engine_options()
@opt.option(
    "-j",
    "--jobs",
    type=int,
    callback=opt.number(0),
    default=0,
    heading=opt.DEMUCS,
    metavar="N",
    help="Same as --batch-size, on a CPU.",
)
@opt.flag("--no-split", heading=opt.DEMUCS, help="Refuse tracks longer than one segment.")
@opt.compile_option
@opt.skip_existing_option
@opt.flag("--dry-run", heading=opt.MANY, help="Only print what would be done with each track.")
@opt.json_option
@opt.progress_option
@opt.quiet_option
@opt.verbose_option
def separate(
    *,
    tracks: tuple[Path, ...],
    out: Path,
    name: str,
    sig: str | None,
    repo: Path | None,
    config: Path | None,
    list_models: bool,
    device: str | None,
    engine: dict[str, Any],
    jobs: int,
    no_split: bool,
    compiled: bool,
    skip_existing: bool,
    dry_run: bool,
    as_json: bool,
    progress: str,
    quiet: bool,
    verbose: bool,
    **output: Any,
) -> None:
    """Separate songs into stems.

    TRACKS are audio or video files, folders of them, 'patterns', .m3u8 playlists, or - for
    standard input. Finished tracks are skipped; an interrupted command resumes.
    """
    console = ConsoleReporter(bars="," not in (device or ""))
    with (
        event_reporter(progress, quiet=quiet, verbose=verbose, console=console) as on_event,
        ExitStack() as stack,
    ):
        if list_models:
            _list_models(repo)
            return
        if not tracks:
            raise click.UsageError(
                "no tracks given; try: htdemucs separate song.mp3, or a folder of songs"
            )
        to_stdout = out == STANDARD_STREAM
        if as_json and to_stdout:
            raise click.UsageError("standard output takes the stem or the summary, not both")
        stems = opt.wanted_stems(**output)
        options = _output_settings(**output)
        name = sig or name
        if to_stdout:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-")))
        library_folder = out / model_folder(name)
        found = _find_tracks(tracks, [out, library_folder], stack, on_event, as_json=as_json)
        settings = engine | {
            "split": not no_split,
            "compiled": compiled,
            "batch_size": engine["batch_size"] or jobs or None,
        }
        from htdemucs.batch.plan import Plan
        from htdemucs.fast import keep_freed_memory
        from htdemucs.weights.registry import is_downloaded, known_sources

        plan = Plan(
            name=name,
            repo=repo,
            config=config,
            options=options,
            stems=stems,
            settings=settings,
            out=str(library_folder),
            skip_existing=skip_existing,
        ).checked()
        library = plan.library()
        if dry_run and repo is None and not is_downloaded(name):
            print_status(f"{name} must be downloaded first; nothing can be finished with it")
            stems = plan.stems or known_sources(name) or ()
            _print_dry_run(library, found, stems, None, on_event)
            return
        separators = []
        for one in device.split(",") if device else [None]:
            separators.append(plan.separator(one, on_event))
            print_status(f"{name} on {separators[-1].device}, {separators[-1].precision}")
        keep_freed_memory()
        if to_stdout:
            _check_one_output(plan.options, separators[0], found)
        if dry_run:
            _print_dry_run(library, found, separators[0].stems, separators[0], on_event)
            return
        signals = SignalHandler()
        results: list[TrackResult] = []
        callback = _name_stdout(on_event) if to_stdout else on_event
        with signals:
            try:
                results.extend(library.separate_all(found, separators, callback))
            except KeyboardInterrupt:
                print_status("stopped; run the same command again to resume")
        _conclude(results, signals, as_json=as_json, quiet=quiet or progress == "json")
        if to_stdout:
            [[file]] = [result.files.values() for result in results]
            with Path(file).open("rb") as stem:
                shutil.copyfileobj(stem, sys.stdout.buffer)


def _output_settings(
    *,
    int24: bool,
    float32: bool,
    flac: bool,
    mp3: bool,
    mp3_bitrate: int,
    file_format: str | None,
    bit_depth: str | None,
    bitrate: int | None,
    **others: Any,
) -> "OutputOptions":
    """Return the output options, where flags of the published command replace ours."""
    if int24 + float32 + (bit_depth is not None) > 1:
        raise click.UsageError("choose one of --int24, --float32 and --bit-depth")
    if int24 or float32:
        bit_depth = "24" if int24 else "32"
    chosen = {"flac": flac, "mp3": mp3, file_format: file_format}
    formats = [name for name, wanted in chosen.items() if wanted and name]
    if len(formats) > 1:
        raise click.UsageError(f"choose one format, not {' and '.join(formats)}")
    file_format = formats[0] if formats else None
    if file_format == "mp3":
        bitrate = mp3_bitrate if bitrate is None else bitrate
        bit_depth = None if int24 or float32 else bit_depth  # which `demucs` ignores with --mp3
    return opt.output_settings(
        file_format=file_format, bit_depth=bit_depth, bitrate=bitrate, **others
    )


def _find_tracks(
    inputs: tuple[Path, ...],
    exclude: list[Path],
    stack: ExitStack,
    on_event: EventCallback,
    *,
    as_json: bool,
) -> "list[Track | HTDemucsError]":
    """Return the tracks; if none can be read, report why and exit before a model is loaded."""
    from htdemucs.audio import AudioFile
    from htdemucs.batch import Track, find_tracks

    paths = [_save_stdin(stack) if path == STANDARD_STREAM else path for path in inputs]
    tracks: list[Track | HTDemucsError] = list(find_tracks(paths, exclude))
    on_event(Found(len(tracks)))
    failures: list[Failed] = []
    results: list[TrackResult] = []
    for item in tracks:
        try:
            if isinstance(item, HTDemucsError):
                raise item
            AudioFile(item.path)
        except HTDemucsError as error:
            location = item.location if isinstance(item, Track) else error.track
            failures.append(Failed(location or None, str(error)))
            results.append(TrackResult.of_error(location, error))
        else:
            return tracks
    together = " ".join(map(str, inputs))
    if len(inputs) > 1 and Path(together).exists():
        raise click.UsageError(f"did you mean {together!r}? Put quotes around a name with spaces")
    for failure in failures:
        on_event(failure)
    if as_json:
        print(json.dumps({**summary(results), "stopped": False}, indent=2))
    raise click.exceptions.Exit(1)


def _check_one_output(
    options: "OutputOptions", separator: "Separator", tracks: "list[Track | HTDemucsError]"
) -> None:
    """Refuse several tracks and several stems: standard output is a single file."""
    if not options.stem_file and len(options.output_names(separator.stems)) != 1:
        raise click.UsageError(
            "standard output takes one stem: add --stems or --two-stems STEM --other-method none"
        )
    if len(tracks) != 1:
        raise click.UsageError(f"standard output takes one track, not {len(tracks)}")


def _print_dry_run(
    library: "Library",
    tracks: "list[Track | HTDemucsError]",
    stems: tuple[str, ...],
    separator: "Separator | None",
    on_event: EventCallback,
) -> None:
    """Print what would be done with each track; without a separator, none is finished."""
    failed = False
    for track in tracks:
        try:
            if isinstance(track, HTDemucsError):
                raise track
            assigned = library.assign_output(track)
            step = library.dry_run(assigned, separator) if separator else "separate"
            files = ", ".join(library.output_files(assigned, stems).values())
            print(f"{step:8}  {assigned.location}  ->  {files}")
        except HTDemucsError as error:
            failed = True
            location = None if isinstance(track, HTDemucsError) else track.location
            on_event(Failed(location, str(error)))
    if failed:
        raise click.exceptions.Exit(1)


def _conclude(
    results: list[TrackResult], signals: SignalHandler, *, as_json: bool, quiet: bool
) -> None:
    """Print the summary; exit with an error if a track failed or a signal stopped the run."""
    counts = summary(results)
    if as_json:
        print(json.dumps({**counts, "stopped": signals.signal is not None}, indent=2))
    failures = [result for result in results if result.status == "failed"]
    if len(results) > 1:
        parts = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
        print_status(f"{len(results)} tracks: {', '.join(parts)}")
        for failure in () if quiet else failures:
            print_error(failure.error or "")
    if signals.signal is not None:
        raise click.exceptions.Exit(signals.exit_code)
    if failures:
        raise click.exceptions.Exit(1)


def _name_stdout(on_event: EventCallback) -> EventCallback:
    """Return a callback that replaces the path of the temporary file with "-" in events."""

    def callback(event: Event) -> None:
        if isinstance(event, Written):
            event = replace(event, path="-")
        elif isinstance(event, Finished):
            result = event.result
            event = Finished(replace(result, files=dict.fromkeys(result.files, "-")))
        on_event(event)

    return callback


def _save_stdin(stack: ExitStack) -> Path:
    """Save standard input to a file, and return its path."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="htdemucs-"))
    path = Path(folder) / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    if not path.stat().st_size:
        raise click.UsageError("standard input is empty; give it a track, or name a file")
    return path


def _list_models(repo: Path | None) -> None:
    from htdemucs.cli.models import print_models

    if repo is None:
        print_models(as_json=False)
        return
    if not repo.is_dir():
        raise SeparationError(f"--repo {repo} is not a folder")
    for path in sorted(repo.iterdir()):
        if path.suffix in (".th", ".safetensors", ".yaml", ".yml"):
            name = path.stem.rpartition("-")[0] if path.suffix == ".th" else ""
            print(name or path.stem)
