"""What the stems of a file are called, and how they are written."""

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from htdemucs.audio import AudioEncoding
from htdemucs.errors import SeparationError

ClipMode = Literal["rescale", "clamp", "none"]
OtherMethod = Literal["add", "minus", "none"]
TEMPLATE_FIELDS = ("track", "trackext", "stem", "ext")


@dataclass(frozen=True)
class OutputOptions:
    """How a file's stems are written.

    Attributes:
        encoding: format, depth and bit rate.
        filename: template below the output folder, of {track} (the name before its last dot),
            {trackext}, {stem} and {ext}.
        clip_mode: what happens to a stem whose peak an integer format cannot hold: "rescale" makes
            the whole stem softer, "clamp" cuts its peaks at 0.99, "none" leaves it to the format.
        two_stems: write only this stem and what is left of the mixture without it.
        other_method: what is left is the other stems' sum ("add", as no_STEM), the mixture minus
            the stem ("minus", as minus_STEM), or not written ("none").
        copy_tags: copy the track's tags and cover art to the stems.
    """

    encoding: AudioEncoding = field(default_factory=AudioEncoding)
    filename: str = "{track}/{stem}.{ext}"
    clip_mode: ClipMode = "rescale"
    two_stems: str | None = None
    other_method: OtherMethod = "add"
    copy_tags: bool = True

    def __post_init__(self) -> None:
        if self.clip_mode not in ("rescale", "clamp", "none"):
            raise SeparationError(f"clip_mode must be rescale, clamp or none, not {self.clip_mode}")
        if self.other_method not in ("add", "minus", "none"):
            raise SeparationError(f"other_method must be add, minus or none: {self.other_method}")
        _check_template(self.filename)

    def needed_stems(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """The model's outputs that must be computed to write what is asked for.

        Raises:
            SeparationError: the model has no such stem.
        """
        if self.two_stems is None:
            return sources
        if self.two_stems not in sources:
            raise SeparationError(
                f"no stem {self.two_stems} in this model; it has {', '.join(sources)}"
            )
        if self.other_method != "add":
            return (self.two_stems,)
        if len(sources) == 1:
            raise SeparationError("there is no other stem to add; use --other-method minus")
        return sources

    @property
    def only_stem(self) -> tuple[str, ...] | None:
        """The one stem that anything written is made of, whatever the model; None for several."""
        return (self.two_stems,) if self.two_stems and self.other_method != "add" else None

    def path(self, track: Path, stem: str, out_dir: Path) -> Path:
        """Where a stem of `track` goes.

        Raises:
            SeparationError: the template and the track's name lead out of `out_dir`.
        """
        name, _, suffix = track.name.rpartition(".")
        values = {
            "track": name if name else track.name,
            "trackext": suffix,
            "stem": stem,
            "ext": self.encoding.extension,
        }
        path = out_dir / self.filename.format_map(values)
        if not path.resolve().is_relative_to(out_dir.resolve()):
            raise SeparationError(f"{track.name} would be written outside {out_dir}: {path}")
        return path


def _check_template(template: str) -> None:
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise SeparationError(f"--filename {template!r}: {error}") from error
    for _, name, spec, conversion in parts:
        if name not in TEMPLATE_FIELDS:
            known = ", ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)
            raise SeparationError(f"--filename has {{{name}}}, but knows only the names {known}")
        if spec or conversion:
            raise SeparationError(f"--filename takes plain names such as {{{name}}}")
    if "stem" not in [name for _, name, _, _ in parts]:
        raise SeparationError("--filename must contain {stem}, or stems overwrite each other")
