"""Write a model's core, without its STFT, as an ONNX file.

The file has the inputs `mixture` (B, C, L) and `spectrogram` (B, 2C, F, T) and the outputs `time`
(B, S, C, L) and `spectral` (B, S, 2C, F, T), all float32. B is free; the other sizes are those of
one segment. Its metadata holds everything a program needs to use it: `sources`, `sample_rate`,
`audio_channels`, `segment_length` and `n_fft`. `examples/onnx_separate.py` uses it without torch.
"""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from htdemucs.errors import ExportError
from htdemucs.fsutil import atomic_write
from htdemucs.model import Bag, HTDemucs, Model
from htdemucs.model.architectures import architecture
from htdemucs.model.bag import networks
from htdemucs.model.config import seconds_to_samples

AGREEMENT = 60.0  # dB by which ONNX Runtime's outputs must exceed their difference to torch's
INPUTS, OUTPUTS = ("mixture", "spectrogram"), ("time", "spectral")


class Core(nn.Module):
    """The exported module: a network's core, or the weighted mean of a bag's cores."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._members = _exportable(model)

    def forward(self, mixture: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L), (B, 2C, F, T) -> (B, S, C, L), (B, S, 2C, F, T)"""
        outputs = [member.core(mixture, spectrogram) for member in self._members]
        if not isinstance(self._model, Bag):
            return outputs[0]
        mean = self._model.weighted_mean
        return mean([time for time, _ in outputs]), mean([spectral for _, spectral in outputs])


def export_onnx(model: Model, path: Path) -> float:
    """Write a model to a file, check it with ONNX Runtime, and return the agreement with torch.

    The agreement is the ratio, in dB, of the outputs to their difference from torch's. The input is
    noise, in a batch of one and in a batch of two; the lower agreement is returned.

    Raises:
        ExportError: the extra "export" is not installed, the file cannot be written, or its outputs
            differ from torch's; then no file is written.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"exporting needs {error.name}; in the repository, run: pip install '.[export]'"
        ) from error
    model = model.cpu().eval()
    network = _exportable(model)[0]
    length = seconds_to_samples(model.segment, model.sample_rate)

    def example(batch: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(batch)
        mixture = 0.1 * torch.randn(batch, model.audio_channels, length, generator=generator)
        return mixture, network.spectrogram(mixture)

    core = Core(model)
    metadata = {
        "sources": json.dumps(model.sources),
        "sample_rate": str(model.sample_rate),
        "audio_channels": str(model.audio_channels),
        "segment_length": str(length),
        "n_fft": str(network.config.n_fft),
    }
    try:
        with atomic_write(path) as partial:
            _write(core, example(2), metadata, partial)
            agreement = min(_agreement(core, partial, example(batch)) for batch in (1, 2))
            if not agreement >= AGREEMENT:
                raise ExportError(
                    f"ONNX Runtime's outputs differ from torch's (agreement {agreement:.0f} dB); "
                    "nothing was written"
                )
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error
    return agreement


@torch.no_grad()
def _write(
    core: Core, example: tuple[Tensor, Tensor], metadata: dict[str, str], path: Path
) -> None:
    import onnx

    batch = {0: torch.export.Dim("batch", min=1)}
    with _silence():
        program = torch.onnx.export(
            core, example, dynamo=True, verbose=False, dynamic_shapes=(batch, batch),
            input_names=INPUTS, output_names=OUTPUTS, external_data=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, path)


@torch.no_grad()
def _agreement(core: Core, path: Path, example: tuple[Tensor, Tensor]) -> float:
    """Return the agreement of ONNX Runtime's outputs with torch's, in dB: that of the worse one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {name: x.numpy() for name, x in zip(INPUTS, example, strict=True)}
    outputs = session.run(OUTPUTS, inputs)
    worst = math.inf
    for expected, actual in zip(core(*example), outputs, strict=True):
        noise = (expected - torch.from_numpy(actual)).double().norm()
        worst = min(worst, float(20 * torch.log10(expected.double().norm() / noise)))
    return worst


def _exportable(model: Model) -> list[HTDemucs]:
    """Return a model's networks; raise ExportError if one of them cannot be exported."""
    members = []
    for member in networks(model):
        if not isinstance(member, HTDemucs):
            raise ExportError(
                f"a {architecture(member.config)} network cannot be exported; "
                "only HTDemucs networks can"
            )
        members.append(member)
    return members


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide the exporter's progress and warnings, which are for its authors."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)
