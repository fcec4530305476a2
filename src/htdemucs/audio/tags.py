"""Tags and cover art: read from any file, written to the files of the stems.

Tags are stored in several ways (`formats.TagScheme`), for which `_FIELDS` has the names.
"""

# mutagen has no type hints: what comes from it is Any here.
# mypy: disallow-untyped-calls=False

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import mutagen
from mutagen import id3
from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from htdemucs.audio.ffmpeg import audio_errors
from htdemucs.audio.read import open_audio
from htdemucs.formats import FORMATS, TagScheme


class _Field(NamedTuple):
    """The names of a tag in each scheme."""

    id3: str
    mp4: str
    aliases: tuple[str, ...] = ()  # names that other programs and FFmpeg use


_UFID = "UFID:http://musicbrainz.org"
_FREE_FORM = "----:com.apple.iTunes:"  # prefix of names that MP4 does not define
# By the name in Vorbis comments. Tags that are not listed are not copied. Loudness tags such as
# ReplayGain must not be copied, since a stem is not as loud as its mixture.
_FIELDS = {
    "title": _Field("TIT2", "\xa9nam"),
    "artist": _Field("TPE1", "\xa9ART"),
    "album": _Field("TALB", "\xa9alb"),
    "albumartist": _Field("TPE2", "aART", ("album_artist", "album artist")),
    "date": _Field("TDRC", "\xa9day", ("year", "wm/year")),
    "genre": _Field("TCON", "\xa9gen"),
    "composer": _Field("TCOM", "\xa9wrt"),
    "grouping": _Field("TIT1", "\xa9grp"),
    "copyright": _Field("TCOP", "cprt"),
    "comment": _Field("COMM", "\xa9cmt"),
    "tracknumber": _Field("TRCK", "trkn", ("track",)),
    "discnumber": _Field("TPOS", "disk", ("disc",)),
    "bpm": _Field("TBPM", "tmpo", ("tempo", "wm/beatsperminute")),
    "initialkey": _Field(
        "TKEY", _FREE_FORM + "initialkey", ("key", "initial key", "initial_key", "wm/initialkey")
    ),
    "isrc": _Field("TSRC", _FREE_FORM + "ISRC", ("wm/isrc",)),
    "label": _Field("TPUB", _FREE_FORM + "LABEL", ("organization", "publisher", "wm/publisher")),
    "lyrics": _Field("USLT", "\xa9lyr", ("unsyncedlyrics", "syncedlyrics", "wm/lyrics")),
    "originaldate": _Field(
        "TDOR", _FREE_FORM + "ORIGINALDATE", ("originalyear", "wm/originalreleaseyear")
    ),
    "compilation": _Field("TCMP", "cpil", ("wm/iscompilation",)),
    "titlesort": _Field("TSOT", "sonm", ("sort_name",)),
    "artistsort": _Field("TSOP", "soar", ("sort_artist",)),
    "albumsort": _Field("TSOA", "soal", ("sort_album",)),
    "albumartistsort": _Field("TSO2", "soaa", ("sort_album_artist",)),
    "composersort": _Field("TSOC", "soco", ("sort_composer",)),
    "conductor": _Field("TPE3", _FREE_FORM + "CONDUCTOR", ("wm/conductor",)),
    "remixer": _Field("TPE4", _FREE_FORM + "REMIXER", ("mixartist", "wm/modifiedby")),
    "catalognumber": _Field(
        "TXXX:CATALOGNUMBER",
        _FREE_FORM + "CATALOGNUMBER",
        ("catalog number", "catalog_number", "labelno", "wm/catalogno"),
    ),
    "musicbrainz_trackid": _Field(
        _UFID, _FREE_FORM + "MusicBrainz Track Id", ("musicbrainz track id", "musicbrainz/track id")
    ),
    **{
        f"musicbrainz_{name.replace(' ', '')}id": _Field(
            f"TXXX:MusicBrainz {name.title()} Id",
            f"{_FREE_FORM}MusicBrainz {name.title()} Id",
            (f"musicbrainz {name} id", f"musicbrainz/{name} id"),
        )
        for name in (
            *("album", "artist", "album artist", "release group", "release track"),
            *("work", "disc"),
        )
    },
}
_TITLES = {"title", "titlesort"}
# Names of the totals; the first is written to Vorbis comments.
_TOTALS = {
    "tracknumber": ("tracktotal", "totaltracks", "total tracks", "track total"),
    "discnumber": ("disctotal", "totaldiscs", "total discs", "disc total"),
}
_ID3_MILLISECONDS = 2  # ID3's number for this unit of time
_ID3_LANGUAGE = "eng"  # ID3 requires one for comments and lyrics; other schemes have none
_MAX_LENGTH = 1e6  # seconds; a longer one is damaged
_MAX_PICTURE = 2**24 - 2**10  # bytes; a FLAC block's size has 24 bits
_MAX_RIFF = 2**32 - 2**26  # bytes; a larger WAV file is RF64, or has no room for tags


@dataclass
class Tags:
    """The common tags of a file, by their names in Vorbis comments, and its cover art.

    `languages` are those of the comment and the lyrics, if they are stated (ISO 639-2).
    """

    fields: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    languages: dict[str, str] = field(default_factory=dict)


def write_tags(
    tags: Tags,
    target_path: str | PathLike[str],
    *,
    format: str,
    title_suffix: str | None = None,
) -> bool:
    """Write tags to a file of any written format; return whether anything was written.

    False if `tags` is empty or the file cannot hold them.

    Args:
        tags: from `read_tags`.
        target_path: a finished file without tags; its name does not matter.
        format: of the target, a key of `FORMATS`.
        title_suffix: a title "Song" becomes "Song (title_suffix)".

    Raises:
        AudioError: the target could not be saved, and may be damaged now.
    """
    target = Path(target_path)
    if not (tags.fields or tags.pictures):
        return False
    if title_suffix is not None:
        titles = {name: tags.fields[name] for name in tags.fields.keys() & _TITLES}
        renamed = {n: [f"{title} ({title_suffix})" for title in titles[n]] for n in titles}
        tags = replace(tags, fields=tags.fields | renamed)
    scheme = FORMATS[format].tags
    if scheme is None:
        return False
    try:
        _WRITERS[scheme](target, tags)
    except Exception as error:
        # Text or pictures that a format cannot hold are rejected before anything is written.
        # mutagen wraps errors of the system, such as a full disk, in its own.
        with audio_errors(target, "cannot take tags", "check its folder and the free space"):
            for cause in (error, *error.args):
                if isinstance(cause, OSError):
                    raise cause from error
        return False
    return True


def remove_tags(path: Path) -> None:
    """Remove the tags and cover art of a file, so that `write_tags` can write others.

    Raises:
        AudioError: the file could not be saved.
    """
    with audio_errors(path, "cannot take tags", "check its folder and the free space"):
        try:
            file: Any = mutagen.File(path)
            if isinstance(file, FLAC):
                file.clear_pictures()
            if file is not None:
                file.delete()
        except mutagen.MutagenError as error:
            raise OSError(str(error)) from error


def read_chapters(path: Path) -> list[Any]:
    """Return the chapters of a file, as FFmpeg has them; none if they cannot be read."""
    try:
        with open_audio(path) as (container, _):
            return list(container.chapters())
    except Exception:  # as for tags
        return []


def read_fields(path: Path) -> dict[str, str]:
    """Return the first value of each common tag of a file, by its name in Vorbis comments."""
    return {name: values[0] for name, values in read_tags(path).fields.items() if values}


def read_length(path: Path) -> float | None:
    """Return the length in seconds that the header of a file states; None without one."""
    try:
        length = float(mutagen.File(path).info.length)
    except Exception:  # as for tags
        return None
    return length if 0 < length < _MAX_LENGTH else None


def read_tags(path: Path) -> Tags:
    """Return the tags of a file; none if they are damaged, and no pictures that are too large."""
    # Tags are often damaged, and never worth losing a stem for: any error means no tags.
    try:
        try:
            source: Any = mutagen.File(path)
        except mutagen.MutagenError:
            source = id3.ID3FileType(path)  # a tag before something that is not MP3
        tags = Tags()
        if source is not None and source.tags is not None:
            if isinstance(source.tags, id3.ID3):
                tags = _from_id3(source.tags)
            elif isinstance(source, MP4):
                tags = _from_mp4(source)
            elif isinstance(source, FLAC | OggFLAC | OggVorbis | OggOpus):
                tags = _from_vorbis(source)
        if not (tags.fields or tags.pictures):
            tags = _from_ffmpeg(path)
        tags.pictures = [p for p in tags.pictures if len(p.data) < _MAX_PICTURE]
        return tags
    except Exception:
        return Tags()


def _from_ffmpeg(path: Path) -> Tags:
    """Return the tags that only FFmpeg can read: WAV's INFO chunk, Matroska, WMA."""
    with open_audio(path) as (container, stream):
        found = {**stream.metadata, **container.metadata}
    return _known_fields({name: [text] for name, text in found.items()})


def _known_fields(found: Mapping[str, list[str]]) -> Tags:
    """Return the fields listed in `_FIELDS`; of several names for one, the first in its order."""
    lower = {name.lower(): values for name, values in found.items()}
    tags = Tags()
    for name, field_names in _FIELDS.items():
        for alias in (name, *field_names.aliases):
            values = [value for value in lower.get(alias, []) if value]
            if values:
                tags.fields.setdefault(name, values)
    for name, total_names in _TOTALS.items():
        number = tags.fields.get(name)
        total = next((lower[alias] for alias in total_names if any(lower.get(alias, []))), None)
        if number and total and "/" not in number[0]:
            tags.fields[name] = [f"{number[0]}/{total[0]}"]
    return tags


def _from_id3(source: Any) -> Tags:
    tags = _known_fields(
        {frame.desc: list(map(str, frame.text)) for frame in source.getall("TXXX")}
    )
    for name, field_names in _FIELDS.items():
        # Other programs store their own data in comments with a description.
        frames = source.getall(field_names.id3)
        frames = [f for f in frames if field_names.id3 != "COMM" or not f.desc]
        if name == "lyrics" and not frames:
            frames = source.getall("SYLT")
        values = [text for frame in frames for text in _texts(frame) if text]
        if values:
            tags.fields[name] = values
            if language := getattr(frames[0], "lang", None):
                tags.languages[name] = language
    for frame in source.getall("APIC"):
        tags.pictures.append(_picture(frame.data, frame.mime, frame.type))
    return tags


def _texts(frame: Any) -> list[str]:
    match frame.FrameID:
        case "TCON":
            return list(frame.genres)
        case "UFID":
            return [frame.data.decode("ascii", "ignore")]
        case "USLT":
            return [frame.text]
        case "SYLT":
            return [_lrc(frame)]
    return [str(text) for text in frame.text]


def _lrc(frame: Any) -> str:
    """Return synchronised lyrics in the LRC format of other schemes: lines "[mm:ss.xx]text"."""
    if frame.format != _ID3_MILLISECONDS:
        return "\n".join(text.strip() for text, _ in frame.text)
    lines = []
    for text, milliseconds in frame.text:
        minutes, hundredths = divmod(milliseconds // 10, 6_000)
        lines.append(f"[{minutes:02}:{hundredths / 100:05.2f}]{text.strip()}")
    return "\n".join(lines)


def _from_mp4(source: Any) -> Tags:
    free = {
        name.rpartition(":")[2]: [bytes(value).decode("utf-8") for value in values]
        for name, values in source.tags.items()
        if name.startswith("----:")
    }
    tags = _known_fields(free)
    for name, field_names in _FIELDS.items():
        stored = source.tags.get(field_names.mp4, [])
        values = [value for value in ([stored] if name == "compilation" else stored) if value]
        if field_names.mp4.startswith(_FREE_FORM) or not values:
            continue
        if name in _TOTALS:
            values = [f"{number}/{total}" if total else f"{number}" for number, total in values]
        if name == "compilation":
            values = ["1"]
        tags.fields[name] = [str(value) for value in values]
    for cover in source.tags.get("covr", []):
        is_png = cover.imageformat == MP4Cover.FORMAT_PNG
        tags.pictures.append(_picture(bytes(cover), "image/png" if is_png else "image/jpeg"))
    return tags


def _from_vorbis(source: Any) -> Tags:
    tags = _known_fields(source.tags.as_dict())
    if isinstance(source, FLAC):
        tags.pictures.extend(source.pictures)
    for encoded in source.tags.get("metadata_block_picture", []):
        tags.pictures.append(Picture(base64.b64decode(encoded)))
    return tags


def _picture(data: bytes, mime: str, kind: int = id3.PictureType.COVER_FRONT) -> Picture:
    picture = Picture()
    picture.data, picture.mime, picture.type = data, mime, kind
    return picture


def _fill_id3(target: Any, tags: Tags) -> None:
    utf8 = id3.Encoding.UTF8
    for name, values in tags.fields.items():
        frame, _, description = _FIELDS[name].id3.partition(":")
        make, language = getattr(id3, frame), tags.languages.get(name, _ID3_LANGUAGE)
        if name == "lyrics":
            target.add(make(encoding=utf8, text="\n\n".join(values), lang=language))
        elif name == "comment":
            target.add(make(encoding=utf8, text=values, lang=language))
        elif frame == "UFID":
            target.add(make(owner=description, data=values[0].encode("ascii")))
        elif frame == "TXXX":
            target.add(make(encoding=utf8, desc=description, text=values))
        else:
            target.add(make(encoding=utf8, text=values))
    for number, picture in enumerate(tags.pictures):
        # ID3 requires different descriptions; the first one is usually empty.
        target.add(
            id3.APIC(
                encoding=utf8,
                mime=picture.mime,
                type=picture.type,
                desc=str(number) if number else "",
                data=picture.data,
            )
        )


def _write_id3(path: Path, tags: Tags) -> None:
    target = id3.ID3()
    _fill_id3(target, tags)
    target.save(path)


def _write_riff(path: Path, tags: Tags) -> None:
    if path.stat().st_size > _MAX_RIFF:
        raise mutagen.MutagenError("no room for tags in a WAV file of 4 GB")
    target: Any = WAVE(path)
    target.add_tags()
    _fill_id3(target.tags, tags)
    target.save()


def _write_vorbis(path: Path, tags: Tags) -> None:
    target: Any = mutagen.File(path, [FLAC, OggVorbis, OggOpus])
    if target.tags is None:
        target.add_tags()
    for name, values in tags.fields.items():
        number, slash, total = values[0].partition("/")
        if name in _TOTALS and slash:
            target.tags[name], target.tags[_TOTALS[name][0]] = [number], [total]
        else:
            target.tags[name] = values

    if isinstance(target, FLAC):
        for picture in tags.pictures:
            target.add_picture(picture)
    else:
        target.tags["metadata_block_picture"] = [
            base64.b64encode(picture.write()).decode("ascii") for picture in tags.pictures
        ]
    target.save()


def _write_mp4(path: Path, tags: Tags) -> None:
    target: Any = MP4(path)
    if target.tags is None:
        target.add_tags()
    for name, values in tags.fields.items():
        atom = _FIELDS[name].mp4
        if (stored := _mp4_values(name, atom, values)) is not None:
            target.tags[atom] = stored
    image_formats = {"image/png": MP4Cover.FORMAT_PNG, "image/jpeg": MP4Cover.FORMAT_JPEG}
    target.tags["covr"] = [
        MP4Cover(picture.data, image_formats[picture.mime])
        for picture in tags.pictures
        if picture.mime in image_formats
    ]
    target.save()


def _mp4_values(name: str, atom: str, values: list[str]) -> Any:
    """Return the values for an atom as mutagen takes them; None if it cannot hold them."""
    if atom.startswith(_FREE_FORM):
        return [MP4FreeForm(value.encode("utf-8")) for value in values]
    if name == "compilation":
        return values[0].strip() not in ("0", "")
    if name not in (*_TOTALS, "bpm"):
        return values
    first, _, total = values[0].partition("/")
    with suppress(ValueError):
        if name == "bpm":
            return [round(float(first))]
        return [(int(first), int(total) if total.strip().isdecimal() else 0)]
    return None


_WRITERS: dict[TagScheme, Callable[[Path, Tags], None]] = {
    "id3": _write_id3,
    "riff": _write_riff,
    "vorbis": _write_vorbis,
    "mp4": _write_mp4,
}
