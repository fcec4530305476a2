"""The published command, as `separate.main`, writes what it writes."""

import re

import demucs.separate as published_separate
import pytest
import torch

from helpers import snr
from htdemucs.audio import AudioFile as Reader
from htdemucs.compat.demucs import separate

from .conftest import RATE


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "words",
    [
        ["--shifts", "0", "--float32"],
        ["--shifts=0", "--two-stems", "vocals", "-n", "htdemucs_ft", "--int24", "-j", "2"],
        ["--shifts=0", "--two-stems=drums", "--other-method", "minus", "--segment", "1"],
        ["--shifts", "0", "--filename", "{track}_{stem}.{ext}", "--mp3", "-n", "htdemucs_6s"],
        ["--shifts", "0", "--clip-mode", "clamp", "--overlap", "0.1", "-n", "aaaaaaa0"],
    ],
)
def test_the_command_writes_the_same_files(words, song, repo, tmp_path):
    if "aaaaaaa0" in words:
        words = [*words, "--repo", str(repo)]
    place = ["-d", "cpu", "-o", str(tmp_path / "theirs"), str(song)]
    published_separate.main([*words, *place])
    separate.main([*words, "-d", "cpu", "-o", tmp_path / "ours", song])
    names = files(tmp_path / "theirs")
    assert files(tmp_path / "ours") == names
    for name in names:
        theirs, ours = Reader(tmp_path / "theirs" / name), Reader(tmp_path / "ours" / name)
        assert (ours.codec, ours.sample_rate) == (theirs.codec, theirs.sample_rate)
        if name.endswith("mp3"):
            continue
        expected, actual = (torch.cat(list(reader), dim=-1) for reader in (theirs, ours))
        if theirs.bit_depth == 32:
            assert snr(expected, actual) >= 100
        else:
            steps = 2**-14 if theirs.bit_depth == 16 else 2**-21
            assert (actual - expected).abs().max() <= steps


def test_the_command_lists_models(capsys, repo):
    with pytest.raises(SystemExit):
        published_separate.main(["--list-models", "--repo", str(repo)])
    expected = capsys.readouterr().out
    separate.main(["--list-models", "--repo", str(repo)])
    assert sorted(capsys.readouterr().out.split()) == sorted(expected.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no tracks"),
        (["-n", "nonsense", "a.wav"], "nonsense"),
        (["-d", "cpu", "--two-stems", "harp", "a.wav"], "harp"),
        (["-d", "cpu", "--segment", "9", "a.wav"], "longer than"),
        (["-d", "nothing", "a.wav"], "no device nothing"),
        (["--filename", "{artist}.{ext}", "a.wav"], "{artist}"),
    ],
)
def test_the_command_ends_with_one_line(words, message):
    with pytest.raises(SystemExit, match=message):
        separate.main(words)


def test_a_missing_track_does_not_stop_the_others(song, tmp_path):
    missing = tmp_path / "missing.wav"
    with pytest.raises(SystemExit, match=r"missing\.wav"):
        separate.main(["-d", "cpu", "-o", str(tmp_path / "out"), str(missing), str(song)])
    assert len(files(tmp_path / "out")) == 4


def test_programs_for_4_0_find_what_they_import_from_the_command(song):
    names = {"AudioFile", "apply_model", "convert_audio", "get_model_from_args", "load_track"}
    assert names <= set(separate.__all__)
    wav = separate.load_track(song, 1, RATE)
    assert wav.shape == (1, int(2.3 * RATE))


def test_a_bar_for_each_network_begins_with_0_percent(song, tmp_path, capsys):
    """As StemRoller counts them: an update with 0 % is the next network."""
    words = ["-n", "htdemucs_ft", "-j", "2", "-d", "cpu", "-o", tmp_path, song]
    separate.main(words)
    percents = [int(found) for found in re.findall(r"\r\s+(\d+)%\|", capsys.readouterr().err)]
    assert percents.count(0) == 4
    assert percents[0] == 0


def test_the_network_of_tests_separates(song, tmp_path):
    separate.main(["-n", "demucs_unittest", "--shifts=0", "-d", "cpu", "-o", tmp_path, song])
    assert len(files(tmp_path / "demucs_unittest")) == 4


def test_the_shifts_are_the_same_every_time(song, tmp_path):
    for name in ("one", "two"):
        separate.main(["-d", "cpu", "--float32", "-o", tmp_path / name, song])
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
