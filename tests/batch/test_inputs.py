import os
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from htdemucs import Library, OutputOptions, Separator
from htdemucs.batch import Track, find_tracks
from htdemucs.errors import AudioError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(*inputs, exclude=()):
    """Return the paths of the tracks, and the errors."""
    items = list(find_tracks(inputs, exclude))
    return (
        [track.path for track in items if isinstance(track, Track)],
        [str(error) for error in items if isinstance(error, AudioError)],
    )


def test_a_folder_gives_its_audio_files_in_order_with_their_folders(tmp_path):
    names = ["b.mp3", "a.FLAC", "cd1/x.wav", "cd2/deep/y.m4a", "notes.txt", ".hidden.mp3", "c.jpg"]
    touch(*(tmp_path / name for name in names), tmp_path / ".git" / "z.mp3")
    tracks = list(find_tracks([tmp_path]))
    assert [(t.path.name, t.folder) for t in tracks] == [
        ("a.FLAC", "."),
        ("b.mp3", "."),
        ("x.wav", "cd1"),
        ("y.m4a", "cd2/deep"),
    ]


def test_a_file_may_have_any_extension(tmp_path):
    touch(tmp_path / "song.bin")
    assert found(tmp_path / "song.bin") == ([tmp_path / "song.bin"], [])


def test_a_file_that_is_missing_is_an_error(tmp_path):
    assert found(tmp_path / "missing.mp3")[1] == [
        f"{tmp_path}/missing.mp3 does not exist; check the path"
    ]


@pytest.mark.parametrize("url", ["https://example.org/a.mp3?x=1", "s3://bucket/a.mp3"])
def test_urls_are_not_fetched(url):
    for word in (url, Path(url)):
        [error] = found(word)[1]
        assert error == (
            f"{url} is a URL, and URLs are not fetched; download the file and specify that"
        )


def test_every_file_is_found_once(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "b.mp3")
    (tmp_path / "c.mp3").symlink_to(tmp_path / "a.mp3")
    paths, _ = found(tmp_path / "b.mp3", tmp_path, tmp_path / "a.mp3")
    assert paths == [tmp_path / "b.mp3", tmp_path / "a.mp3"]


@pytest.mark.parametrize("order", [("a.mp3", "one.mp3"), ("one.mp3", "a.mp3"), None])
def test_a_file_comes_before_the_links_to_it(tmp_path, order):
    """Its stems get the name of the file, though the link is found first."""
    touch(tmp_path / "one.mp3")
    (tmp_path / "a.mp3").symlink_to("one.mp3")
    inputs = [tmp_path / name for name in order] if order else [tmp_path]
    assert found(*inputs)[0] == [tmp_path / "one.mp3"]
    assert found(tmp_path / "*.mp3")[0] == [tmp_path / "one.mp3"]
    assert found(tmp_path / "a.mp3")[0] == [tmp_path / "a.mp3"]


def test_links_in_circles_devices_and_dead_links_are_left_out(tmp_path):
    touch(tmp_path / "in" / "a.mp3")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "dead.mp3").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "self.mp3").symlink_to(tmp_path / "in" / "self.mp3")
    os.mkfifo(tmp_path / "in" / "pipe.mp3")
    for words in (tmp_path / "in", tmp_path / "in" / "*.mp3"):
        with pytest.warns(UserWarning, match=r"2 links to missing files left out, such as .*dead"):
            paths, errors = found(words)
        assert [path.name for path in paths] == ["a.mp3"]
        assert errors == []


def test_the_stems_folder_is_left_out(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "separated" / "mini" / "a" / "drums.wav")
    out = tmp_path / "separated"
    assert found(tmp_path, exclude=[out])[0] == [tmp_path / "a.mp3"]
    assert found(tmp_path / "**" / "*.*", exclude=[out])[0] == [tmp_path / "a.mp3"]
    assert len(found(tmp_path)[0]) == 2


def test_patterns_find_files(tmp_path, monkeypatch):
    touch(tmp_path / "a1.mp3", tmp_path / "a2.mp3", tmp_path / "b.mp3", tmp_path / "d" / "a3.mp3")
    assert [p.name for p in found(tmp_path / "a*.mp3")[0]] == ["a1.mp3", "a2.mp3"]
    assert [p.name for p in found(tmp_path / "**" / "a?.mp3")[0]] == ["a1.mp3", "a2.mp3", "a3.mp3"]
    monkeypatch.chdir(tmp_path)
    assert found("a[1].mp3")[0] == [Path("a1.mp3")]
    assert "matches no file" in found("z*.mp3")[1][0]


def test_a_name_with_brackets_that_exists_is_no_pattern(tmp_path):
    touch(tmp_path / "a [live].mp3", tmp_path / "a l.mp3")
    assert found(tmp_path / "a [live].mp3")[0] == [tmp_path / "a [live].mp3"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_playlists_give_their_tracks(tmp_path, encoding):
    touch(tmp_path / "lists" / "é.mp3", tmp_path / "b.mp3")
    lines = ["#EXTM3U", "#EXTINF:1,x", "é.mp3", "", "../b.mp3", str(tmp_path / "gone.mp3")]
    lines += ["http://radio/x.mp3", "other.m3u8", ".."]
    (tmp_path / "lists" / "l.m3u8").write_bytes("\r\n".join(lines).encode(encoding))
    paths, errors = found(tmp_path / "lists" / "l.m3u8")
    names = [path.name for path in paths]
    assert names == ["é.mp3", "b.mp3", "gone.mp3"]
    assert len(errors) == 3
    assert "download" in errors[0]


def test_words_without_tracks_are_reported_and_stop_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.m3u").write_text("# nothing")
    touch(tmp_path / "a.mp3")
    paths, errors = found(tmp_path / "empty", tmp_path / "empty.m3u", tmp_path / "a.mp3")
    assert paths == [tmp_path / "a.mp3"]
    assert "no audio files" in errors[0]
    assert "lists no tracks" in errors[1]
    assert all("\n" not in error for error in errors)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_reported(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "closed" / "b.mp3")
    (tmp_path / "closed").chmod(0)
    try:
        paths, errors = found(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert paths == [tmp_path / "a.mp3"]
    assert "closed" in errors[0]


@pytest.fixture
def earlier(tmp_path, write_song, tiny_model):
    """Return the one song of an album that also holds stems of another song, in a folder."""
    song = write_song(tmp_path / "album" / "song.wav")
    library = Library(tmp_path / "album" / "practice" / "stems")
    other = library.assign_output(Track(str(write_song(tmp_path / "elsewhere" / "other.wav", 2))))
    result = library.separate(other, Separator(tiny_model))
    assert result.status == "separated"
    return song


@pytest.mark.parametrize("word", [".", "**/*.wav"])
def test_stems_that_a_manifest_says_we_wrote_are_no_tracks(earlier, word):
    with pytest.warns(UserWarning, match="4 stems that htdemucs wrote earlier are left out"):
        assert found(earlier.parent / word)[0] == [earlier]
    earlier.unlink()
    assert "only stems" in found(earlier.parent / word)[1][0]


def test_stems_of_any_template_beside_songs_are_no_tracks(tmp_path, write_song, tiny_model):
    song = write_song(tmp_path / "song.wav")
    for template in ("{track}_{stem}.{ext}", "{stem}/{track}.{ext}"):
        library = Library(tmp_path, OutputOptions(filename=template))
        library.separate(library.assign_output(Track(str(song))), Separator(tiny_model))
    with pytest.warns(UserWarning, match="8 stems"):
        assert found(tmp_path)[0] == [song]


def test_a_stem_is_a_track_if_its_own_path_is_given(earlier):
    [stem] = (earlier.parent / "practice").rglob("vocals.wav")
    assert found(stem)[0] == [stem]


@pytest.mark.parametrize("word", [".", "*.mp3", "list.m3u8"])
def test_only_the_stems_own_folder_is_no_input(tmp_path, word):
    """The output folder may be the folder of the songs: `-o .`"""
    touch(tmp_path / "a.mp3", tmp_path / "mini" / "a" / "bass.mp3")
    (tmp_path / "list.m3u8").write_text("a.mp3\nmini/a/bass.mp3\n")
    assert found(tmp_path / word, exclude=[tmp_path, tmp_path / "mini"]) == (
        [tmp_path / "a.mp3"],
        [],
    )


@pytest.mark.parametrize("word", [".", "*/*/*.mp3", "list.m3u8"])
def test_nothing_to_do_is_never_silent(tmp_path, word):
    touch(tmp_path / "mini" / "a" / "bass.mp3")
    (tmp_path / "list.m3u8").write_text("mini/a/bass.mp3\n")
    paths, errors = found(tmp_path / word, exclude=[tmp_path, tmp_path / "mini"])
    assert paths == []
    assert len(errors) == 1


def test_stems_of_other_models_in_the_output_folder_are_no_tracks(tmp_path):
    """The published package leaves no manifest beside them."""
    touch(tmp_path / "a.mp3", tmp_path / "separated" / "mdx" / "b" / "bass.mp3")
    out = tmp_path / "separated"
    for word in (".", "**/*.mp3"):
        assert found(tmp_path / word, exclude=[out, out / "mini"]) == ([tmp_path / "a.mp3"], [])
    assert len(found(out / "mdx", exclude=[out, out / "mini"])[0]) == 1  # unless they are named


def test_a_home_folder_in_quotes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / "Music" / "a.mp3")
    assert found("~/Music")[0] == found("~/Music/*.mp3")[0] == [tmp_path / "Music" / "a.mp3"]


def test_brackets_of_folders_that_exist_are_no_pattern(tmp_path):
    touch(tmp_path / "Album [FLAC]" / "a.flac", tmp_path / "Album F" / "b.flac")
    touch(tmp_path / "x" / "Live [2]" / "c.flac")
    assert found(tmp_path / "Album [FLAC]" / "*.flac")[0] == [tmp_path / "Album [FLAC]" / "a.flac"]
    assert found(tmp_path / "Album [F]" / "*.flac")[0] == [tmp_path / "Album F" / "b.flac"]
    assert found(tmp_path / "*" / "Live [2]" / "*")[0] == [tmp_path / "x" / "Live [2]" / "c.flac"]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("Song%20One%20%23%20100%25.mp3", "Song One # 100%.mp3"),
        ("100%.mp3", "100%.mp3"),
        ("FILE", "a b é.mp3"),
        ("file://localhost/FILE", "x.mp3"),
        ("CD 1\\Song.mp3", "CD 1/Song.mp3"),
        (".\\Song.mp3", "Song.mp3"),
        ("CD%201\\S.mp3", "CD 1/S.mp3"),
        (unicodedata.normalize("NFD", "Café/Ü.mp3"), "Café/Ü.mp3"),
        ("Café.mp3", unicodedata.normalize("NFD", "Café.mp3")),
        ("music/SONG.MP3", "Music/song.mp3"),
        ("#1 Hit.mp3", "#1 Hit.mp3"),
        ("  a.mp3  ", "a.mp3"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_playlists_as_players_of_every_system_write_them(tmp_path, entry, name, encoding):
    touch(tmp_path / name)
    entry = entry.replace("localhost/FILE", f"localhost{quote(str(tmp_path / name))}")
    entry = entry.replace("FILE", (tmp_path / name).as_uri())
    lines = f"#EXTM3U\r\n#EXTINF:123,Artist - Title\r\n{entry}\r\n"
    (tmp_path / "list.m3u8").write_bytes(lines.encode(encoding))
    assert found(tmp_path / "list.m3u8") == ([tmp_path / name], [])


@pytest.mark.parametrize(
    ("name", "encoding"), [("Don’t.mp3", "cp1252"), ("歌曲.mp3", "gbk"), ("曲.mp3", "cp932")]
)
def test_playlists_in_older_encodings_are_read(tmp_path, name, encoding):
    touch(tmp_path / name)
    (tmp_path / "list.m3u").write_bytes(name.encode(encoding))
    assert found(tmp_path / "list.m3u")[0] == [tmp_path / name]


def test_a_playlist_may_hold_names_that_are_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"\xe9t\xe9.mp3")  # written by a system without Unicode
    touch(path)
    (tmp_path / "list.m3u").write_bytes(b"\xe9t\xe9.mp3\n")
    assert found(tmp_path / "list.m3u")[0] == [path]


NAMES = "aifc dff ts m2ts mts vob weba m4r 3g2 wave bwf rf64 voc shn mxf f4v asf ogm"


@pytest.mark.parametrize("name", NAMES.split())
def test_files_with_rare_extensions_are_found(tmp_path, name):
    touch(tmp_path / f"a.{name.upper()}")
    assert len(found(tmp_path)[0]) == 1
