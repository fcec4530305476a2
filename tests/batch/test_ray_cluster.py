"""`htdemucs batch` on a real cluster of two workers on this machine."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig, OutputOptions, save_model
from htdemucs.batch import Track, ray_cluster
from htdemucs.batch.plan import Plan
from htdemucs.cli.main import cli
from htdemucs.errors import ClusterError, SeparationError

pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module")
def ray():
    import ray

    with ray_cluster.session(None):
        yield ray


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(awake(HTDemucs(HTDemucsConfig(**TINY))), folder)
    return folder


@pytest.fixture
def run(model_folder):
    def invoke(command, *words):
        line = [str(word) for word in (command, *words, "-n", model_folder, "-d", "cpu")]
        return CliRunner().invoke(cli, line)

    return invoke


@contextlib.contextmanager
def half_of_the_threads():
    """Use as many threads as each of two workers: a network's last bits depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    yield
    torch.set_num_threads(threads)


def rows(report):
    return parquet.read_table(report).to_pylist()


def stems(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.wav")}


@pytest.fixture
def album(tmp_path, write_song):
    for seed, name in enumerate(("one.flac", "two.wav", "cd 2/one.flac", "cd 2/three.mp3")):
        write_song(tmp_path / "album" / name, seed)
    return tmp_path / "album"


@pytest.mark.slow
def test_tracks_and_stems_may_be_in_stores(ray, run, album, tmp_path):
    scratch = tmp_path / "scratch"
    words = (f"file://{album}", f"file://{tmp_path}/out", "--scratch", scratch, "--stems", "bass")
    result = run("batch", *words)
    assert result.exit_code == 0, result.output
    assert sorted(stems(tmp_path / "out")) == [
        f"tiny/{name}/bass.wav" for name in ("cd 2/one", "cd 2/three", "one", "two")
    ]
    assert list(scratch.iterdir()) == []
    assert len(rows(tmp_path / "out" / "results.parquet")) == 4
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "tiny").rglob("*")}
    assert "4 skipped" in run("batch", *words).stderr
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "tiny").rglob("*")} == before


def holder(pattern, folder):
    """Return the number of the process that has an unfinished work file open; None if none has."""
    for path in folder.glob(pattern):
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if link.readlink() == path:
                    return int(link.parts[2])
    return None


def kill(folder, times, stop):
    """Kill processes that work in a folder, up to `times`, and return their numbers."""
    killed = set()
    while len(killed) < times and not stop.is_set():
        process = holder(".htdemucs-*.work", folder)
        if process and process not in killed:
            os.kill(process, signal.SIGKILL)
            killed.add(process)
        time.sleep(0.01)
    return killed


@contextlib.contextmanager
def killing(folder, times):
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=lambda: killed.extend(kill(folder, times, stop)))
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_batch_writes_the_same_files_as_separate(ray, run, album, tmp_path, write_song):
    """Though a worker is killed: each start of workers takes seconds, so one run tests both."""
    (album / "broken.flac").write_bytes(b"nothing")
    write_song(album / "long.wav", 7, seconds=40)
    with half_of_the_threads():
        assert run("separate", album, "-o", tmp_path / "one").exit_code == 1
    out = tmp_path / "two"
    with killing(out / "tiny" / "long", 1) as killed:
        result = run("batch", album, out, "--workers", 2, "--json")
    assert len(killed) == 1
    assert result.exit_code == 1, result.output
    assert "broken.flac contains no audio samples" in result.stderr
    assert stems(out) == stems(tmp_path / "one")
    summary = json.loads(result.stdout)
    assert (summary["separated"], summary["failed"], summary["duration"]) == (5, 1, 46.0)
    table = rows(summary["table"])
    assert [row["position"] for row in table] == [0, 1, 2, 3, 4, 5]
    names = ["broken.flac", "long.wav", "one.flac", "two.wav", "cd 2/one.flac", "cd 2/three.mp3"]
    assert [row["track"] for row in table] == [f"{album}/{name}" for name in names]
    assert [row["status"] for row in table] == ["failed"] + 5 * ["separated"]
    assert [row["crash_count"] for row in table] == [0, 1, 0, 0, 0, 0]
    assert len({row["worker"] for row in table}) <= 3  # two, and the one instead of the dead one
    assert dict(table[2]["files"])["bass"] == f"{out}/tiny/one/bass.wav"
    # Each command skips the other's finished tracks.
    (out / "tiny" / "two" / "bass.wav").unlink()
    again = run("separate", album, "-o", out)
    assert "1 separated, 4 skipped, 1 failed" in again.stderr
    (out / "tiny" / "one" / "bass.wav").unlink()
    again = run("batch", album, out, "--table", tmp_path / "r.parquet")
    assert "1 separated, 4 skipped, 1 failed" in again.stderr
    run("separate", album / "one.flac", "-o", tmp_path / "three")  # with all threads
    assert stems(out / "tiny" / "one") == stems(tmp_path / "three" / "tiny" / "one")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_track_fails_after_three_dead_workers(ray, run, album, tmp_path, write_song):
    write_song(album / "long.wav", 7, seconds=200)
    out = tmp_path / "out"
    with killing(out / "tiny" / "long", 99) as killed:
        result = run("batch", album, out, "--workers", 1)
    assert len(killed) == 3
    assert result.exit_code == 1
    assert "long.wav: its worker died 3 times" in result.stderr
    assert "5 tracks: 4 separated, 1 failed" in result.stderr
    assert len(stems(out)) == 16
    again = run("batch", album, out)  # the next run tries again
    assert "1 separated, 4 skipped" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_the_run_and_the_next_run_resumes(
    run, model_folder, album, tmp_path, write_song, number, code
):
    write_song(album / "long.wav", 7, seconds=200)
    out = tmp_path / "out"
    words = [album, out, "-n", model_folder, "-d", "cpu", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "htdemucs", "batch", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    folder = out / "tiny" / "long"
    while not any(p.stat().st_size > 1_000_000 for p in folder.glob(".htdemucs-*.work")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    summary, messages = process.communicate()
    assert process.returncode == code
    assert "run the same command again to resume" in messages
    assert "Traceback" not in messages
    assert json.loads(summary)["stopped"]
    done = json.loads(summary)["separated"]
    assert len(rows(out / "results.parquet")) == done
    again = run("separate", album, "-o", out, "--json")
    assert json.loads(again.stdout)["skipped"] == done
    [long] = [t for t in json.loads(again.stdout)["tracks"] if "long" in t["track"]]
    assert long["resumed"] > 0


def test_workers_that_cannot_start_end_the_run_with_a_reason(ray, model_folder, album, tmp_path):
    plan = Plan(
        str(model_folder), None, OutputOptions(), None, {"precision": "fp16"}, str(tmp_path)
    )
    tracks, failures = ray_cluster.assign_outputs([Track(str(album / "one.flac"))], plan)
    assert failures == {}
    with pytest.raises(ClusterError, match=r"cannot separate: .*fp16"):
        list(ray_cluster.separate_on_cluster(tracks, plan, ray_cluster.Workers(1, 1, 0)))


def test_the_ledger_blames_a_track_only_for_workers_it_had():
    ledger = ray_cluster._Ledger()
    assert ledger.begin(5) == (0, None)
    assert ledger.begin(5) == (1, None)  # the first worker died
    ledger.end(5, "done")
    assert ledger.begin(5) == (2, "done")  # the second died later, with another track
    assert ledger.begin(6) == (0, None)
    ledger.forget([5, 6, 7])
    assert ledger.begin(5) == (0, None)


@pytest.mark.parametrize(
    ("machines", "arguments", "expected"),
    [
        ([{"CPU": 8}], (None, None), (1, 8, 0)),
        ([{"CPU": 8}], (3, None), (3, 2, 0)),
        ([{"CPU": 2}], (4, None), (4, 0.5, 0)),
        ([{"CPU": 8}, {"CPU": 6}, {}], (None, None), (2, 6, 0)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 1}], (None, None), (3, 1, 1)),
        ([{"CPU": 8, "GPU": 2}], (None, None, 2), (4, 1, 0.5)),
        ([{"CPU": 8, "GPU": 2}], (2, "cpu"), (2, 4, 0)),
        ([{"CPU": 8}], (5, "cuda"), (5, 1, 1)),
    ],
)
def test_workers_share_the_cluster_evenly(monkeypatch, machines, arguments, expected):
    import ray

    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    nodes.append({"Alive": False, "Resources": {"CPU": 64, "GPU": 8}})
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert ray_cluster.divide_cluster(*arguments) == ray_cluster.Workers(*expected)


@pytest.mark.parametrize(("machines", "device"), [([{"CPU": 8}], "cuda"), ([{}], None)])
def test_a_cluster_without_devices_is_an_error(monkeypatch, machines, device):
    import ray

    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with pytest.raises(ClusterError):
        ray_cluster.divide_cluster(None, device)


def fail(run, *words):
    result = run("batch", *words)
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_impossible_requests_fail_before_ray_starts(run, album, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "session", None)
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "holds no audio files" in fail(run, tmp_path / "empty", out)
    assert "does not exist" in fail(run, tmp_path / "nothing", out)
    assert "Protocol not known" in fail(run, "zzz://bucket", out)
    assert "cannot be written to" in fail(run, album, "/proc/nothing")
    table = ("--table", "/proc/nothing/results.parquet")
    assert "cannot be written to" in fail(run, album, out, *table)
    assert "no stem guitar" in fail(run, album, out, "--two-stems", "guitar")
    assert "--two-stems" in fail(run, album, out, "--two-stems", "bass", "--stems", "bass")
    tags = ("--filename", "{artist}/{stem}.{ext}")
    assert "tags of file://" in fail(run, f"file://{album}", out, *tags)


def test_missing_packages_are_named(run, album, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        ray_cluster, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    assert "pip install '.[batch]'" in fail(run, album, tmp_path / "out")


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    import ray

    def refuse(**settings):
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(ClusterError, match=r"at 10.0.0.1:6379 does not respond .nobody there"),
        ray_cluster.session("10.0.0.1:6379"),
    ):
        pass


def test_heavy_packages_are_imported_late():
    code = (
        "import sys, htdemucs.batch, htdemucs.cli.main\n"
        "assert not {'ray', 'pyarrow', 'fsspec', 'pandas'} & (set(sys.modules) - before)"
    )
    start = "import sys, torch\nbefore = set(sys.modules)\n"  # torch itself may import fsspec
    subprocess.run([sys.executable, "-c", start + code], check=True)


def test_tags_of_remote_files_cannot_name_stems(tmp_path):
    plan = Plan("m", None, OutputOptions(filename="{artist}/{stem}.{ext}"), None, {}, "s3://o")
    with pytest.raises(SeparationError, match="are not known here"):
        ray_cluster.assign_outputs([Track("s3://b/a.flac")], plan)
