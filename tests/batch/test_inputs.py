import os
from pathlib import Path, PurePath

import pytest

from htdemucs.batch import Track, find_tracks
from htdemucs.errors import AudioError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(*words, without=None):
    """Paths of the tracks, and messages of what leads nowhere."""
    made = list(find_tracks(words, without))
    return (
        [track.path for track in made if isinstance(track, Track)],
        [str(error) for error in made if isinstance(error, AudioError)],
    )


def test_a_folder_gives_its_audio_files_in_order_with_their_place(tmp_path):
    names = ["b.mp3", "a.FLAC", "cd1/x.wav", "cd2/deep/y.m4a", "notes.txt", ".hidden.mp3", "c.jpg"]
    touch(*(tmp_path / name for name in names), tmp_path / ".git" / "z.mp3")
    tracks = list(find_tracks([tmp_path]))
    assert [(t.path.name, t.folder) for t in tracks] == [
        ("a.FLAC", PurePath()),
        ("b.mp3", PurePath()),
        ("x.wav", PurePath("cd1")),
        ("y.m4a", PurePath("cd2/deep")),
    ]


def test_a_file_that_is_named_is_taken_whatever_it_is_called(tmp_path):
    touch(tmp_path / "song.bin")
    assert found(tmp_path / "song.bin", tmp_path / "missing") == (
        [tmp_path / "song.bin", tmp_path / "missing"],
        [],
    )


def test_every_file_once(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "b.mp3")
    (tmp_path / "c.mp3").symlink_to(tmp_path / "a.mp3")
    paths, _ = found(tmp_path / "b.mp3", tmp_path, tmp_path / "a.mp3")
    assert paths == [tmp_path / "b.mp3", tmp_path / "a.mp3"]


def test_links_in_circles_devices_and_dead_links(tmp_path):
    touch(tmp_path / "in" / "a.mp3")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "dead.mp3").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "self.mp3").symlink_to(tmp_path / "in" / "self.mp3")
    os.mkfifo(tmp_path / "in" / "pipe.mp3")
    paths, errors = found(tmp_path / "in")
    assert [path.name for path in paths] == ["a.mp3"]
    assert errors == []


def test_the_stems_folder_is_left_out(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "separated" / "mini" / "a" / "drums.wav")
    out = tmp_path / "separated"
    assert found(tmp_path, without=out)[0] == [tmp_path / "a.mp3"]
    assert found(tmp_path / "**" / "*.*", without=out)[0] == [tmp_path / "a.mp3"]
    assert len(found(tmp_path)[0]) == 2


def test_patterns(tmp_path, monkeypatch):
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
def test_playlists(tmp_path, encoding):
    touch(tmp_path / "lists" / "é.mp3", tmp_path / "b.mp3")
    lines = ["#EXTM3U", "#EXTINF:1,x", "é.mp3", "", "../b.mp3", str(tmp_path / "gone.mp3")]
    lines += ["http://radio/x.mp3", "other.m3u8", ".."]
    (tmp_path / "lists" / "l.m3u8").write_bytes("\r\n".join(lines).encode(encoding))
    paths, errors = found(tmp_path / "lists" / "l.m3u8")
    names = [path.name for path in paths]
    assert names == ["é.mp3", "b.mp3", "gone.mp3"]
    assert len(errors) == 3
    assert "download" in errors[0]


def test_what_leads_nowhere_is_told_and_stops_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.m3u").write_text("# nothing")
    touch(tmp_path / "a.mp3")
    paths, errors = found(tmp_path / "empty", tmp_path / "empty.m3u", tmp_path / "a.mp3")
    assert paths == [tmp_path / "a.mp3"]
    assert "no audio files" in errors[0]
    assert "lists no tracks" in errors[1]
    assert all("\n" not in error for error in errors)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(tmp_path):
    touch(tmp_path / "a.mp3", tmp_path / "closed" / "b.mp3")
    (tmp_path / "closed").chmod(0)
    try:
        paths, errors = found(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert paths == [tmp_path / "a.mp3"]
    assert "closed" in errors[0]
