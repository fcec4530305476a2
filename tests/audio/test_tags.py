import struct
import zlib

import mutagen
import pytest
from mutagen import id3
from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from htdemucs.audio import FORMATS, AudioEncoding, copy_tags
from htdemucs.audio import tags as tags_module
from htdemucs.errors import AudioError

KINDS = {"wav": WAVE, "flac": FLAC, "mp3": id3.ID3, "ogg": OggVorbis, "opus": OggOpus, "m4a": MP4}
FIELDS = {
    "title": ["Söng 歌"],
    "artist": ["One", "Two"],
    "album": ["Album"],
    "albumartist": ["Several"],
    "date": ["2021-03-04"],
    "genre": ["Rock"],
    "composer": ["Who"],
    "comment": ["No comment"],
    "tracknumber": ["3/12"],
    "discnumber": ["1/2"],
}


def png():
    """A picture of one pixel."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\xff\0\0")),
        (b"IEND", b""),
    ):
        data += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    return data


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, noise, store):
    """The bytes of a short file in each format, without tags."""
    folder = tmp_path_factory.mktemp("encoded")
    return {
        name: store(folder / "a", noise(4_000), AudioEncoding(name)).read_bytes()
        for name in FORMATS
    }


@pytest.fixture
def tagged(tmp_path, encoded):
    """Make a FLAC file with all tags and a cover, and loudness tags that must not be copied."""
    path = tmp_path / "tagged.flac"
    path.write_bytes(encoded["flac"])
    audio = FLAC(path)
    for name, values in FIELDS.items():
        audio.tags[name] = values
    audio.tags["replaygain_track_gain"] = "-7.0 dB"
    picture = Picture()
    picture.data, picture.mime, picture.type = png(), "image/png", id3.PictureType.COVER_FRONT
    audio.add_picture(picture)
    audio.save()
    return path


def read(path):
    found = tags_module._read(path)
    return found.fields, [(picture.mime, picture.data) for picture in found.pictures]


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_tags_and_cover_go_from_every_format_to_every_format(
    tmp_path, encoded, tagged, load, source, target
):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(encoded[source])
    second.write_bytes(encoded[target])
    samples = load(second)
    assert copy_tags(tagged, first, format=source)
    assert copy_tags(first, second, format=target, title_suffix="vocals")
    fields, pictures = read(second)
    assert fields == FIELDS | {"title": ["Söng 歌 (vocals)"]}
    assert pictures == [("image/png", png())]
    assert b"replaygain" not in second.read_bytes().lower()
    assert load(second).equal(samples)


def test_other_programs_find_the_tags_where_they_look(tmp_path, encoded, tagged):
    for name, kind in KINDS.items():
        path = tmp_path / "a"
        path.write_bytes(encoded[name])
        copy_tags(tagged, path, format=name)
        tags = kind(path)
        if name in ("wav", "mp3"):
            assert tags["TIT2"].text == FIELDS["title"]
            assert tags["TRCK"].text == ["3/12"]
        elif name == "m4a":
            assert tags["\xa9ART"] == ["One", "Two"]
            assert tags["trkn"] == [(3, 12)]
        else:
            assert (tags["tracknumber"], tags["tracktotal"]) == (["3"], ["12"])


@pytest.mark.parametrize("target", FORMATS)
def test_without_tags_nothing_changes(tmp_path, encoded, target):
    source, path = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded["flac"])
    path.write_bytes(encoded[target])
    assert not copy_tags(source, path, format=target, title_suffix="vocals")
    assert path.read_bytes() == encoded[target]


def test_a_suffix_needs_a_title(tmp_path, encoded):
    source, path = tmp_path / "source", tmp_path / "target"
    source.write_bytes(encoded["flac"])
    audio = FLAC(source)
    audio.tags["artist"] = "One"
    audio.save()
    path.write_bytes(encoded["mp3"])
    assert copy_tags(source, path, format="mp3", title_suffix="vocals")
    assert read(path) == ({"artist": ["One"]}, [])


def test_info_chunks_of_wav_files_are_read(tmp_path, encoded):
    source, path = tmp_path / "source.wav", tmp_path / "target"
    info = b"INFO" + struct.pack("<4sI", b"INAM", 4) + b"Song"
    info += struct.pack("<4sI", b"IART", 4) + b"Who\0"
    data = encoded["wav"] + struct.pack("<4sI", b"LIST", len(info)) + info
    source.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    path.write_bytes(encoded["flac"])
    assert copy_tags(source, path, format="flac", title_suffix="bass")
    assert read(path)[0] == {"title": ["Song (bass)"], "artist": ["Who"]}


@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 100, b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(50)]
)
def test_broken_sources_give_false(tmp_path, encoded, content):
    source, path = tmp_path / "source.mp3", tmp_path / "target"
    source.write_bytes(content)
    path.write_bytes(encoded["wav"])
    assert not copy_tags(source, path, format="wav")
    assert not copy_tags(tmp_path / "missing", path, format="wav")
    assert path.read_bytes() == encoded["wav"]


def test_damaged_tags_never_raise(tmp_path, encoded, tagged):
    path, target = tmp_path / "a", tmp_path / "target"
    for name in FORMATS:
        path.write_bytes(encoded[name])
        copy_tags(tagged, path, format=name)
        data = path.read_bytes()
        for position in range(0, min(len(data), 1_500), 37):
            path.write_bytes(data[:position] + b"\xff\0\x7f\xff" + data[position + 4 :])
            target.write_bytes(encoded["flac"])
            copy_tags(path, target, format="flac")


def test_pictures_too_large_for_flac_are_left_out(tmp_path, encoded, tagged):
    audio = id3.ID3()
    audio.add(id3.TIT2(text=["Song"]))
    audio.add(id3.APIC(mime="image/jpeg", type=3, data=bytes(2**24)))
    source, path = tmp_path / "source.mp3", tmp_path / "target"
    source.write_bytes(encoded["mp3"])
    audio.save(source)
    path.write_bytes(encoded["flac"])
    assert copy_tags(source, path, format="flac")
    assert read(path) == ({"title": ["Song"]}, [])


def test_a_target_that_cannot_hold_tags_gives_false(tmp_path, tagged):
    path = tmp_path / "target"
    path.write_bytes(b"not an audio file")
    for name in ("wav", "flac", "ogg", "opus", "m4a"):
        assert not copy_tags(tagged, path, format=name)


def test_a_full_disk_is_an_audio_error(tmp_path, encoded, tagged, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "target"
    path.write_bytes(encoded["flac"])
    monkeypatch.setattr(mutagen._util, "insert_bytes", full)
    monkeypatch.setattr("mutagen.flac.resize_bytes", full)
    with pytest.raises(AudioError, match=r"cannot take tags .*No space left"):
        copy_tags(tagged, path, format="flac")
