import json

import pytest
import torch

from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig, load_model, save_model
from recipes.mini import evaluate, ship


@pytest.fixture
def trained(tmp_path):
    save_model(awake(HTDemucs(HTDemucsConfig(**TINY))), tmp_path / "best")
    return tmp_path / "best"


def test_parameters_are_rounded_to_half(trained, tmp_path, capsys):
    assert ship.main([str(trained), "--to", str(tmp_path / "shipped")]) == 0
    before, after = load_model(trained).state_dict(), load_model(tmp_path / "shipped").state_dict()
    assert all(torch.equal(after[name], value.half().float()) for name, value in before.items())
    size = (tmp_path / "shipped" / "model.safetensors").stat().st_size
    assert size < 0.6 * (trained / "model.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} MB" in capsys.readouterr().out


def test_what_cannot_be_shipped_is_one_line(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ship, "LARGEST", 1000)
    assert ship.main([str(trained), "--to", str(tmp_path / "x")]) == 1
    assert ship.main([str(tmp_path / "none"), "--to", str(tmp_path / "x")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "parameters; 500 can be shipped" in errors[0]
    assert not (tmp_path / "x").exists()


def test_the_table_has_both_sets_and_their_baselines():
    row = {stem: {"nsdr": 1.0 + i} for i, stem in enumerate(evaluate.STEMS)}
    document = {"mean": row, "mixture": row, "oracle": row, "tracks": {}, "mixture_tracks": {}}
    real = document | {"tracks": {"a": row}, "mixture_tracks": {"a": row}}
    lines = evaluate.table({"heldout": document, "real": real}).splitlines()
    assert len(lines) == 2 + 3 + 3 + 2
    assert all(line.endswith("| 1.00 | 2.00 | 3.00 | 4.00 | 2.50 |") for line in lines[2:])


def test_the_scores_and_the_card_are_of_the_shipped_model():
    """Both were written by one command from the same scores."""
    scores = json.loads(evaluate.SCORES.read_text())
    card = (evaluate.bundled_folder() / "README.md").read_text()
    assert evaluate.table(scores) in card
    parameters = sum(p.numel() for p in load_model("mini", device="cpu").parameters())
    assert f"{parameters / 1e6:.2f} million" in card
