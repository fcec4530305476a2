import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from htdemucs import fsutil
from htdemucs.audio import SampleCache
from htdemucs.errors import AudioError


def test_blocks_come_back_exactly_and_again(tmp_path, noise):
    waveform = noise(10_000)
    with SampleCache(tmp_path / "new", 2) as cache:
        for block in waveform.tensor_split([0, 17, 4_000, 4_000], dim=1):
            cache.write(block)
        for block_length in (999, 10_000, 20_000):
            blocks = list(cache.blocks(block_length))
            assert all(block.shape == (2, block_length) for block in blocks[:-1])
            assert torch.equal(torch.cat(blocks, dim=1), waveform)
        assert cache.length == 10_000


def test_reading_and_writing_may_alternate(tmp_path, noise):
    waveform = noise(300)
    with SampleCache(tmp_path, 2) as cache:
        cache.write(waveform[:, :100])
        first, second = cache.blocks(60), cache.blocks(50)
        assert torch.equal(next(first), waveform[:, :60])
        assert torch.equal(next(second), waveform[:, :50])
        cache.write(waveform[:, 100:])
        assert torch.equal(next(first), waveform[:, 60:100])
        assert torch.equal(torch.cat(list(cache.blocks(128)), dim=1), waveform)


def test_non_finite_samples_are_kept(tmp_path):
    samples = torch.tensor([[0.5, float("nan"), float("-inf"), -2.0]])
    with SampleCache(tmp_path, 1) as cache:
        cache.write(samples)
        [block] = cache.blocks(10)
    assert torch.equal(block.isnan(), samples.isnan())
    assert block[0, 2] == float("-inf")


def test_the_file_goes_with_the_cache(tmp_path, noise):
    def interrupted():
        with SampleCache(tmp_path, 2) as cache:
            cache.write(noise(1_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_an_unusable_folder_is_an_audio_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match="cannot hold temporary files"):
        SampleCache(tmp_path / "file", 2)


def test_blocks_must_have_its_channels(tmp_path):
    with (
        SampleCache(tmp_path, 2) as cache,
        pytest.raises(AudioError, match="has 1 channels, not 2"),
    ):
        cache.write(torch.zeros(1, 5))


def test_a_named_cache_goes_on_under_its_key(tmp_path, noise):
    waveform, path = noise(1_000), tmp_path / "new" / "x.work"
    with SampleCache.open(path, 2, "key") as cache:
        assert cache.length == 0
        cache.write(waveform[:, :700])
    for torn in (b"", b"\x01", b"\x01" * 7):  # what a killed process may leave of a frame
        with path.open("ab") as file:
            file.write(torn)
        with SampleCache.open(path, 2, "key") as cache:
            assert cache.length == 700
            assert torch.equal(torch.cat(list(cache.blocks(99)), dim=1), waveform[:, :700])
    with SampleCache.open(path, 2, "key") as cache:
        cache.write(waveform[:, 700:])
        assert torch.equal(torch.cat(list(cache.blocks(640)), dim=1), waveform)


@pytest.mark.parametrize("other", ["kez", "k", "longer key", ""])
def test_a_named_cache_of_another_key_starts_anew(tmp_path, noise, other):
    path = tmp_path / "x.work"
    with SampleCache.open(path, 2, "key") as cache:
        cache.write(noise(50))
    with SampleCache.open(path, 2, other) as cache:
        assert cache.length == 0
        assert list(cache.blocks(10)) == []


def test_a_named_cache_belongs_to_one_at_a_time(tmp_path):
    path = tmp_path / "x.work"
    with SampleCache.open(path, 2, "key"), pytest.raises(AudioError, match="another htdemucs"):
        SampleCache.open(path, 2, "key")
    SampleCache.open(path, 2, "key").close()


def test_opening_a_cache_that_has_just_been_made_loses_nothing(tmp_path, noise, monkeypatch):
    path, waveform = tmp_path / "x.work", noise(100)
    with SampleCache.open(path, 2, "key") as cache:
        cache.write(waveform)
        with monkeypatch.context() as patch:  # whoever looks, looked before it was made
            patch.setattr(Path, "exists", lambda *_, **__: False)
            with pytest.raises(AudioError, match="another htdemucs"):
                SampleCache.open(path, 2, "key")
        assert torch.equal(torch.cat(list(cache.blocks(99)), dim=1), waveform)


def test_a_cache_deleted_between_opening_and_locking_is_opened_anew(tmp_path, noise, monkeypatch):
    path, turns = tmp_path / "x.work", []

    def lock(file):
        turns.append(file)
        if len(turns) == 1:
            path.unlink()
        return files_lock(file)

    files_lock = fsutil.lock
    monkeypatch.setattr(fsutil, "lock", lock)
    with SampleCache.open(path, 2, "key") as cache:
        cache.write(noise(100))
        with pytest.raises(AudioError, match="another htdemucs"):
            SampleCache.open(path, 2, "key")
    with SampleCache.open(path, 2, "key") as cache:
        assert cache.length == 100
        cache.delete()
    assert not path.exists()


def test_where_open_files_cannot_be_deleted_a_cache_is_deleted_once_it_is_closed(
    tmp_path, noise, monkeypatch
):
    """As on Windows."""
    path, unlink = tmp_path / "x.work", Path.unlink
    cache = SampleCache.open(path, 2, "key")

    def refuse(self, missing_ok=False):
        if not cache._file.closed:
            raise PermissionError(errno.EACCES, "used by another process")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    cache.write(noise(10))
    cache.delete()
    cache.close()
    assert not path.exists()


TURNS = """
import os, sys
from pathlib import Path
from htdemucs.fsutil import delete_locked, open_locked

path, mark, had = Path(sys.argv[1]), sys.argv[1] + ".mark", 0
for turn in range(1000):
    file = open_locked(path)
    if file is None:
        continue
    had += 1
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # nobody else is here
    before = len(file.read())
    file.write(b"12345678")
    file.flush()
    assert path.stat().st_size == before + 8
    os.unlink(mark)
    delete_locked(file, path) if turn % 3 else file.close()
print(had)
"""


def test_processes_that_open_and_delete_a_file_never_share_it(tmp_path):
    command = [sys.executable, "-c", TURNS, str(tmp_path / "work")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum(map(int, printed)) > 0


def test_a_write_that_is_interrupted_at_its_end_is_kept(tmp_path, noise):
    path, waveform = tmp_path / "x.work", noise(100)
    with SampleCache.open(path, 2, "key") as cache:
        flush = cache._file.flush

        class Interrupted:
            def __getattr__(self, name):
                return getattr(file, name)

            def flush(self):
                flush()
                raise KeyboardInterrupt

        file = cache._file
        cache._file = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            cache.write(waveform)
        cache._file = file
    with SampleCache.open(path, 2, "key") as cache:
        assert torch.equal(torch.cat(list(cache.blocks(99)), dim=1), waveform)


@pytest.fixture(params=["here", "as on Windows"])
def system(request, monkeypatch):
    """The lock of this system, and that of Windows: it has no fcntl, and locks ranges of bytes."""
    if request.param == "here":
        return
    file_lock = {}

    def locking(descriptor, mode, count):
        assert (mode, count) == (2, 1)
        byte = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        holder = file_lock.get(byte)
        if holder not in (None, descriptor) and _is_open(holder, byte[0]):
            raise PermissionError(errno.EACCES, "Permission denied")
        file_lock[byte] = descriptor

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))


def _is_open(descriptor, inode):
    try:
        return os.fstat(descriptor).st_ino == inode
    except OSError:
        return False


def test_a_named_cache_is_one_process_s_alone(tmp_path, noise, system):
    waveform = noise(500)
    with SampleCache.open(tmp_path / "work", 2, "key") as cache:
        cache.write(waveform)
        with pytest.raises(AudioError, match="written by another htdemucs"):
            SampleCache.open(tmp_path / "work", 2, "key")
        assert cache.length == 500
    with SampleCache.open(tmp_path / "work", 2, "key") as cache:
        assert torch.equal(torch.cat(list(cache.blocks(128)), dim=1), waveform)
    with SampleCache.open(tmp_path / "work", 2, "another key") as cache:
        assert cache.length == 0
