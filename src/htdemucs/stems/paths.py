"""Where the files of a track go."""

import hashlib
import re
import string
from dataclasses import dataclass
from pathlib import Path

from htdemucs.audio.tags import read_fields
from htdemucs.errors import SeparationError

TAGS = ("artist", "title", "album")
FIELDS = ("track", "trackext", "stem", "ext", *TAGS)
NUMBERED = ("track", *TAGS)  # the first of these in the template gets the " (2)" of a copy
LONGEST = 150  # bytes of a name made from a tag
_UNSAFE = frozenset('<>:"/\\|?*')  # in a file name, on one system or another
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)  # Windows'


@dataclass(frozen=True)
class OutputPaths:
    """A track's place below an output folder.

    Attributes:
        folder: nothing is written outside it.
        manifest: the file that tells how the stems were made.
        values: of the template's fields.
        template: of a stem's file.
    """

    folder: Path
    manifest: Path
    values: dict[str, str]
    template: str

    def stem(self, name: str) -> Path:
        """Return the path of the stem `name`."""
        return _placed(self.folder, self.template, self.values | {"stem": name})

    @property
    def spool(self) -> Path:
        """The hidden file beside the manifest that keeps unfinished work."""
        digest = hashlib.sha256(self.manifest.name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.manifest.with_name(f".htdemucs-{digest[:16]}.work")


def places(track: Path, folder: Path, template: str, extension: str, copy: int = 1) -> OutputPaths:
    """Return where the files of `track` go below `folder`.

    Args:
        track: the file; its name and tags fill the template.
        folder: nothing is placed outside it.
        template: of a stem's file.
        extension: for {ext}.
        copy: 2 for the second track of the same name, whose files go to "song (2)".

    Raises:
        SeparationError: the template and the track's name or tags lead out of the folder.
    """
    used = template_fields(template)
    name, _, suffix = track.name.rpartition(".")
    name = (name or track.name).rstrip(" .") or "_"  # Windows drops them, and folders collide
    values = {"track": name, "trackext": suffix, "ext": extension}
    if set(used) & set(TAGS):
        found = read_fields(track)
        defaults = {"title": values["track"]}
        for tag in TAGS:
            default = defaults.get(tag, f"Unknown {tag}")
            values[tag] = file_name(found.get(tag, "")) or file_name(default)
    if copy > 1:
        numbered = next((field for field in NUMBERED if field in used), None)
        if numbered is None:
            template = template.replace("{stem}", f"{{stem}} ({copy})")
        else:
            values[numbered] += f" ({copy})"
    ending = "json" if "stem" in used else "htdemucs.json"
    manifest = _placed(folder, template, values | {"stem": "htdemucs", "ext": ending})
    if manifest.suffix != ".json":
        manifest = manifest.with_name(f"{manifest.name}.json")
    return OutputPaths(folder, manifest, values, template)


def file_name(text: str) -> str:
    """Return a tag's text as one part of a path.

    It has no separators and no control characters, is short, and names no device of Windows.
    """
    safe = "".join("_" if c in _UNSAFE or not c.isprintable() else c for c in text).strip(" .")
    if _DEVICE.fullmatch(safe):
        safe = f"_{safe}"
    return safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").rstrip(" .")


def template_fields(template: str) -> list[str]:
    """Return the names in braces.

    Raises:
        SeparationError: the template cannot be read, or asks for something unknown.
    """
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise SeparationError(f"the file name template {template!r}: {error}") from error
    for _, name, spec, conversion in parts:
        if name not in FIELDS:
            known = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise SeparationError(
                f"the file name template has an unknown name {{{name}}}; the names are {known}"
            )
        if spec or conversion:
            raise SeparationError(f"the file name template takes plain names such as {{{name}}}")
    return [str(name) for _, name, _, _ in parts]


def _placed(folder: Path, template: str, values: dict[str, str]) -> Path:
    path = folder / template.format_map(values)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SeparationError(f"{values['track']} would be written outside {folder}: {path}")
    return path
