"""`htdemucs batch` from one S3 bucket to another, on a local S3 server."""

import os

import pytest
from click.testing import CliRunner

from htdemucs import save_model
from htdemucs.batch import ray_cluster, remote
from htdemucs.cli.main import cli
from htdemucs.errors import StorageError

pytest.importorskip("ray")
pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def buckets(monkeypatch, tmp_path, write_song):
    import fsspec

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3").clear_instance_cache()
    files = fsspec.filesystem("s3")
    for bucket in ("music", "stems"):
        files.makedirs(bucket, exist_ok=True)  # all of moto's servers share their buckets
    for seed, name in enumerate(("one.flac", "cd 2/two.wav")):
        song = write_song(tmp_path / "album" / name, seed)
        files.put_file(str(song), f"music/albums/{name}")
    files.pipe_file("music/albums/broken.flac", b"nothing")
    yield files
    server.stop()
    files.clear_instance_cache()


@pytest.mark.slow
def test_from_bucket_to_bucket(buckets, tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "tiny")

    def run(command, *words):
        common = ("-n", tmp_path / "tiny", "-d", "cpu", "--stems", "bass,drums")
        return CliRunner().invoke(cli, [str(word) for word in (command, *words, *common)])

    def batch():
        return run("batch", "s3://music/albums", "s3://stems/out", "--scratch", tmp_path / "s")

    run("separate", tmp_path / "album", "-o", tmp_path / "out")
    expected = {
        f"stems/out/{path.relative_to(tmp_path / 'out')}": path.read_bytes()
        for path in (tmp_path / "out").rglob("*.wav")
    }
    with ray_cluster.session(None):
        first = batch()
        assert first.exit_code == 1, first.output
        assert "3 tracks: 2 separated, 1 failed" in first.stderr
        assert "s3://music/albums/broken.flac contains no audio samples" in first.stderr
        written = {path: buckets.cat_file(path) for path in buckets.find("stems") if ".wav" in path}
        assert written == expected
        buckets.rm_file("stems/out/tiny/one/bass.wav")
        assert "1 separated, 1 skipped, 1 failed" in batch().stderr
        assert (
            buckets.cat_file("stems/out/tiny/one/bass.wav")
            == expected["stems/out/tiny/one/bass.wav"]
        )
    assert buckets.exists("stems/out/results.parquet")
    assert not list((tmp_path / "s").iterdir())


def test_errors_of_s3_are_one_line(buckets, monkeypatch):
    with pytest.raises(StorageError, match="does not exist"):
        remote.list_files("s3://nobody/x")
    with pytest.raises(StorageError, match="cannot be written"):
        remote.check_writable("s3://nobody/x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", os.devnull)
    buckets.clear_instance_cache()
    with pytest.raises(StorageError, match=r"credentials\); check the URL and your credentials"):
        remote.list_files("s3://music/albums")
