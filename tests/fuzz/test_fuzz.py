"""A short run of the fuzzer, and single cases by name. `python -m tests.fuzz` runs longer."""

import os
import socket
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from mutagen.flac import FLAC

from htdemucs import AudioEncoding, AudioError, AudioFile, ConfigError, OutputOptions, Separator
from htdemucs.audio import AudioWriter
from htdemucs.batch import Library, Track, find_tracks
from htdemucs.separation import measure
from tests.fuzz.cases import cases
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.oracle import Judge
from tests.fuzz.seeds import AUDIO, make_seeds

COUNT = 240
NAMES = (
    "new\nline.wav",
    "tab\tbell\a.wav",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnos.wav",
    "🎵🎶 歌.wav",
    "a" * 251 + ".wav",
    "歌" * 83 + ".wav",
    "-o.wav",
    "--help",
    "..wav",
    "{stem}.wav",
    "%s%n.wav",
    "a:b.wav",
    "con.wav",
    "x.wav ",
    "'\"`$(touch x).wav",
    "[bold]red[/bold].wav",
    os.fsdecode(b"\xff\xfe.wav"),
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "out")


@pytest.fixture
def separator(tiny_model):
    return Separator(tiny_model)


def store(path, samples=4000):
    with AudioWriter(path.with_name("plain"), 8000, 2, AudioEncoding()) as writer:
        writer.write(0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0)))
    os.rename(path.with_name("plain"), path)  # noqa: PTH104  names that are no text
    return path


def test_damaged_files_are_separated_or_refused_in_one_line(seeds, tmp_path, forkserver):
    results = {}
    with Judge() as judge:
        for case in cases(seeds, COUNT, seed=7):
            result, message = judge(case.write(tmp_path))
            results.setdefault(result, []).append(f"{case.number} {case.mutation}: {message}")
    assert results.get("VIOLATION", []) == []
    assert len(results["separated"]) > COUNT / 4
    assert len(results["refused"]) > COUNT / 4


def test_undamaged_files_are_separated(seeds, forkserver):
    assert {path.name for path in seeds} >= set(AUDIO)
    with Judge() as judge:
        refused = {path.name for path in seeds if judge(path)[0] != "separated"}
    assert refused == {"silent film.mkv"}


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_depend_on_the_seed_alone(name):
    data = bytes(range(256)) * 20
    first = [MUTATIONS[name](data, np.random.default_rng(i)) for i in range(20)]
    again = [MUTATIONS[name](data, np.random.default_rng(i)) for i in range(20)]
    assert first == again
    assert (len(set(first)) > 1 or first[0] != data) == (name != "unchanged")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("raise ValueError('x')", "unexpected ValueError (x)"),
        ("import os; os._exit(139)", "ended with 139"),
        ("import time; time.sleep(60)", "more than"),
        ("(out / '..' / 'elsewhere').write_text('')", "outside"),
        ("raise AudioError('two\\nlines')", "not one printable line"),
    ],
)
def test_the_oracle_reports_violations(tmp_path, monkeypatch, forkserver, trouble, words):
    code = (
        "import htdemucs.batch.library as library\n"
        "from htdemucs import AudioError\n"
        "def broken(self, track, *_):\n"
        "    out = self._store.folder\n"
        "    out.mkdir(parents=True)\n"
        f"    {trouble}\n"
        "    return library.TrackResult(track.location, 'failed', 'x')\n"
        "library.Library._skip_or_separate = broken\n"
    )
    monkeypatch.setattr("tests.fuzz.oracle.LIMIT", 15.0 if "sleep" not in trouble else 1.0)
    with Judge(code) as judge:
        result, message = judge(store(tmp_path / "a.wav"))
        assert result == "VIOLATION"
        assert words in message


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_track_with_any_name_is_separated_and_then_skipped(name, library, separator, tmp_path):
    path = store(tmp_path / name)
    result = library.separate(library.assign_output(Track(str(path))), separator)
    assert result.status == "separated", result.error
    written = [Path(p) for p in result.files.values()]
    assert all(p.is_file() and p.is_relative_to(tmp_path / "out") for p in written)
    again = library.separate(
        Library(library.out, library.options).assign_output(Track(str(path))), separator
    )
    assert again.status == "skipped"


@pytest.mark.parametrize("make", ["fifo", "/dev/zero", "/dev/null", "folder", "loop", "socket"])
@pytest.mark.filterwarnings("ignore:.*missing files left out")
def test_paths_that_are_no_file_are_refused(make, library, separator, tmp_path, monkeypatch):
    path = tmp_path / "x.wav"
    match make:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "socket":
            monkeypatch.chdir(tmp_path)  # a socket's path has to be short
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("x.wav")
        case _:
            path.symlink_to(make)
    result = library.separate(library.assign_output(Track(str(path))), separator)
    assert result.status == "failed"
    assert result.error.isprintable()
    assert not any(isinstance(track, Track) for track in find_tracks([tmp_path]))


def test_stems_of_a_track_named_with_dots_stay_in_the_folder(library, separator, tmp_path):
    result = library.separate(library.assign_output(Track(str(store(tmp_path / "...")))), separator)
    assert {Path(p).parent for p in result.files.values()} == {tmp_path / "out" / "_"}


def test_a_long_silence_needs_little_memory(tmp_path):
    """The file is below 2 MiB, but would take 230 MB if decoded at once."""
    path = tmp_path / "silence.flac"
    with AudioWriter(path, 96_000, 2, AudioEncoding("flac")) as writer:
        for _ in range(60):
            writer.write(torch.zeros(2, 5 * 96_000))
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    normalization = measure(AudioFile(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert normalization.length == 300 * 96_000
    assert peak < 16 << 20


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(library, separator, tmp_path):
    path = store(tmp_path / "x.wav")
    path.chmod(0)
    result = library.separate(library.assign_output(Track(str(path))), separator)
    assert "permission" in result.error


def test_an_output_folder_that_cannot_be_written_is_reported(separator, tmp_path):
    path = store(tmp_path / "x.wav")
    library = Library(tmp_path / "out" / "below")
    (tmp_path / "out").write_text("in the way")  # since the library was opened
    result = library.separate(library.assign_output(Track(str(path))), separator)
    assert result.status == "failed"
    assert result.error.isprintable()
    assert (tmp_path / "out").read_text() == "in the way"
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        Library(tmp_path / "out" / "below")


def test_a_tag_cannot_lead_out_of_the_folder(separator, tmp_path):
    path = tmp_path / "x.flac"
    with AudioWriter(path, 8000, 2, AudioEncoding("flac")) as writer:
        writer.write(torch.zeros(2, 800))
    for evil in ("../../../evil", "/etc/evil", "..", "a\0b", "~", "\\\\server\\x", "x" * 4000):
        tags = FLAC(path)
        tags["artist"] = evil
        tags.save()
        library = Library(tmp_path / "out", OutputOptions(filename="{artist}/{stem}.{ext}"))
        try:
            result = library.separate(library.assign_output(Track(str(path))), separator)
        except AudioError:
            continue
        assert result.status == "separated", result.error
        for written in result.files.values():
            assert Path(written).resolve().is_relative_to(tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"x.flac", "out"}
