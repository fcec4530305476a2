"""Where the files of a track go."""

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path

from htdemucs.audio.tags import read_fields
from htdemucs.errors import SeparationError

TAGS = ("artist", "title", "album")
FIELDS = ("track", "trackext", "stem", "ext", *TAGS)
NUMBERED = ("track", *TAGS)  # where the number goes of a track whose name is taken
LONGEST = 150  # bytes of a name made from a tag
_UNSAFE = frozenset('<>:"/\\|?*')  # in a file name, on one system or another


@dataclass(frozen=True)
class Places:
    """A track's place below an output folder.

    Attributes:
        folder: nothing is written outside it.
        manifest: the file that tells how the stems were made.
        values: what the template's fields stand for.
        template: of a stem's file.
    """

    folder: Path
    manifest: Path
    values: dict[str, str]
    template: str

    def stem(self, name: str) -> Path:
        """Where the stem `name` goes."""
        return _placed(self.folder, self.template, self.values | {"stem": name})

    @property
    def spool(self) -> Path:
        """The hidden file in which unfinished work is kept, beside the manifest."""
        digest = hashlib.sha256(self.manifest.name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.manifest.with_name(f".htdemucs-{digest[:16]}.work")


def places(track: Path, folder: Path, template: str, extension: str, number: int = 1) -> Places:
    """Where the files of `track` go below `folder`.

    Args:
        track: its name and tags count.
        folder: nothing is placed outside it.
        template: of a stem's file.
        extension: what {ext} is.
        number: 2 for the second track of a name, whose files are called accordingly.

    Raises:
        SeparationError: the template and the track's name or tags lead out of the folder.
    """
    used = template_fields(template)
    name, _, suffix = track.name.rpartition(".")
    values = {"track": name if name else track.name, "trackext": suffix, "ext": extension}
    if set(used) & set(TAGS):
        found = read_fields(track)
        defaults = {"title": values["track"]}
        for tag in TAGS:
            default = defaults.get(tag, f"Unknown {tag}")
            values[tag] = file_name(found.get(tag, "")) or file_name(default)
    if number > 1:
        numbered = next((field for field in NUMBERED if field in used), None)
        if numbered is None:
            template = template.replace("{stem}", f"{{stem}} ({number})")
        else:
            values[numbered] += f" ({number})"
    ending = "json" if "stem" in used else "htdemucs.json"
    manifest = _placed(folder, template, values | {"stem": "htdemucs", "ext": ending})
    if manifest.suffix != ".json":
        manifest = manifest.with_name(f"{manifest.name}.json")
    return Places(folder, manifest, values, template)


def file_name(text: str) -> str:
    """A tag's text as a part of a path: no separators, no control characters, not too long."""
    safe = "".join("_" if c in _UNSAFE or not c.isprintable() else c for c in text).strip(" .")
    return safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").rstrip()


def template_fields(template: str) -> list[str]:
    """The names in braces.

    Raises:
        SeparationError: the template cannot be read, or asks for something unknown.
    """
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise SeparationError(f"--filename {template!r}: {error}") from error
    for _, name, spec, conversion in parts:
        if name not in FIELDS:
            known = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise SeparationError(f"--filename has {{{name}}}, but knows only the names {known}")
        if spec or conversion:
            raise SeparationError(f"--filename takes plain names such as {{{name}}}")
    return [str(name) for _, name, _, _ in parts]


def _placed(folder: Path, template: str, values: dict[str, str]) -> Path:
    path = folder / template.format_map(values)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SeparationError(f"{values['track']} would be written outside {folder}: {path}")
    return path
