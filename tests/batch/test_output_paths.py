"""The place of each track in the output folder."""

import errno
import os
from pathlib import Path

import pytest

from htdemucs import Separator
from htdemucs.batch import Library, Track, read_manifest


@pytest.fixture
def separator(tiny_model):
    return Separator(tiny_model, shifts=1)


@pytest.fixture
def song(tmp_path, write_song):
    return write_song(tmp_path / "music" / "song.flac")


def separate(lib, separator, path, folder=""):
    return lib.separate(lib.assign_output(Track(str(path), folder)), separator)


def stems_of(result):
    return {name: Path(path).read_bytes() for name, path in result.files.items()}


def test_tracks_of_the_same_name_get_different_places(separator, tmp_path, write_song):
    lib = Library(tmp_path / "out")
    paths = [
        write_song(tmp_path / "x" / "a.wav", 1),
        write_song(tmp_path / "y" / "a.flac", 2),
        write_song(tmp_path / "z" / "A.wav", 3),
    ]
    results = [separate(lib, separator, path) for path in paths]
    folders = [Path(result.manifest).parent.name for result in results]
    assert folders == ["a", "a (2)", "A (3)"]
    assert len({stems_of(result)["bass"] for result in results}) == 3


def test_folders_are_kept(separator, song, tmp_path):
    result = separate(Library(tmp_path / "out"), separator, song, "cd 1/x")
    assert Path(result.manifest) == tmp_path / "out" / "cd 1" / "x" / "song" / "htdemucs.json"


def test_a_track_of_the_same_name_from_elsewhere_gets_another_place(
    separator, tmp_path, write_song
):
    """This holds in a later run too: `separate a/song.wav -o out`, then `b/song.wav -o out`."""
    out = tmp_path / "out"
    first = write_song(tmp_path / "a" / "song.wav", 1)
    second = write_song(tmp_path / "b" / "song.wav", 2)
    before = stems_of(separate(Library(out), separator, first))
    result = separate(Library(out), separator, second)
    assert Path(result.manifest).parent.name == "song (2)"
    assert stems_of(result) != before
    for path, name in ((second, "song (2)"), (first, "song")):
        again = separate(Library(out), separator, path)
        assert again.status == "skipped"
        assert Path(again.manifest).parent.name == name
    third = write_song(tmp_path / "c" / "song.wav", 3)
    placed = [Library(out).assign_output(Track(str(path))) for path in (third, second, first)]
    assert [track.duplicate_index for track in placed] == [3, 2, 1]
    together = Library(out)
    placed = [together.assign_output(Track(str(path))) for path in (third, second, first)]
    assert [track.duplicate_index for track in placed] == [3, 2, 1]


def test_a_track_that_was_moved_or_changed_keeps_its_place(separator, song, tmp_path, write_song):
    out = tmp_path / "out"
    separate(Library(out), separator, song)
    moved = song.rename(tmp_path / "song.flac")
    assert separate(Library(out), separator, moved).status == "skipped"
    write_song(moved, seed=9)
    changed = separate(Library(out), separator, moved)
    assert changed.status == "separated"  # of the first path nothing is known: it may come back
    assert Path(changed.manifest).parent.name == "song (2)"
    write_song(moved, seed=10)
    again = separate(Library(out), separator, moved)
    assert (again.status, Path(again.manifest).parent.name) == ("separated", "song (2)")


def test_a_track_called_like_a_copy_has_a_place_of_its_own(separator, tmp_path, write_song):
    library = Library(tmp_path / "out")
    names = ("a/song.wav", "b/song (2).wav", "c/song.wav")
    paths = [write_song(tmp_path / name, seed) for seed, name in enumerate(names)]
    folders = [Path(separate(library, separator, path).manifest).parent.name for path in paths]
    assert folders == ["song", "song (2)", "song (3)"]


@pytest.fixture
def fat(tmp_path, monkeypatch):
    """Make all folders below tmp_path/out refuse the names that FAT and NTFS refuse."""
    mkdir, out = os.mkdir, tmp_path / "out"
    out.mkdir()

    def refuse(path, *arguments, **options):
        path = Path(path)
        unfit = set(path.name) & set('<>:"\\|?*') or path.name.rstrip(" .") != path.name
        if path.is_relative_to(out) and (unfit or path.name.lower() in ("con", "nul")):
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    return out


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("", "a:b?.wav", "a_b_"),
        ("", "con.wav", "_con"),
        ("x. /<y>", "What?.flac", "x/_y_/What_"),
        ("", "usual.wav", "usual"),
    ],
)
def test_names_that_the_file_system_refuses_are_made_fit(
    separator, tmp_path, write_song, fat, folder, name, expected
):
    song = write_song(tmp_path / "music" / name)
    result = separate(Library(fat), separator, song, folder)
    assert result.error is None
    assert Path(result.manifest) == fat / expected / "htdemucs.json"
    assert read_manifest(Path(result.manifest))["source"]["path"] == str(song)
    assert separate(Library(fat), separator, song, folder).status == "skipped"
    other = write_song(tmp_path / "music" / "two" / name.translate(str.maketrans(":?", "__")), 2)
    assert separate(Library(fat), separator, other, folder).status == "separated"
    assert not list(fat.rglob(".htdemucs-*"))


def test_other_file_systems_keep_unusual_names(separator, tmp_path, write_song):
    song = write_song(tmp_path / "music" / "a:b?.wav")
    result = separate(Library(tmp_path / "out"), separator, song, "c:d")
    assert Path(result.manifest).parent == tmp_path / "out" / "c:d" / "a:b?"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "out"]
