"""The command of `benchmarks.gpu`, rehearsed on the CPU."""

import json
from copy import deepcopy
from dataclasses import replace

from benchmarks import gpu
from benchmarks.gpu_parts import Bench

WITHOUT_COMPILER = gpu.PARTS[:-1]


def broken(bench):
    yield {"answer": 42.0}
    raise RuntimeError("the device is on fire\nand more")


def lacking(bench):
    import no_such_package  # noqa: F401

    yield {}


def rehearse(monkeypatch, out, parts, minutes=0.1):
    monkeypatch.setattr(gpu, "PARTS", parts)
    network = gpu.random_network(gpu.MODELS["tiny"])
    return gpu.run(Bench(deepcopy(network), network, seconds=1), "tiny", minutes, out)


def test_every_part_tells_something_or_why_it_cannot(monkeypatch, tmp_path):
    rehearse(monkeypatch, tmp_path, WITHOUT_COMPILER)
    report = json.loads((tmp_path / "gpu.json").read_text())
    parts = {part["title"]: part for part in report["parts"]}
    assert len(parts) == len(WITHOUT_COMPILER)
    assert not [part for part in parts.values() if "failed" in part]
    for title in ("CUDA graphs", "Copies between host and device"):
        assert "left out" in parts.pop(title)
    assert all(part["rows"] for part in parts.values())
    exact, *_, half = parts["Correctness against fp32 on the CPU"]["rows"]
    assert exact["difference, dB"] == "none" or exact["difference, dB"] < -100
    assert -80 < half["difference, dB"] < -30
    text = (tmp_path / "gpu.md").read_text()
    assert "| precision | difference, dB |\n| --- | --- |\n| fp32" in text


def test_a_part_that_fails_ends_no_other(monkeypatch, tmp_path):
    first = replace(gpu.PARTS[0], run=broken)
    second = replace(gpu.PARTS[0], title="Lacking", run=lacking)
    third = replace(gpu.PARTS[0], title="Slow", run=lambda bench: iter([{"a": 1}] * 3))
    done = rehearse(monkeypatch, tmp_path, (first, second, third), minutes=0)["parts"]
    assert done[0]["rows"] == [{"answer": 42.0}]
    assert "stopped" in done[0]
    assert done[1]["left out"] == "no_such_package is not installed"
    assert done[2]["rows"] == [{"a": 1}]
    done = rehearse(monkeypatch, tmp_path, (first, third), minutes=1)["parts"]
    assert done[0]["failed"] == "RuntimeError: the device is on fire"
    assert len(done[1]["rows"]) == 3
