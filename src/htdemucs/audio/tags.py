"""Tags and cover art from the track to its stems."""

# mutagen has no type hints: what comes from it is Any here.
# mypy: disallow-untyped-calls=False

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import mutagen
from mutagen import id3
from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from htdemucs.audio.decoding import open_audio
from htdemucs.audio.failures import reporting

# Our field, named as in Vorbis comments: (ID3 frame, MP4 atom). What is not listed is not copied;
# loudness tags such as ReplayGain must not be, since a stem is not as loud as its mixture.
_FIELDS = {
    "title": ("TIT2", "\xa9nam"),
    "artist": ("TPE1", "\xa9ART"),
    "album": ("TALB", "\xa9alb"),
    "albumartist": ("TPE2", "aART"),
    "date": ("TDRC", "\xa9day"),
    "genre": ("TCON", "\xa9gen"),
    "composer": ("TCOM", "\xa9wrt"),
    "grouping": ("TIT1", "\xa9grp"),
    "copyright": ("TCOP", "cprt"),
    "comment": ("COMM", "\xa9cmt"),
    "tracknumber": ("TRCK", "trkn"),
    "discnumber": ("TPOS", "disk"),
}
_TOTALS = {"tracknumber": "tracktotal", "discnumber": "disctotal"}  # in Vorbis comments
_FFMPEG_NAMES = {"albumartist": "album_artist", "tracknumber": "track", "discnumber": "disc"}
_MAX_PICTURE = 2**24 - 2**10  # bytes; a FLAC block's size has 24 bits
_MAX_RIFF = 2**32 - 2**26  # bytes; a longer WAV file is RF64, or has no room for tags


@dataclass
class _Tags:
    fields: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)


def copy_tags(
    source_path: str | PathLike[str],
    target_path: str | PathLike[str],
    *,
    format: str,
    title_suffix: str | None = None,
) -> bool:
    """Copy the common tags and the cover art of one file to another, of any written format.

    Args:
        source_path: any audio file.
        target_path: a finished file without tags; its name does not matter.
        format: what the target is: wav, flac, mp3, ogg, opus or m4a.
        title_suffix: a title "Song" becomes "Song (title_suffix)".

    Returns whether anything was copied: False where the source has no tags, they are damaged,
    or the target cannot hold them. Raises AudioError only if the target could not be saved,
    and may be damaged now.
    """
    target = Path(target_path)
    tags = _read(Path(source_path))
    tags.pictures = [picture for picture in tags.pictures if len(picture.data) < _MAX_PICTURE]
    if not (tags.fields or tags.pictures):
        return False
    if title_suffix is not None and "title" in tags.fields:
        tags.fields["title"] = [f"{title} ({title_suffix})" for title in tags.fields["title"]]
    write = _WRITERS[format]
    try:
        write(target, tags)
    except Exception as error:
        # Text or pictures that a format cannot hold are refused before anything is written. What
        # the system refuses, such as more space on the disk, mutagen wraps in its own error.
        with reporting(target, "cannot take tags", "check its folder and the free space"):
            for cause in (error, *error.args):
                if isinstance(cause, OSError):
                    raise cause from error
        return False
    return True


def read_fields(path: Path) -> dict[str, str]:
    """The first value of each common tag of a file, by its name in Vorbis comments."""
    return {name: values[0] for name, values in _read(path).fields.items() if values}


def _read(path: Path) -> _Tags:
    # Tags are the least trustworthy bytes of a file, and never worth losing a stem for: whatever
    # a parser trips over means that there are none.
    try:
        source = mutagen.File(path)
        tags = _Tags()
        if source is not None and source.tags is not None:
            if isinstance(source.tags, id3.ID3):
                tags = _from_id3(source.tags)
            elif isinstance(source, MP4):
                tags = _from_mp4(source)
            elif isinstance(source, FLAC | OggVorbis | OggOpus):
                tags = _from_vorbis(source)
        return tags if tags.fields or tags.pictures else _from_ffmpeg(path)
    except Exception:
        return _Tags()


def _from_ffmpeg(path: Path) -> _Tags:
    """Ask FFmpeg about files that mutagen does not know: WAV's INFO chunk, Matroska, WMA."""
    with open_audio(path) as (container, stream):
        found = {**stream.metadata, **container.metadata}
    found = {name.lower(): text for name, text in found.items()}
    names = {name: _FFMPEG_NAMES.get(name, name) for name in _FIELDS}
    return _Tags({ours: [found[theirs]] for ours, theirs in names.items() if found.get(theirs)})


def _from_id3(source: Any) -> _Tags:
    tags = _Tags()
    for name, (frame_name, _) in _FIELDS.items():
        for frame in source.getall(frame_name):
            # Comments with a description are other programs' notes to themselves.
            if not getattr(frame, "desc", ""):
                texts = frame.genres if frame_name == "TCON" else frame.text
                tags.fields.setdefault(name, []).extend(str(text) for text in texts if str(text))
    for frame in source.getall("APIC"):
        tags.pictures.append(_picture(frame.data, frame.mime, frame.type))
    return tags


def _from_mp4(source: Any) -> _Tags:
    tags = _Tags()
    for name, (_, atom) in _FIELDS.items():
        values = source.tags.get(atom, [])
        if name in _TOTALS:
            values = [f"{number}/{total}" if total else f"{number}" for number, total in values]
        if values:
            tags.fields[name] = [str(value) for value in values]
    for cover in source.tags.get("covr", []):
        is_png = cover.imageformat == MP4Cover.FORMAT_PNG
        tags.pictures.append(_picture(bytes(cover), "image/png" if is_png else "image/jpeg"))
    return tags


def _from_vorbis(source: Any) -> _Tags:
    tags = _Tags()
    for name in _FIELDS:
        values = [value for value in source.tags.get(name, []) if value]
        total = source.tags.get(_TOTALS[name], []) if name in _TOTALS else []
        if values and total and "/" not in values[0]:
            values = [f"{values[0]}/{total[0]}"]
        if values:
            tags.fields[name] = values
    if isinstance(source, FLAC):
        tags.pictures.extend(source.pictures)
    for encoded in source.tags.get("metadata_block_picture", []):
        tags.pictures.append(Picture(base64.b64decode(encoded)))
    return tags


def _picture(data: bytes, mime: str, kind: int = id3.PictureType.COVER_FRONT) -> Picture:
    picture = Picture()
    picture.data, picture.mime, picture.type = data, mime, kind
    return picture


def _fill_id3(target: Any, tags: _Tags) -> None:
    for name, values in tags.fields.items():
        frame_name = _FIELDS[name][0]
        extra = {"lang": "eng"} if frame_name == "COMM" else {}
        target.add(getattr(id3, frame_name)(encoding=id3.Encoding.UTF8, text=values, **extra))
    for number, picture in enumerate(tags.pictures):
        # The description tells pictures apart; the first one goes without, as is usual.
        target.add(
            id3.APIC(
                encoding=id3.Encoding.UTF8,
                mime=picture.mime,
                type=picture.type,
                desc=str(number) if number else "",
                data=picture.data,
            )
        )


def _write_mp3(path: Path, tags: _Tags) -> None:
    target = id3.ID3()
    _fill_id3(target, tags)
    target.save(path)


def _write_wav(path: Path, tags: _Tags) -> None:
    if path.stat().st_size > _MAX_RIFF:
        raise mutagen.MutagenError("no room for tags in a WAV file of 4 GB")
    target: Any = WAVE(path)
    target.add_tags()
    _fill_id3(target.tags, tags)
    target.save()


def _fill_vorbis(target: Any, tags: _Tags) -> None:
    if target.tags is None:
        target.add_tags()
    for name, values in tags.fields.items():
        number, slash, total = values[0].partition("/")
        if name in _TOTALS and slash:
            target.tags[name], target.tags[_TOTALS[name]] = [number], [total]
        else:
            target.tags[name] = values


def _write_flac(path: Path, tags: _Tags) -> None:
    target = FLAC(path)
    _fill_vorbis(target, tags)
    for picture in tags.pictures:
        target.add_picture(picture)
    target.save()


def _write_ogg(kind: type[OggVorbis | OggOpus]) -> Callable[[Path, _Tags], None]:
    def write(path: Path, tags: _Tags) -> None:
        target: Any = kind(path)
        _fill_vorbis(target, tags)
        target.tags["metadata_block_picture"] = [
            base64.b64encode(picture.write()).decode("ascii") for picture in tags.pictures
        ]
        target.save()

    return write


def _write_m4a(path: Path, tags: _Tags) -> None:
    target: Any = MP4(path)
    if target.tags is None:
        target.add_tags()
    for name, values in tags.fields.items():
        atom = _FIELDS[name][1]
        if name not in _TOTALS:
            target.tags[atom] = values
            continue
        number, _, total = values[0].partition("/")
        if number.strip().isdecimal():
            total = total.strip()
            target.tags[atom] = [(int(number), int(total) if total.isdecimal() else 0)]
    formats = {"image/png": MP4Cover.FORMAT_PNG, "image/jpeg": MP4Cover.FORMAT_JPEG}
    target.tags["covr"] = [
        MP4Cover(picture.data, formats[picture.mime])
        for picture in tags.pictures
        if picture.mime in formats
    ]
    target.save()


_WRITERS: dict[str, Callable[[Path, _Tags], None]] = {
    "wav": _write_wav,
    "flac": _write_flac,
    "mp3": _write_mp3,
    "ogg": _write_ogg(OggVorbis),
    "opus": _write_ogg(OggOpus),
    "m4a": _write_m4a,
}
