"""One segment through the network, by several implementations in turn, in one process."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.checkpoints import NAME, network
from htdemucs import HTDemucs, load_model
from htdemucs.fast import keep_freed_memory, kernels, prepare
from htdemucs.fast.onednn import Linear
from htdemucs.fast.precision import PRECISIONS
from htdemucs.tracing import trace

Forward = Callable[[Tensor], Tensor]
PUBLISHED = "demucs 4.1.0"


def ways(repo: Path, folder: Path) -> dict[str, Forward]:
    """Return all implementations, (1, 2, L) -> (1, S, 2, L), the published one first."""
    model = load_model(NAME, repo=repo, device="cpu")
    assert isinstance(model, HTDemucs)
    theirs = network()
    theirs.load_state_dict({name: x.half() for name, x in theirs.state_dict().items()})  # as stored

    def autocast(mixture: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return theirs(mixture)

    forwards: dict[str, Forward] = {PUBLISHED: theirs}
    if "bf16" in _precisions():
        forwards[f"{PUBLISHED}, autocast bf16"] = autocast
    forwards["htdemucs, reference"] = model
    for precision in _precisions():
        forwards[f"htdemucs, {precision}"] = prepare(model, precision)
    return forwards if kernels.BUILD_VARIABLE in os.environ else forwards | _runtimes(model, folder)


def _precisions() -> list[str]:
    return ["fp32", "bf16"] if kernels.has_bf16() else ["fp32"]


def _runtimes(model: HTDemucs, folder: Path) -> dict[str, Forward]:
    """Return the runtimes that are installed, with the exported core."""
    forwards: dict[str, Forward] = {}
    try:
        import onnxruntime

        from htdemucs.export import export_onnx
    except ImportError:
        return forwards
    path = folder / "core.onnx"
    export_onnx(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def with_stft(run: Callable[[dict[str, Any]], tuple[Any, Any]]) -> Forward:
        def forward(mixture: Tensor) -> Tensor:
            spectrogram = model.spectrogram(mixture)
            inputs = {"mixture": mixture.numpy(), "spectrogram": spectrogram.contiguous().numpy()}
            answers = [torch.as_tensor(x).float() for x in run(inputs)]
            return answers[0] + model.spectrogram.inverse(answers[1], mixture.shape[-1])

        return forward

    names = ["time", "spectral"]
    forwards["ONNX Runtime, fp32"] = with_stft(lambda inputs: session.run(names, inputs))
    try:
        import openvino
    except ImportError:
        return forwards
    core = openvino.Core()
    for precision in ("f32", "bf16"):
        compiled = core.compile_model(
            core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": precision}
        )
        name = f"OpenVINO, {precision.replace('f32', 'fp32')}"
        forwards[name] = with_stft(_runner(compiled, names))
    return forwards


def _runner(compiled: Any, names: list[str]) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    def run(inputs: dict[str, Any]) -> tuple[Any, Any]:
        answers = compiled(inputs)
        return answers[names[0]], answers[names[1]]

    return run


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large product of matrices on this machine, the best of many."""
    x = torch.randn(1, 2048, 2048).to(dtype)
    product = Linear(torch.randn(2048, 2048), torch.zeros(2048), dtype)
    return 2 * 2048**3 / min(_seconds(product, x) for _ in range(30))


def measure(repo: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Return each implementation's median seconds and its error against the published one.

    The result also has the FLOP of a segment and the machine's matrix rates. `keep_freed_memory`
    holds for the whole process, so the published network profits from it too, though its own
    program does not call it. `compare` measures whole programs.
    """
    keep_freed_memory()
    model = load_model(NAME, repo=repo, device="cpu")
    assert isinstance(model, HTDemucs)
    length = model.config.segment_length
    mixture = 0.1 * torch.randn(1, 2, length, generator=torch.Generator().manual_seed(0))
    forwards = ways(repo, folder)
    seconds: dict[str, list[float]] = {name: [] for name in forwards}
    errors = {}
    with torch.inference_mode():
        expected = forwards[PUBLISHED](mixture)
        for name, forward in forwards.items():
            errors[name] = _decibels(forward(mixture), expected)
        for _ in range(rounds):
            for name, forward in forwards.items():
                seconds[name].append(_seconds(forward, mixture))
        types = {name: PRECISIONS[name] for name in _precisions()}
        rates = {name: matrix_rate(dtype) for name, dtype in types.items()}
    return {
        "seconds": {name: median(values) for name, values in seconds.items()},
        "error_db": errors,
        "flop": sum(stage.flop for stage in trace(model.config, samples=length)),
        "matrix_rate": rates,
    }


def _seconds(forward: Forward, x: Tensor) -> float:
    start = time.perf_counter()
    forward(x)
    return time.perf_counter() - start


def _decibels(estimate: Tensor, expected: Tensor) -> float:
    noise = (estimate - expected).double().norm() / expected.double().norm()
    return float(20 * noise.log10())


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(sys.argv[1]), Path(scratch), int(sys.argv[2]))))
