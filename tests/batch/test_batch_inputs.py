import pytest

from htdemucs.batch import Track
from htdemucs.batch.inputs import find_batch_tracks
from htdemucs.errors import HTDemucsError, StorageError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    for name in ("one.flac", "cd 2/one.mp3", "cover.jpg", ".x/one.flac", "out/m/one/bass.wav"):
        files.pipe_file(f"b/{name}", name.encode())
    return "memory://b"


def found(source, exclude="/nowhere", column=None):
    return list(find_batch_tracks(str(source), [exclude], column))


def locations(source, **options):
    return [(track.location, track.folder) for track in found(source, **options)]


def test_a_local_folder_gives_its_tracks(tmp_path, write_song):
    write_song(tmp_path / "a" / "x.wav")
    write_song(tmp_path / "a" / "b" / "y.wav")
    assert locations(tmp_path / "a") == [
        (str(tmp_path / "a" / "x.wav"), "."),
        (str(tmp_path / "a" / "b" / "y.wav"), "b"),
    ]
    assert locations(f"{tmp_path}/a/*.wav") == [(str(tmp_path / "a" / "x.wav"), "")]


def test_a_bucket_gives_its_tracks(bucket):
    tracks = found(bucket, exclude="memory://b/out")
    assert [(track.location, track.folder) for track in tracks] == [
        ("memory://b/cd 2/one.mp3", "cd 2"),
        ("memory://b/one.flac", "."),
    ]
    assert tracks[1].remote_file.bytes == 8
    assert tracks[0].path.name == "one.mp3"
    assert tracks[0].folder == "cd 2"
    [track] = found("memory://b/cover.jpg")  # a file is tried if its own URL is given
    assert (track.location, track.folder) == ("memory://b/cover.jpg", "")


def test_a_list_gives_its_tracks(tmp_path):
    lines = ["# a comment", "a.flac", "/music/b.flac", "", " s3://b/c.flac ", "a.flac"]
    (tmp_path / "tracks.txt").write_text("\r\n".join(lines), encoding="utf-8-sig")
    expected = [f"{tmp_path}/a.flac", "/music/b.flac", "s3://b/c.flac"]
    assert found(tmp_path / "tracks.txt") == [Track(path) for path in expected]


def test_paths_in_a_remote_list_are_relative_to_it(bucket):
    fsspec.filesystem("memory").pipe_file("b/lists/tracks.txt", b"a.flac\n/music/b.flac\n")
    paths = [track.location for track in found("memory://b/lists/tracks.txt")]
    assert paths == ["memory://b/lists/a.flac", "/music/b.flac"]


def test_a_table_gives_the_tracks_in_its_column(tmp_path, bucket):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"path": ["a.flac", None, "s3://b/c.flac"], "other": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "t.parquet")
    first, second, third = found(tmp_path / "t.parquet")
    assert (first, third) == (Track(f"{tmp_path}/a.flac"), Track("s3://b/c.flac"))
    assert "row 2 names no track" in str(second)
    (tmp_path / "many").mkdir()
    for name in ("2", "1"):
        part = pyarrow.table({"file": [f"/{name}.flac"]})
        parquet.write_table(part, tmp_path / "many" / f"{name}.parquet")
    assert found(tmp_path / "many", column="file") == [Track("/1.flac"), Track("/2.flac")]
    with fsspec.open("memory://b/t.parquet", "wb") as file:
        parquet.write_table(table.slice(0, 1), file)
    assert found("memory://b/t.parquet") == [Track("memory://b/a.flac")]
    with pytest.raises(StorageError, match="no column zzz; its columns are path, other"):
        found(tmp_path / "t.parquet", column="zzz")


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("nothing.txt", None, "cannot be read"),
        ("empty.txt", b"# none\n", "lists no tracks"),
        ("bad.parquet", b"no parquet", "cannot be read as Parquet"),
        ("nothing.parquet", None, "cannot be read as Parquet"),
    ],
)
def test_a_source_that_cannot_be_read_is_reported_in_one_line(tmp_path, name, data, match):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(HTDemucsError, match=match) as failure:
        found(tmp_path / name)
    assert "\n" not in str(failure.value)


def test_a_missing_track_is_an_error(tmp_path):
    [error] = found(tmp_path / "nothing.flac")
    assert "does not exist" in str(error)


def test_a_bucket_exclude_music_is_an_error(bucket):
    with pytest.raises(StorageError, match="holds no audio files"):
        found("memory://b/out/m/zzz")
