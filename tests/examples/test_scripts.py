"""The scripts in examples/, run as a user would."""

import shlex
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

import demo
from htdemucs import AudioEncoding, AudioFile, Separator
from htdemucs.audio import AudioWriter

pytestmark = pytest.mark.usefixtures("forked")
EXAMPLES = Path(__file__).parents[2] / "examples"
LENGTH = 3 * 44_100 + 1000


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "album" / "A song.flac"
    path.parent.mkdir()
    generator = torch.Generator().manual_seed(0)
    with AudioWriter(path, 44_100, 2, AudioEncoding("flac")) as writer:
        writer.write(0.1 * torch.randn(2, LENGTH, generator=generator))
    return path


def run(script, *words, folder):
    command = [sys.executable, EXAMPLES / script, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_demo_shows_commands_that_a_shell_takes(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "a folder"
    monkeypatch.setattr(demo, "EXAMPLES", folder / "examples")
    monkeypatch.setattr(demo, "BUILD", folder / "build")
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    demo.main()
    lines = capsys.readouterr().out.splitlines()
    assert shlex.split(lines[0])[2:] == ran[0][3:]
    assert str(folder / "build") in shlex.split(next(line for line in lines if " serve " in line))


def test_album_shows_progress_and_skips_what_is_finished(song, tmp_path):
    (song.parent / "broken.mp3").write_bytes(b"nothing")
    first = run("album.py", "album", folder=tmp_path)
    assert first.returncode == 1
    assert "A song.flac: 100%" in first.stdout
    assert "A song.flac: separated\n" in first.stdout
    assert "broken.mp3 cannot be read" in first.stdout
    assert len(list((tmp_path / "separated" / "A song").glob("*.wav"))) == 4
    assert "A song.flac: skipped\n" in run("album.py", "album", folder=tmp_path).stdout


def test_karaoke_is_the_song_minus_its_vocals(song, tmp_path):
    done = run("karaoke.py", song, folder=tmp_path)
    assert done.stdout == f"{Path('karaoke', 'A song (minus_vocals).mp3')}\n", done.stderr
    with av.open(tmp_path / done.stdout.strip()) as container:
        assert container.streams.audio[0].codec_context.name.startswith("mp3")


def test_analysis_sees_every_second_of_the_stems(song, tmp_path):
    done = run("analysis.py", song, folder=tmp_path)
    header, *lines = done.stdout.splitlines()
    assert header == "second drums bass other vocals", done.stderr
    assert [int(line.split()[0]) for line in lines] == [0, 1, 2, 3]
    separator = Separator("mini")
    stems = separator.separate(torch.cat(list(AudioFile(song)), dim=1), 44_100)
    second = [stem[:, 44_100:88_200] for stem in stems.values()]
    expected = [20 * torch.log10(stem.square().mean().sqrt()) for stem in second]
    shown = [float(value) for value in lines[1].split()[1:5]]
    torch.testing.assert_close(torch.tensor(shown), torch.stack(expected), atol=0.06, rtol=0)


@pytest.mark.parametrize("script", ["album", "karaoke", "analysis", "remote", "onnx_separate"])
def test_wrong_arguments_print_the_usage(script, tmp_path):
    done = run(f"{script}.py", folder=tmp_path)
    assert done.returncode == 1
    assert f"{script}.py" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["karaoke", "analysis"])
def test_a_missing_song_is_one_line(script, tmp_path):
    done = run(f"{script}.py", "nosong.mp3", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: nosong.mp3")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_fine_tuning_is_significantly_better_and_runs_in_demucs(tmp_path):
    done = run("fine_tune.py", tmp_path / "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    comparison = done.stdout.partition("evaluate --compare")[2]
    assert "vocals" in comparison
    assert "12:0" in comparison  # better in each of the test songs
    assert "demucs and htdemucs agree to" in done.stdout
