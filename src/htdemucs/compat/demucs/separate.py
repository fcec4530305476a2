"""`demucs.separate`: the command's function."""

import random
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from htdemucs.compat.demucs.api import Separator, list_models, save_audio
from htdemucs.compat.demucs.apply import apply_model
from htdemucs.compat.demucs.audio import AudioFile, convert_audio
from htdemucs.compat.demucs.pretrained import add_model_flags, get_model_from_args
from htdemucs.compat.demucs.repo import ModelLoadingError
from htdemucs.compat.demucs.utils import fatal
from htdemucs.compat.networks import BagOfModels, HTDemucs
from htdemucs.devices import choose_device
from htdemucs.errors import ConfigError, HTDemucsError
from htdemucs.formats import MP3_PRESETS

__all__ = [  # also what programs written for demucs 4.0 import from here
    "AudioFile",
    "BagOfModels",
    "HTDemucs",
    "ModelLoadingError",
    "Separator",
    "add_model_flags",
    "apply_model",
    "convert_audio",
    "fatal",
    "get_model_from_args",
    "get_parser",
    "list_models",
    "load_track",
    "main",
    "save_audio",
]


def main(opts: Sequence[str | Path] | None = None) -> None:
    """Run the command with these arguments, by default those of this process.

    Stems are written by this module's `save_audio` to OUT/MODEL/TRACK/STEM.EXT, at the model's
    sample rate. A track that fails does not stop the others. Programs parse the lines on standard
    output, and the bars of `apply_model` on standard error.

    Raises:
        SystemExit: an argument is invalid, the model cannot be loaded, or a track failed.
    """
    args = get_parser().parse_args(None if opts is None else [str(option) for option in opts])
    if args.list_models:
        models = list_models(args.repo)
        for title, group in (("Bag of models:", "bag"), ("Single models:", "single")):
            print(title, *models[group], sep="\n    ")
    elif not args.tracks:
        sys.exit("error: no tracks given")
    else:
        try:
            with _seeded():
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


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the generator of the shifts, so that a track always gives the same stems."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _separate(args: Namespace) -> None:
    """Separate the tracks; raise the failures together at the end."""
    name = args.sig or args.name
    _file_name(args, Path("track.wav"), "stem")  # an invalid pattern is an error before the work
    separator = Separator(
        name,
        repo=args.repo,
        device=choose_device(args.device),
        shifts=args.shifts,
        overlap=args.overlap,
        split=args.split,
        segment=args.segment,
        jobs=args.jobs,
        progress=True,
    )
    _check(args, separator)
    if isinstance(separator.model, BagOfModels):
        print(f"Selected model is a bag of {len(separator.model.models)} models.", flush=True)
    out = args.out / name.replace("hf://", "").replace("/", "_")
    print(f"Separated tracks will be stored in {out.resolve()}", flush=True)
    failures = []
    for track in args.tracks:
        print(f"Separating track {track}", flush=True)
        try:
            mixture, stems = separator.separate_audio_file(track)
            for stem, waveform in _outputs(args, mixture, stems).items():
                path = out / _file_name(args, track, stem)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_audio(
                    waveform,
                    str(path),
                    samplerate=separator.samplerate,
                    bitrate=args.mp3_bitrate,
                    preset=args.mp3_preset,
                    clip=args.clip_mode,
                    as_float=args.float32,
                    bits_per_sample=24 if args.int24 else 16,
                )
        except HTDemucsError as error:
            failures.append(str(error))
    if failures:
        raise HTDemucsError("\n".join(failures))


def _check(args: Namespace, separator: Separator) -> None:
    """Check the arguments that depend on the model, before a track is read."""
    model = separator.model
    if args.stem is not None and args.stem not in model.sources:
        raise ConfigError(f"the model has no stem {args.stem}; choose {', '.join(model.sources)}")
    bag = model if isinstance(model, BagOfModels) else BagOfModels([model])
    longest = bag.max_allowed_segment
    if args.segment is not None and args.segment > longest:
        raise ConfigError(
            f"a segment of {args.segment:g} s is longer than the {longest:g} s of training"
        )


def _outputs(args: Namespace, mixture: Tensor, stems: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the waveforms to write, by their names."""
    if args.stem is None:
        return stems
    chosen = stems[args.stem]
    others = [waveform for name, waveform in stems.items() if name != args.stem]
    outputs = {args.stem: chosen}
    if args.other_method == "minus":
        outputs[f"minus_{args.stem}"] = mixture - chosen
    elif args.other_method == "add":
        outputs[f"no_{args.stem}"] = sum(others, torch.zeros_like(chosen))
    return outputs


def _file_name(args: Namespace, track: Path, stem: str) -> str:
    suffix = "mp3" if args.mp3 else "flac" if args.flac else "wav"
    parts = track.name.rsplit(".", 1)
    try:
        filename: str = args.filename.format(
            track=parts[0], trackext=parts[-1], stem=stem, ext=suffix
        )
    except (KeyError, IndexError, ValueError):
        raise ConfigError(
            f"the file name {args.filename} is invalid; use track, trackext, stem and ext in braces"
        ) from None
    return filename


if __name__ == "__main__":
    main()
