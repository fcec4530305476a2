"""Write a model as an ONNX file: its core, or the whole model with its STFT.

A file of the core has the inputs `mixture` (B, C, L) and `spectrogram` (B, 2C, F, T) and the
outputs `time` (B, S, C, L) and `spectral` (B, S, 2C, F, T). A file of the whole model has the input
`mix` (B, C, L) and the output `stems` (B, S, C, L), the names that demucs-onnx uses. All are
float32. B is free unless it is fixed; the other sizes are those of one segment. The metadata hold
everything a program needs to use the file: `sources`, `sample_rate`, `audio_channels`,
`segment_length` and `n_fft`. `examples/onnx_separate.py` uses both kinds without torch.
"""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from htdemucs.errors import ExportError
from htdemucs.export.operations import rewritten
from htdemucs.fsutil import atomic_write
from htdemucs.model import Bag, HTDemucs, Model
from htdemucs.model.architectures import architecture
from htdemucs.model.bag import networks, segment_samples
from htdemucs.model.config import Seconds
from htdemucs.settings import ATTENTION_CHUNK, whole_number

AGREEMENT = 60.0  # dB by which ONNX Runtime's outputs must exceed their difference to torch's
SMALL = 256  # values of a tensor, below which a half-precision copy saves nothing
Names = tuple[tuple[str, ...], tuple[str, ...]]  # of inputs, of outputs
CORE: Names = ("mixture", "spectrogram"), ("time", "spectral")
WHOLE: Names = ("mix",), ("stems",)


class Core(nn.Module):
    """A network's core, or the weighted mean of a bag's cores."""

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


def export_onnx(
    model: Model,
    path: Path,
    *,
    with_stft: bool = False,
    half: bool = False,
    static_batch: int | None = None,
    segment: Seconds | None = None,
    attention_chunk: float = ATTENTION_CHUNK,
) -> float:
    """Write a model to a file, check it with ONNX Runtime, and return the agreement with torch.

    The agreement is the ratio, in dB, of the outputs to their difference from torch's. The input is
    noise, in a batch of one and in a batch of two, or in the fixed batch; the lower agreement is
    returned.

    Args:
        model: a network or a bag. It is moved to the CPU and set to evaluation mode.
        path: the file.
        with_stft: write the whole model, with the STFT and its inverse, not only the core.
        half: store weights in half precision; the runtime turns them into float32 when it loads
            the file.
        static_batch: the only size of a batch; by default a batch may have any size.
        segment: seconds; by default the model's own segment.
        attention_chunk: MB of attention scores that are computed at a time, for all heads of a
            fixed batch, or of one item of a free one.

    Raises:
        ExportError: the extra "export" is not installed, the file cannot be written, or its outputs
            differ from torch's; then no file is written.
        SeparationError: the batch is not a whole number, or the segment not a number of seconds.
        SegmentTooLongError: the model was trained on shorter segments.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"exporting needs {error.name}; in the repository, run: pip install '.[export]'"
        ) from error
    model = model.cpu().eval()
    network = _exportable(model)[0]
    length = segment_samples(model, segment)
    if static_batch is not None:
        static_batch = whole_number("static_batch", static_batch, 1)
    names = WHOLE if with_stft else CORE

    def example(batch: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(batch)
        mixture = 0.1 * torch.randn(batch, model.audio_channels, length, generator=generator)
        return (mixture,) if with_stft else (mixture, network.spectrogram(mixture))

    copied = rewritten(model, int(1e6 * attention_chunk) // (static_batch or 1))
    if half:
        _round_weights(copied)
    metadata = {
        "sources": json.dumps(model.sources),
        "sample_rate": str(model.sample_rate),
        "audio_channels": str(model.audio_channels),
        "segment_length": str(length),
        "n_fft": str(network.config.n_fft),
    }
    try:
        with atomic_write(path) as partial:
            proto = _graph(
                copied if with_stft else Core(copied),
                example(static_batch or 2),
                names,
                free_batch=static_batch is None,
            )
            if half:
                _store_in_half(proto.graph)
            onnx.helper.set_model_props(proto, metadata)
            onnx.save(proto, partial)
            del proto
            agreement = min(
                _agreement(model if with_stft else Core(model), partial, example(batch), names)
                for batch in ((static_batch,) if static_batch else (1, 2))
            )
            if not agreement >= AGREEMENT:  # also if it is NaN
                remedy = "; export it without half" if half else ""
                raise ExportError(
                    f"ONNX Runtime's outputs differ from torch's (agreement {agreement:.0f} dB); "
                    f"nothing was written{remedy}"
                )
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error
    return agreement


@torch.no_grad()
def _graph(module: nn.Module, example: tuple[Tensor, ...], names: Names, free_batch: bool) -> Any:
    """Return a module as an ONNX ModelProto. The example has a batch of two if the batch is free.

    Torch takes a size of 1 for a fixed one.
    """
    batch = {0: torch.export.Dim("batch", min=1)}
    with _silence():
        program = torch.onnx.export(
            module, example, dynamo=True, verbose=False, external_data=False,
            input_names=names[0], output_names=names[1],
            dynamic_shapes=(batch,) * len(example) if free_batch else None,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


@torch.no_grad()
def _round_weights(model: Model) -> None:
    """Round the weights of convolutions and linear layers to half precision.

    The other parameters are small. Most published checkpoints are in half precision already.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.half().float()


def _store_in_half(graph: Any) -> None:
    """Store the tensors of a graph that are exact in half precision as such, and cast them.

    The others are constants that the network computes, such as the phases of its positions: these
    need float32.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.size >= SMALL and (halves == values).all():
            tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@torch.no_grad()
def _agreement(
    reference: nn.Module, path: Path, example: tuple[Tensor, ...], names: Names
) -> float:
    """Return the agreement of ONNX Runtime's outputs with torch's, in dB: that of the worse one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {name: x.numpy() for name, x in zip(names[0], example, strict=True)}
    expected = reference(*example)
    expected = expected if isinstance(expected, tuple) else (expected,)
    worst = math.inf
    for wanted, actual in zip(expected, session.run(names[1], inputs), strict=True):
        noise = (wanted - torch.from_numpy(actual)).double().norm()
        worst = min(worst, float(20 * torch.log10(wanted.double().norm() / noise)))
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
