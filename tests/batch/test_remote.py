import pytest

from htdemucs.batch import remote
from htdemucs.errors import HTDemucsError, StorageError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    for name in ("b/one.flac", "b/two.wav", "b/cd 2/one.flac", "other/three.flac"):
        files.pipe_file(name, name.encode())
    return "memory://b"


@pytest.fixture
def folder(tmp_path):
    for name in ("one.flac", "two.wav", "cd 2/one.flac"):
        path = tmp_path / "b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"b/{name}".encode())
    return f"file://{tmp_path}/b"


@pytest.mark.parametrize("fixture", ["bucket", "folder"])
def test_files_below_a_url_are_listed(fixture, request):
    url = request.getfixturevalue(fixture)
    files = remote.list_files(url)
    assert [file.url for file in files] == [
        f"{url}/{name}" for name in ("cd 2/one.flac", "one.flac", "two.wav")
    ]
    assert files[0] == remote.stat(f"{url}/cd 2/one.flac")
    assert (files[0].bytes, bool(files[0].version)) == (len("b/cd 2/one.flac"), True)
    assert remote.list_files(f"{url}/one.flac") == [files[1]]
    assert remote.file_sizes(url) == {"one.flac": 10, "two.wav": 9}
    assert remote.list_files(f"{url}/nothing") == []


@pytest.mark.parametrize("fixture", ["bucket", "folder"])
def test_files_are_downloaded_and_uploaded(fixture, request, tmp_path):
    url = request.getfixturevalue(fixture)
    path = tmp_path / "here" / "copy"
    remote.download(f"{url}/one.flac", path)
    assert path.read_bytes() == b"b/one.flac"
    path.write_bytes(b"new")
    target = f"{url}/new/folder/x"
    remote.upload(path, target)
    assert remote.read_bytes(target, 100) == b"new"
    assert remote.read_bytes(target, 2) is None
    assert remote.read_bytes(f"{target}y", 100) is None
    assert remote.file_sizes(f"{url}/nowhere") == {}
    before = remote.stat(target)
    path.write_bytes(b"newer")
    remote.upload(path, target)
    assert remote.stat(target) != before
    remote.check_writable(f"{url}/also")
    assert remote.file_sizes(f"{url}/also") == {}


def test_a_failed_download_leaves_nothing(bucket, tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        remote.download(f"{bucket}/zzz.flac", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: remote.stat("memory://b/zzz"), "does not exist"),
        (lambda: remote.stat("memory://b/cd 2"), "is a folder"),
        (lambda: remote.stat("zzz://b/x"), "Protocol not known"),
        (lambda: remote.list_files("file:///proc/1/fd/x\0"), "cannot be listed"),
        (lambda: remote.check_writable("file:///proc/nothing"), "cannot be written"),
        (lambda: remote.check_writable("/proc/nothing"), "cannot be written"),
    ],
)
def test_failures_are_one_line(bucket, call, match):
    with pytest.raises(HTDemucsError, match=match) as failure:
        call()
    assert "\n" not in str(failure.value)


def test_a_missing_package_is_named(monkeypatch):
    import fsspec.core

    def fail(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(StorageError, match="pip install gcsfs"):
        remote.stat("gs://bucket/song.flac")


def test_urls_are_told_from_paths_and_have_names():
    assert remote.is_url("s3://b/x")
    assert not remote.is_url("/home/a://b")
    assert not remote.is_url("C:\\music")
    assert remote.name("s3://b/a b?.flac") == "a b?.flac"
    assert remote.name("https://h/a%20b.flac?key=1") == "a b.flac"
    assert remote.join("s3://b/", "c/d") == "s3://b/c/d"
