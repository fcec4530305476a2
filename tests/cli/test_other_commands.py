import json
import signal
import subprocess
import sys

import pytest
import torch

from htdemucs import Bag, HTDemucs, load_model
from htdemucs.weights import demucs_format


def test_models_lists_every_model(run):
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["htdemucs_ft"]["members"] == ["f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d"]
    assert rows["htdemucs"]["sources"] == ["drums", "bass", "other", "vocals"]
    assert rows["htdemucs"]["bytes"] == 2 * 41_984_456
    assert rows["mdx_q"]["bytes"] == 0  # quantised
    assert rows["hdemucs_mmi"]["bytes"] == 2 * 83_637_832
    hybrid = rows["repro_mdx_a_hybrid_only"]
    assert hybrid["bytes"] == 2 * rows["hdemucs_mmi"]["bytes"]  # four members, two files
    table = run("models").stdout
    assert "htdemucs_6s" in table
    assert "mdx_extra_q" in table


def test_models_states_licences_and_guesses_none(run):
    rows = json.loads(run("models", "--json").stdout)
    for row in rows:
        ours = row["name"] == "mini"
        assert row["license"] == ("mit" if ours else None)
        assert (row["license_read"] is None) == ours
    table = run("models").stdout
    assert table.count("not stated") == len(rows) - 1
    assert " ".join(table.split()).count("The MIT tag of the HTDemucs cards") == 1
    assert "checked on 20" in table


def test_a_narrow_terminal_shows_whole_names(run, monkeypatch):
    """They are what one types after -n."""
    monkeypatch.setenv("COLUMNS", "80")
    table = run("models").stdout
    for row in json.loads(run("models", "--json").stdout):
        assert f" {row['name']} " in table
    assert max(map(len, table.splitlines())) <= 80


def test_convert_writes_both_formats(run, model_folder, tmp_path):
    official_file = tmp_path / "0a1b2c3d.safetensors"
    assert run("convert", model_folder, official_file).exit_code == 0
    assert run("convert", official_file, tmp_path / "again").exit_code == 0
    first, again = demucs_format.read(official_file), load_model(tmp_path / "again", device="cpu")
    assert isinstance(again, HTDemucs)
    assert again.config == first.config
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_convert_writes_a_bag_to_a_folder_only(run, model_folder, tmp_path):
    for signature in ("aaaaaaaa", "bbbbbbbb"):
        run("convert", model_folder, tmp_path / "repo" / f"{signature}.safetensors")
    bag = tmp_path / "repo" / "both.yaml"
    bag.write_text("models: [aaaaaaaa, bbbbbbbb]\nweights: [[1, 0, 1, 0], [0, 1, 0, 1]]\n")
    assert run("convert", "both", tmp_path / "bag", "--repo", tmp_path / "repo").exit_code == 0
    loaded = load_model(tmp_path / "bag", device="cpu")
    assert isinstance(loaded, Bag)
    assert loaded.weights.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    for name in ("bag.safetensors", "bag.th"):
        refused = run("convert", bag, tmp_path / name)
        assert refused.exit_code == 1
        assert "a bag cannot be a single file" in refused.stderr


@pytest.mark.parametrize("name", ["x.yml", "x.onnx", "X.PT", "x.ckpt", "x.zip"])
def test_convert_refuses_files_that_it_does_not_write(run, tmp_path, name):
    result = run("convert", "mini", tmp_path / name)
    assert result.exit_code == 2
    assert "must be a folder or end in .th, .safetensors or .yaml" in result.stderr
    assert ("htdemucs export" in result.stderr) == (name == "x.onnx")
    assert not list(tmp_path.iterdir())


def test_convert_refuses_a_name_that_demucs_would_not_find(run, tmp_path):
    result = run("convert", "mini", tmp_path / "my-model.th")
    assert result.exit_code == 2
    assert "takes what follows the hyphen in my-model.th for a checksum" in result.stderr
    assert "use my_model.th" in result.stderr
    assert not list(tmp_path.iterdir())


def test_convert_takes_folders_with_a_dot(run, model_folder, tmp_path):
    assert run("convert", model_folder, tmp_path / "model-1.2").exit_code == 0
    assert (tmp_path / "model-1.2" / "config.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "minni"], "no model minni; did you mean mini?"),
        (["-n", "mini", "--token", "short"], "(--token or HTDEMUCS_TOKEN)"),
    ],
)
def test_serve_refuses_what_cannot_work(run, tmp_path, words, message):
    result = run("serve", "--data", tmp_path, "--port", 0, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not any(tmp_path.iterdir())


def test_help_and_version_name_every_command(run):
    text = run("--help").stdout
    for command in ("separate", "evaluate", "models", "convert", "trace"):
        assert command in text
    assert run("--version").stdout.startswith("htdemucs ")


def test_without_a_command_the_help_is_printed(run):
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == run("--help").stdout


def test_help_and_the_package_import_no_torch():
    program = (
        "import sys, htdemucs, htdemucs.cli.main\n"
        "heavy = {'torch', 'numpy', 'av', 'einops', 'huggingface_hub', 'rich.console'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_during_the_start_is_one_line(tmp_path):
    """The signal comes while the command imports and loads."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "htdemucs", "bench", "--repeat", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any("torch" in line for line in process.stderr)  # it is importing torch
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [x for x in messages.splitlines() if not x.startswith("import time:")] == ["stopped"]
