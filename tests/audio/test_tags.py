import struct
import zlib

import mutagen
import pytest
from mutagen import id3
from mutagen.asf import ASF
from mutagen.flac import FLAC, Picture
from mutagen.mp4 import MP4
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE
from mutagen.wavpack import WavPack

from htdemucs.audio import AudioEncoding, read_tags, write_tags
from htdemucs.errors import AudioError
from htdemucs.formats import FORMATS

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
    "bpm": ["128"],
    "initialkey": ["8A"],
    "isrc": ["GBAYE6800011"],
    "label": ["Label & Söhne"],
    "lyrics": ["[00:01.00]One line\nand another"],
    "originaldate": ["1968-08-30"],
    "compilation": ["1"],
    "titlesort": ["Song 歌"],
    "artistsort": ["1"],
    "albumsort": ["Album, The"],
    "albumartistsort": ["Others"],
    "composersort": ["Who, The"],
    "conductor": ["Herbert"],
    "remixer": ["Mixer"],
    "catalognumber": ["CAT 001"],
    "musicbrainz_trackid": ["11111111-2222-3333-4444-555555555555"],
    "musicbrainz_albumid": ["21111111-2222-3333-4444-555555555555"],
    "musicbrainz_artistid": ["31111111-2222-3333-4444-555555555555"],
    "musicbrainz_albumartistid": ["41111111-2222-3333-4444-555555555555"],
    "musicbrainz_releasegroupid": ["51111111-2222-3333-4444-555555555555"],
    "musicbrainz_releasetrackid": ["61111111-2222-3333-4444-555555555555"],
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
    found = read_tags(path)
    return found.fields, [(picture.mime, picture.data) for picture in found.pictures]


def copy_tags(source, target, **options):
    return write_tags(read_tags(source), target, **options)


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
    titles = {"title": ["Söng 歌 (vocals)"], "titlesort": ["Song 歌 (vocals)"]}
    assert fields == FIELDS | titles
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
            frames = {"TBPM": "128", "TKEY": "8A", "TSRC": "GBAYE6800011", "TCMP": "1"}
            assert {frame: tags[frame].text[0] for frame in frames} == frames
            assert tags["TPUB"].text == FIELDS["label"]
            assert tags["USLT::eng"].text == FIELDS["lyrics"][0]
        elif name == "m4a":
            assert tags["\xa9ART"] == ["One", "Two"]
            assert tags["trkn"] == [(3, 12)]
            assert tags["tmpo"] == [128]
            assert tags["cpil"] is True
            assert tags["\xa9lyr"] == FIELDS["lyrics"]
            assert tags["----:com.apple.iTunes:initialkey"] == [b"8A"]
            assert tags["----:com.apple.iTunes:ISRC"] == [b"GBAYE6800011"]
            assert tags["----:com.apple.iTunes:LABEL"] == ["Label & Söhne".encode()]
        else:
            assert (tags["tracknumber"], tags["tracktotal"]) == (["3"], ["12"])
            assert (tags["bpm"], tags["initialkey"], tags["isrc"]) == (
                ["128"],
                ["8A"],
                ["GBAYE6800011"],
            )
            assert tags["label"] == FIELDS["label"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("KEY", "initialkey"),
        ("ORGANIZATION", "label"),
        ("PUBLISHER", "label"),
        ("UNSYNCEDLYRICS", "lyrics"),
        ("SYNCEDLYRICS", "lyrics"),
        ("ALBUM ARTIST", "albumartist"),
    ],
)
def test_names_of_other_programs_are_known(tmp_path, encoded, theirs, ours):
    expected = {ours: ["x"]}
    vorbis, mp3, mp4 = (tmp_path / name for name in ("a.flac", "a.mp3", "a.m4a"))
    vorbis.write_bytes(encoded["flac"])
    audio = FLAC(vorbis)
    audio.tags[theirs] = "x"
    audio.save()
    mp3.write_bytes(encoded["mp3"])
    frames = id3.ID3()
    frames.add(id3.TXXX(desc=theirs, text=["x"]))
    frames.save(mp3)
    mp4.write_bytes(encoded["m4a"])
    atoms = MP4(mp4)
    atoms["----:com.apple.iTunes:" + theirs] = [b"x"]
    atoms.save()
    assert [read(path)[0] for path in (vorbis, mp3, mp4)] == [expected] * 3


def test_a_label_of_two_names_is_copied_once(tmp_path, encoded):
    path = tmp_path / "a.flac"
    path.write_bytes(encoded["flac"])
    audio = FLAC(path)
    audio["publisher"], audio["label"] = "Publisher", "Label"
    audio.save()
    assert read(path)[0] == {"label": ["Label"]}


def test_synchronised_lyrics_become_lines_with_times(tmp_path, encoded):
    path = tmp_path / "a.mp3"
    path.write_bytes(encoded["mp3"])
    frames = id3.ID3()
    lines = [("One line", 1_000), ("\nand another", 62_345)]
    frames.add(id3.SYLT(encoding=3, lang="eng", format=2, type=1, text=lines))
    frames.save(path)
    assert read(path)[0] == {"lyrics": ["[00:01.00]One line\n[01:02.34]and another"]}


@pytest.mark.parametrize(("bpm", "stored"), [("127.6", [128]), ("fast", None), ("0128", [128])])
def test_mp4_holds_whole_beats_per_minute(tmp_path, encoded, bpm, stored):
    source, path = tmp_path / "a.flac", tmp_path / "a.m4a"
    source.write_bytes(encoded["flac"])
    audio = FLAC(source)
    audio["bpm"], audio["title"] = bpm, "Song"
    audio.save()
    path.write_bytes(encoded["m4a"])
    assert copy_tags(source, path, format="m4a")
    assert MP4(path).tags.get("tmpo") == stored


def test_numbers_that_mp4_leaves_at_zero_are_no_tags(tmp_path, encoded):
    path = tmp_path / "a.m4a"
    path.write_bytes(encoded["m4a"])
    atoms = MP4(path)
    atoms["tmpo"], atoms["cpil"], atoms["\xa9nam"] = [0], False, "Song"
    atoms.save()
    assert read(path)[0] == {"title": ["Song"]}


def test_id3_tags_before_another_format_are_read(tmp_path, encoded):
    path, source = tmp_path / "a.wav", tmp_path / "tag"
    frames = id3.ID3()
    frames.add(id3.TIT2(encoding=3, text=["Song"]))
    frames.save(source)
    path.write_bytes(source.read_bytes() + encoded["wav"])
    assert read(path)[0] == {"title": ["Song"]}


def test_tags_of_wavpack_and_windows_media_are_read(tmp_path, noise, make_media):
    fields = {"bpm": ["128"], "initialkey": ["8A"], "isrc": ["X"], "label": ["L"], "lyrics": ["la"]}
    wavpack = make_media(tmp_path / "a.wv", "wavpack", [noise(4_000)])
    apev2 = WavPack(wavpack)
    for name, values in fields.items():
        apev2[name.upper()] = values
    apev2.save()
    asf = ASF(make_media(tmp_path / "a.wma", "wmav2", [noise(40_000)], bit_rate=64_000))
    asf["WM/BeatsPerMinute"], asf["WM/InitialKey"], asf["WM/ISRC"] = "128", "8A", "X"
    asf["WM/Publisher"], asf["WM/Lyrics"] = "L", "la"
    asf.save()
    assert read(wavpack)[0] == fields
    assert read(tmp_path / "a.wma")[0] == fields


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


@pytest.mark.parametrize("target", FORMATS)
def test_totals_in_comments_of_their_own_are_kept(tmp_path, encoded, target):
    source, path = tmp_path / "source.flac", tmp_path / "target"
    source.write_bytes(encoded["flac"])
    audio = FLAC(source)
    audio.tags["tracknumber"], audio.tags["totaltracks"] = ["3"], ["12"]
    audio.tags["discnumber"], audio.tags["totaldiscs"] = ["1"], ["2"]
    audio.save()
    path.write_bytes(encoded[target])
    assert write_tags(read_tags(source), path, format=target)
    fields = read_tags(path).fields
    assert (fields["tracknumber"], fields["discnumber"]) == (["3/12"], ["1/2"])


@pytest.mark.parametrize("target", ["mp3", "wav"])
def test_the_languages_of_comment_and_lyrics_are_kept(tmp_path, encoded, target):
    source, path = tmp_path / "source.mp3", tmp_path / "target"
    source.write_bytes(encoded["mp3"])
    tags = id3.ID3()
    tags.add(id3.COMM(encoding=3, lang="deu", text=["Schön"]))
    tags.add(id3.USLT(encoding=3, lang="fra", text="Été"))
    tags.save(source)
    path.write_bytes(encoded[target])
    assert write_tags(read_tags(source), path, format=target)
    assert read_tags(path).languages == {"comment": "deu", "lyrics": "fra"}
