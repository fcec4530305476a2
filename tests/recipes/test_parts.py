"""Tracks survive being carried: the same stems, aligned to the sample, in files of a given size."""

import dataclasses
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htdemucs import load_model
from htdemucs.training import read_config
from recipes.mini import parts, ship, widen
from recipes.mini.mixing.audio import SAMPLE_RATE
from recipes.mini.mixing.mixdown import STEMS
from recipes.mini.tracks import write_track

RECIPE = Path(parts.__file__).parent
SECONDS = 3.3


def stems(seed):
    draw = np.random.default_rng(seed)
    length = round(SECONDS * SAMPLE_RATE) + seed
    chirps = (np.cumsum(draw.uniform(0.02, 0.2, (length, 2)), axis=0) for _ in STEMS)
    return {s: np.int16(9000 * np.sin(x)) for s, x in zip(STEMS, chirps, strict=True)}


@pytest.fixture
def data(tmp_path):
    for seed, name in enumerate(("train/0000-chart", "train/0001-midi", "valid/0000-chart")):
        write_track(tmp_path / "data" / name, stems(seed), {"kind": name})
    return tmp_path / "data"


def carried(data, tmp_path, *options):
    folders = [str(data / "valid"), str(data / "train")]
    assert parts.main(["pack", *folders, "--to", str(tmp_path / "parts"), *options]) == 0
    files = sorted((tmp_path / "parts").iterdir())
    assert parts.main(["unpack", *map(str, files), "--to", str(tmp_path / "there")]) == 0
    return files, tmp_path / "there"


def test_a_carried_track_is_the_track_to_hearing(data, tmp_path):
    _, there = carried(data, tmp_path)
    for seed, name in enumerate(("train/0000-chart", "train/0001-midi", "valid/0000-chart")):
        assert json.loads((there / name / "track.json").read_text()) == {"kind": name}
        for stem, samples in stems(seed).items():
            read, rate = soundfile.read(there / name / f"{stem}.wav", dtype="int16")
            assert (rate, read.shape) == (SAMPLE_RATE, samples.shape)
            error = np.square(read.astype(float) - samples).sum()
            assert error < 0.05 * np.square(samples.astype(float)).sum()  # not shifted either


def test_parts_are_no_larger_than_asked_and_in_order(data, tmp_path):
    (whole,), _ = carried(data, tmp_path)
    size = whole.stat().st_size * 0.6 / 1e6
    files, there = carried(data, tmp_path / "again", "--size", f"{size:f}")
    assert len(files) > 1
    assert all(file.stat().st_size <= size * 1e6 for file in files)
    assert len(list(there.glob("*/*/track.json"))) == 3
    with tarfile.open(files[0]) as first:
        assert first.getnames()[0] == "valid/0000-chart/track.json"
    files, there = carried(data, tmp_path / "one", "--size", f"{size:f}", "--parts", "1")
    assert len(files) == 1
    assert 0 < len(list(there.glob("*/*/track.json"))) < 3


def test_the_mixture_of_a_held_out_song_stays_behind(data, tmp_path):
    soundfile.write(data / "valid" / "0000-chart" / "mixture.wav", np.zeros((9, 2)), SAMPLE_RATE)
    _, there = carried(data, tmp_path)
    assert {p.stem for p in (there / "valid" / "0000-chart").glob("*.wav")} == set(STEMS)


def test_what_cannot_be_carried_is_one_line(data, tmp_path, capsys):
    pack = ["pack", "--to", str(tmp_path / "parts"), str(data / "train")]
    (data / "train" / "empty").mkdir()
    assert parts.main([*pack, str(tmp_path)]) == 1
    assert parts.main([*pack, str(data / "valid" / ".." / "train")]) == 1
    assert parts.main([*pack, "--size", "0.02"]) == 1
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "part-00.tar").touch()
    assert parts.main(["pack", "--to", str(tmp_path / "used"), str(data / "train")]) == 1
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as tar:
        tar.add(data / "train" / "0000-chart" / "track.json", arcname="track.json")
    assert parts.main(["unpack", str(other), "--to", str(tmp_path / "there")]) == 1
    other.write_bytes(b"no tar")
    assert parts.main(["unpack", str(other), "--to", str(tmp_path / "there")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 6
    for error, words in zip(
        errors,
        ("no track", "different names", "--size", "already", "not written by", "damaged"),
        strict=True,
    ):
        assert words in error
    assert not (tmp_path / "parts").exists()
    assert not (tmp_path / "there").exists()


def test_the_run_for_a_gpu_is_as_minis_but_wide():
    wide, mini = (read_config(RECIPE / f"{name}.yaml") for name in ("wide", "train"))
    assert dataclasses.asdict(wide.augment) == dataclasses.asdict(mini.augment)
    network = widen.widen(load_model("mini", device="cpu"), hidden_scale=4, dconv_mode=3)
    assert 2 * sum(p.numel() for p in network.parameters()) <= ship.LARGEST
