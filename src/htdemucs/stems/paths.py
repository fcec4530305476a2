"""The paths of a track's stems, its manifest and its unfinished work."""

import hashlib
import re
import string
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from htdemucs.audio.tags import read_fields
from htdemucs.errors import SeparationError

TAGS = ("artist", "title", "album")
FIELDS = ("track", "trackext", "stem", "ext", *TAGS)
NUMBERED = ("track", *TAGS)  # the first of these in the template gets the " (2)" of a duplicate
LONGEST = 150  # bytes of a name made from a tag
_UNSAFE = frozenset('<>:"/\\|?*')  # not allowed in file names on some systems
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)  # Windows'


@dataclass(frozen=True)
class OutputPaths:
    """The paths of a track's files below an output folder.

    Attributes:
        folder: no file is written outside it.
        manifest: the file that records how the stems were made.
        values: the values of the template's fields.
        template: the template for the path of a stem.
    """

    folder: Path
    manifest: Path
    values: dict[str, str]
    template: str

    def stem(self, name: str) -> Path:
        """Return the path of the stem `name`."""
        return _fill(self.template, self.values | {"stem": name}, self.folder)

    @property
    def cache_file(self) -> Path:
        """The hidden file beside the manifest that holds unfinished work."""
        digest = hashlib.sha256(self.manifest.name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.manifest.with_name(f".htdemucs-{digest[:16]}.work")


def output_paths(
    track: Path, folder: Path, template: str, extension: str, duplicate_index: int = 1
) -> OutputPaths:
    """Return the paths of the files of `track` below `folder`.

    Args:
        track: the file; its name and tags fill the template.
        folder: no file is written outside it.
        template: the template for the path of a stem.
        extension: the value of {ext}.
        duplicate_index: 2 for the second track of the same name, whose files go to "song (2)".

    Raises:
        SeparationError: the template and the track's name or tags lead out of the folder.
    """
    fields = template_fields(template)
    name, _, suffix = track.name.rpartition(".")
    name = (name or track.name).rstrip(" .") or "_"  # Windows drops them, and folders collide
    name, suffix = fitting_name(name, folder), fitting_name(suffix, folder)
    values = {"track": name, "trackext": suffix, "ext": extension}
    if set(fields) & set(TAGS):
        tags = read_fields(track)
        for tag in TAGS:
            default = name if tag == "title" else f"Unknown {tag}"
            values[tag] = file_name(tags.get(tag, "")) or file_name(default)
    if duplicate_index > 1:
        numbered = next((field for field in NUMBERED if field in fields), None)
        if numbered is None:
            template = template.replace("{stem}", f"{{stem}} ({duplicate_index})")
        else:
            values[numbered] += f" ({duplicate_index})"
    ending = "json" if "stem" in fields else "htdemucs.json"
    manifest = _fill(template, values | {"stem": "htdemucs", "ext": ending}, folder)
    if manifest.suffix != ".json":
        manifest = manifest.with_name(f"{manifest.name}.json")
    return OutputPaths(folder, manifest, values, template)


def file_name(text: str) -> str:
    """Return a tag's text as one part of a path.

    The result contains no separators or control characters, is short, and is not the name of a
    Windows device.
    """
    safe = "".join("_" if c in _UNSAFE or not c.isprintable() else c for c in text).strip(" .")
    if _DEVICE.fullmatch(safe):
        safe = f"_{safe}"
    return safe.encode("utf-8", "replace")[:LONGEST].decode("utf-8", "ignore").rstrip(" .")


def fitting_name(name: str, folder: Path) -> str:
    """Return `name` or, if the file system of `folder` refuses it, a safe form of it.

    FAT, exFAT and NTFS refuse names such as "a:b" on every system.
    """
    safe = file_name(name)
    if safe == name:
        return name
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), Path())
    return name if _is_accepted(name, existing) else safe or "_"


@lru_cache(4096)
def _is_accepted(name: str, folder: Path) -> bool:
    """Whether a folder of this name can be created below `folder`, which is left unchanged."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".htdemucs-") as scratch:
            try:
                Path(scratch, name).mkdir()
            except OSError:
                return False
    except OSError:  # the folder cannot be written at all, which its first file reports
        pass
    return True


def template_fields(template: str) -> list[str]:
    """Return the names in braces.

    Raises:
        SeparationError: the template is malformed or contains an unknown name.
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


def _fill(template: str, values: dict[str, str], folder: Path) -> Path:
    """Return the path that a template gives, which must be below `folder`."""
    path = folder / template.format_map(values)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SeparationError(f"{values['track']} would be written outside {folder}: {path}")
    return path
