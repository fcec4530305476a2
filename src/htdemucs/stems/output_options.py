"""The options for a track's files: stems, format, names and levels."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from htdemucs.audio import Align, AudioEncoding
from htdemucs.errors import ConfigError, SeparationError
from htdemucs.model.bag import find_sources
from htdemucs.stems.paths import OutputPaths, output_paths, template_fields

ClipMode = Literal["rescale", "clamp", "none"]
OtherMethod = Literal["add", "minus", "none"]
Residual = Literal["none", "spread", "write"]
HEADROOM = 1.01  # "rescale" brings the highest peak to 1 / HEADROOM
RESIDUAL = "residual"  # the file of mixture minus stems


@dataclass(frozen=True)
class OutputOptions:
    """The options for the files of a track.

    Attributes:
        encoding: format, bit depth and bit rate.
        filename: template for paths below the output folder. Its fields are {track} (the name
            before its last dot), {trackext}, {stem}, {ext} and the tags {artist}, {title} and
            {album}.
        clip_mode: if a stem's peak exceeds what the format can hold, "rescale" lowers all stems by
            one gain, so that they still add up; "clamp" cuts peaks at 0.99; "none" leaves them to
            the format. 32-bit floats hold every peak and are never rescaled.
        two_stems: write only this stem and the rest of the mixture.
        other_method: the rest is the sum of the other stems ("add", as no_STEM), the mixture minus
            the stem ("minus", as minus_STEM), or not written ("none").
        residual: the difference between the mixture and the sum of the stems is left out ("none"),
            shared among the stems ("spread") or written as another file, "residual" ("write").
            With "spread" and "write" the files add up to the mixture. The sum is exact in 16 and
            24 bits if the track has no more bits and was neither resampled nor rescaled; otherwise
            it is exact to within rounding, and in lossy formats to within their precision. If a
            stem clips without being rescaled, the last file contains what was cut off.
        sample_rate: Hz of the files, by default the track's own; if the format does not have it,
            the next one above that it has, else its highest.
        keep_bit_depth: in wav and flac, write as many bits as a lossless track has.
        stem_file: write one .stem.mp4 for DJ programs, with the mixture and its four stems.
        align: "start" begins the stems with the track's first sample. "video" inserts silence
            where the sound of a video starts late or has gaps, so that stems match the video.
        copy_tags: copy the track's tags and cover art to the stems.
        keep_times: give the files the track's modification time.
    """

    encoding: AudioEncoding = field(default_factory=AudioEncoding)
    filename: str = "{track}/{stem}.{ext}"
    clip_mode: ClipMode = "rescale"
    two_stems: str | None = None
    other_method: OtherMethod = "add"
    residual: Residual = "none"
    sample_rate: int | None = None
    keep_bit_depth: bool = False
    stem_file: bool = False
    align: Align = "start"
    copy_tags: bool = True
    keep_times: bool = False

    def __post_init__(self) -> None:
        choices = {
            "align": Align,
            "clip_mode": ClipMode,
            "other_method": OtherMethod,
            "residual": Residual,
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise SeparationError(f"{name} must be one of {known}, not {getattr(self, name)}")
        if "stem" not in template_fields(self.filename) and not self.stem_file:
            raise SeparationError(
                "the file name template must contain {stem}, or stems overwrite each other"
            )
        if self.stem_file and (self.two_stems or self.residual == "write"):
            other = "two stems" if self.two_stems else "the residual"
            raise SeparationError(f"a stem file holds four stems; leave out {other}")
        if self.two_stems and self.other_method == "none" and self.residual == "spread":
            raise SeparationError(
                "a single stem cannot share a residual; set residual to none or write"
            )

    def needed_stems(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Return the sources of the model that are needed to write the files.

        Raises:
            SeparationError: the model does not have the stem.
        """
        if self.two_stems is None:
            return sources
        try:
            [source] = find_sources([self.two_stems], sources)
        except ConfigError as error:
            raise SeparationError(str(error)) from None
        if source != self.two_stems:
            raise SeparationError(f"no stem {self.two_stems}; did you mean {source}?")
        if self.other_method != "add":
            return (self.two_stems,)
        if len(sources) == 1:
            raise SeparationError("there is no other stem to add; set the other method to minus")
        return sources

    @property
    def only_stem(self) -> tuple[str, ...] | None:
        """The only stem that is needed to write the files, whatever the model; None for several."""
        return (self.two_stems,) if self.two_stems and self.other_method != "add" else None

    def output_names(self, stems: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the files written for these stems, in order."""
        names = list(stems)
        if self.two_stems is not None:
            rest = {"add": "no_", "minus": "minus_"}.get(self.other_method)
            names = [self.two_stems, *([rest + self.two_stems] if rest else [])]
        return (*names, *([RESIDUAL] if self.residual == "write" else []))

    @property
    def needs_mixture(self) -> bool:
        """Whether writing the files needs the mixture."""
        minus = self.two_stems is not None and self.other_method == "minus"
        return self.stem_file or self.residual != "none" or minus

    def encoding_for(self, bit_depth: int | None) -> AudioEncoding:
        """Return the encoding for a track of this bit depth (None: lossy)."""
        if self.stem_file:
            return AudioEncoding("m4a", bitrate=self.encoding.bitrate)
        if not self.keep_bit_depth or bit_depth is None:
            return self.encoding
        bit_depth = self.encoding.audio_format.nearest_bit_depth(bit_depth)
        return dataclasses.replace(self.encoding, bit_depth=bit_depth)

    def gain(self, peak: float, encoding: AudioEncoding) -> float:
        """Return the factor for all stems if this is their highest peak."""
        return 1 / max(1.0, HEADROOM * peak) if self.may_rescale(encoding) else 1.0

    def may_rescale(self, encoding: AudioEncoding) -> bool:
        """Whether `gain` can be other than 1."""
        return self.clip_mode == "rescale" and not encoding.is_float

    def output_paths(self, track: Path, folder: Path, duplicate_index: int = 1) -> OutputPaths:
        """Return the paths of the files of `track` below `folder`; see `paths.output_paths`."""
        extension = "stem.mp4" if self.stem_file else self.encoding.extension
        return output_paths(track, folder, self.filename, extension, duplicate_index)

    def stem_paths(self, paths: OutputPaths, stems: tuple[str, ...]) -> dict[str, Path]:
        """Return the files to write, by the names of their stems."""
        if self.stem_file:
            return {"stem file": paths.stem(paths.values["track"])}
        return {name: paths.stem(name) for name in self.output_names(stems)}
