"""Commands with Hybrid Demucs and Demucs."""

import json

import pytest
import torch

from evaluation_data import write
from helpers import OLDER, awake
from htdemucs import Bag, load_model, save_model
from htdemucs.model import build
from htdemucs.weights import demucs_format


@pytest.fixture(params=[*OLDER, "bag"])
def older(request, tmp_path):
    """Return the folder of a model."""
    networks = {kind: awake(build(config)) for kind, config in OLDER.items()}
    save_model(networks.get(request.param, Bag(list(networks.values()))), tmp_path / "older")
    return tmp_path / "older"


def test_separate(run, older, song, tmp_path):
    words = ("separate", song, "-n", older, "-o", tmp_path / "out", "--shifts", "1")
    assert run(*words).exit_code == 0
    stems = sorted(path.name for path in (tmp_path / "out").rglob("*.wav"))
    assert stems == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]
    again = run(*words)
    assert again.exit_code == 0
    assert "already there" in again.stderr


def test_evaluate(run, older, tmp_path):
    for stem in ("drums", "bass", "other", "vocals"):
        write(tmp_path / "data" / "song" / f"{stem}.wav", 0.1 * torch.randn(2, 9000))
    result = run("evaluate", older, tmp_path / "data", "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.exception
    assert "nsdr" in json.dumps(json.loads((tmp_path / "scores.json").read_text()))


def test_convert_and_back(run, older, tmp_path):
    target = tmp_path / "0a1b2c3d.safetensors"
    result = run("convert", older, target)
    model = load_model(older, device="cpu")
    if isinstance(model, Bag):
        assert "a bag cannot be a single file" in result.stderr
        return
    assert result.exit_code == 0
    assert demucs_format.read(target).config == model.config
    assert run("convert", target, tmp_path / "again").exit_code == 0


@pytest.mark.slow
def test_bench_and_trace(run, older):
    result = run("bench", "-n", older, "-d", "cpu", "--repeat", "1")
    assert result.exit_code == 0
    assert "fp32 (auto)" in result.stdout
    assert "1, 4, 2, 8000" in run("trace", "-n", older).stdout


def test_export_refuses_in_one_line(run, older, tmp_path):
    result = run("export", older, tmp_path / "older.onnx")
    assert result.exit_code == 1
    assert "cannot be exported; only HTDemucs networks can" in result.stderr
    assert not (tmp_path / "older.onnx").exists()
