import subprocess
import sys

import pytest

from htdemucs.fast import precision


def test_bench_prints_a_line_for_each_precision_and_batch(run, model_folder):
    result = run("bench", "-n", model_folder, "-d", "cpu", "--repeat", "1")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if "p32" in line or "bf16" in line]
    numbers = [[word for word in row if word.replace(".", "").isdigit()] for row in rows]
    assert [n[0] for n in numbers] == ["1", "2", "1", "2"]
    assert all(float(speed) > 0 for *_, speed in numbers)
    assert sum("(auto)" in row for row in rows) == 2
    assert "torch" in result.stdout.splitlines()[-1]


def test_bench_needs_no_weights(run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("htdemucs.cli.bench._measure", lambda *_: iter([("fp32", 1, 2.0)]))
    monkeypatch.setattr(precision.kernels, "has_bf16", lambda: False)
    result = run("bench", "-d", "cpu")
    assert result.exit_code == 0
    assert "2.9" in result.stdout  # 0.75 of 7.8 s in 2 s


@pytest.mark.parametrize("word", ["bf16", "auto", "fp32"])
def test_separate_has_a_precision(run, model_folder, song, tmp_path, word):
    result = run("separate", song, "-n", model_folder, "-o", tmp_path, "--precision", word)
    assert result.exit_code == 0
    precision = "fp32" if word == "auto" else word  # the tiny network has no kernels
    assert f"on cpu, {precision}" in result.stderr


@pytest.mark.slow
def test_export_writes_a_file_and_prints_its_agreement_with_torch(run, model_folder, tmp_path):
    target = tmp_path / "deep" / "tiny.onnx"
    result = run("export", model_folder, target)
    assert result.exit_code == 0
    assert target.stat().st_size > 1000
    assert "agrees with PyTorch" in " ".join(result.stderr.split())


def test_export_passes_its_options_on(run, model_folder, tmp_path, monkeypatch):
    passed = {}
    monkeypatch.setattr(
        "htdemucs.export.export_onnx", lambda _model, _path, **options: passed.update(options) or 99
    )
    options = ("--with-stft", "--half", "--static-batch", 1, "--segment", 0.5)
    result = run("export", model_folder, tmp_path / "tiny.onnx", *options)
    assert result.exit_code == 0
    assert passed == {
        "with_stft": True, "half": True, "static_batch": 1, "segment": 0.5, "attention_chunk": 64,
    }  # fmt: skip


def test_export_refuses_another_extension(run, model_folder, tmp_path):
    result = run("export", model_folder, tmp_path / "model.pt")
    assert result.exit_code == 1
    assert "must end in .onnx" in result.stderr


def test_a_warning_is_one_line(model_folder):
    code = (
        "import sys, warnings, htdemucs.cli.main as main\n"
        "main.cli.main = lambda: warnings.warn('mind the gap', stacklevel=1)\n"
        "main.main()"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stderr == "warning: mind the gap\n"
