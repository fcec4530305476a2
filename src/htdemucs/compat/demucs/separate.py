"""`demucs.separate`: the command's function."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tqdm
from torch import Tensor

from htdemucs import Progress
from htdemucs.audio import AudioEncoding
from htdemucs.compat.demucs import audio
from htdemucs.compat.demucs.api import Separator, list_models, save_audio
from htdemucs.compat.demucs.audio import AudioFile
from htdemucs.compat.demucs.pretrained import UNITTEST, add_model_flags, demucs_unittest
from htdemucs.compat.demucs.repo import ModelLoadingError
from htdemucs.compat.demucs.utils import fatal
from htdemucs.compat.engine import Engine, padded_length
from htdemucs.compat.networks import BagOfModels, HTDemucs
from htdemucs.errors import HTDemucsError
from htdemucs.formats import MP3_PRESETS
from htdemucs.model import Model
from htdemucs.model.bag import networks
from htdemucs.stems import OutputOptions, separate_file
from htdemucs.weights import load_model

__all__ = [
    "BagOfModels",
    "HTDemucs",
    "ModelLoadingError",
    "Separator",
    "add_model_flags",
    "fatal",
    "get_parser",
    "list_models",
    "load_track",
    "main",
    "save_audio",
]


def main(opts: Sequence[str | Path] | None = None) -> None:
    """Run the command with these arguments, by default those of this process.

    Stems are written to OUT/MODEL/TRACK/STEM.EXT at the model's sample rate. A track that fails
    does not stop the others.

    Raises:
        SystemExit: an argument is invalid, the model cannot be loaded, or a track failed.
    """
    args = get_parser().parse_args(None if opts is None else [str(option) for option in opts])
    if args.list_models:
        for group, names in list_models(args.repo).items():
            print(f"{group}:", *names, sep="\n    ")
    elif not args.tracks:
        sys.exit("error: no tracks given")
    else:
        try:
            _separate(args)
        except HTDemucsError as error:
            sys.exit(f"error: {error}")


def get_parser() -> ArgumentParser:
    """Return the command's parser."""
    parser = ArgumentParser("demucs.separate", description="Separate songs into stems.")
    parser.add_argument("tracks", nargs="*", type=Path, default=[])
    add_model_flags(parser)
    parser.add_argument("--list-models", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-o", "--out", type=Path, default=Path("separated"))
    parser.add_argument("--filename", default="{track}/{stem}.{ext}")
    parser.add_argument("-d", "--device")
    parser.add_argument("--shifts", type=int, default=1)
    parser.add_argument("--overlap", type=float, default=0.25)
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--no-split", action="store_false", dest="split", default=True)
    split.add_argument("--segment", type=float)
    parser.add_argument("--two-stems", dest="stem", metavar="STEM")
    parser.add_argument("--other-method", choices=["none", "add", "minus"], default="add")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--int24", action="store_true")
    depth.add_argument("--float32", action="store_true")
    parser.add_argument("--clip-mode", choices=["rescale", "clamp", "none"], default="rescale")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--flac", action="store_true")
    formats.add_argument("--mp3", action="store_true")
    parser.add_argument("--mp3-bitrate", type=int, default=320)
    parser.add_argument("--mp3-preset", type=int, choices=MP3_PRESETS, default=2)
    parser.add_argument("-j", "--jobs", type=int, default=0)
    return parser


def load_track(track: str | Path, audio_channels: int, samplerate: int) -> Tensor:
    """Return a file's waveform (C, L)."""
    return AudioFile(track).read(streams=0, samplerate=samplerate, channels=audio_channels)


def _separate(args: Namespace) -> None:
    """Separate the tracks; raise the failures together at the end."""
    if save_audio is not audio.save_audio:
        raise HTDemucsError(
            "demucs.separate.save_audio was replaced, and main does not call it; use "
            "demucs.api.Separator, and save the stems it returns"
        )
    name = args.sig or args.name
    only = (args.stem,) if args.stem and args.other_method != "add" else None
    model: Model
    if name == UNITTEST:
        model = demucs_unittest().eval().network
    else:
        model = load_model(name, repo=args.repo, device=args.device, stems=only)
    options = _options(args, model.sample_rate)
    engine = Engine(
        model,
        padded_length(model, model.segment),
        stems=options.needed_stems(model.sources),
        shifts=args.shifts,
        overlap=args.overlap,
        split=args.split,
        segment=args.segment,
        batch_size=args.jobs or None,
    )
    out = args.out / name.replace("hf://", "").replace("/", "_")
    failures = []
    for track in args.tracks:
        try:
            with _bars(len(networks(model)) * max(1, args.shifts)) as on_progress:
                separate_file(engine, track, out, options=options, on_progress=on_progress)
        except HTDemucsError as error:
            failures.append(str(error))
    if failures:
        raise HTDemucsError("\n".join(failures))


def _options(args: Namespace, sample_rate: int) -> OutputOptions:
    encoding = AudioEncoding(
        "mp3" if args.mp3 else "flac" if args.flac else "wav",
        bit_depth=24 if args.int24 else 32 if args.float32 and not args.flac else 16,
        bitrate=args.mp3_bitrate if args.mp3 else None,
        mp3_preset=args.mp3_preset,
    )
    return OutputOptions(
        encoding,
        filename=args.filename,
        clip_mode=args.clip_mode,
        two_stems=args.stem,
        other_method=args.other_method,
        sample_rate=sample_rate,
    )


@contextmanager
def _bars(count: int) -> Iterator[Callable[[Any], None]]:
    """Show bars of seconds on standard error, one after another; yield the function that updates.

    The published command shows a bar for each network and shift. Programs count the bars by their
    0 %, so each is shown once with 0 %.
    """
    bars: list[Any] = []

    def on_progress(event: Any) -> None:
        if not isinstance(event, Progress) or not event.total:
            return
        done = count * event.done / event.total  # in bars
        while len(bars) <= min(done, count - 1):
            if bars:
                bars[-1].update(bars[-1].total - bars[-1].n)
                bars[-1].close()
            bars.append(tqdm.tqdm(total=event.total, ncols=120, unit="seconds"))
        seconds = event.total * (done - len(bars) + 1)
        if seconds - bars[-1].n >= event.total / 100 or done == count:
            bars[-1].update(seconds - bars[-1].n)

    try:
        yield on_progress
    finally:
        if bars:
            bars[-1].close()


if __name__ == "__main__":
    main()
