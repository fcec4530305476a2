"""A program's own engine, on the helpers of `apply_model`, as stable-ts and others have it."""

import sys
from pathlib import Path

import soundfile as sf
import torch
from demucs.apply import BagOfModels, HTDemucs, Model, TensorChunk, apply_model, tensor_chunk
from demucs.pretrained import get_model
from demucs.utils import DummyPoolExecutor, center_trim

out = Path(sys.argv[2])


def infer(model: Model, chunk: TensorChunk) -> torch.Tensor:
    length = chunk.length
    assert isinstance(model, HTDemucs)
    valid_length = model.valid_length(length) if hasattr(model, "valid_length") else length
    with torch.no_grad():
        return center_trim(model(chunk.padded(valid_length)), length)


bag = get_model("htdemucs")
generator = torch.Generator().manual_seed(2)
mix = 0.1 * torch.randn(1, 2, 15_000, generator=generator)
[model] = bag.models
pool, whole = DummyPoolExecutor(), tensor_chunk(mix)
tasks = [pool.submit(infer, model, TensorChunk(whole, i, 4_000)) for i in range(0, 15_000, 4_000)]
stems = torch.cat([task.result() for task in tasks], dim=-1)[0]
for name, stem in zip(bag.sources, stems, strict=True):
    sf.write(out / f"{name}.wav", stem.numpy().T, bag.samplerate, "FLOAT")
nested = BagOfModels(
    [get_model("htdemucs"), get_model("htdemucs_ft")], [[1, 2, 3, 1], [2, 1, 1, 1]]
)
stems = apply_model(nested, tensor_chunk(mix), shifts=1)[0]
sf.write(out / "nested.wav", stems[3].numpy().T, nested.samplerate, "FLOAT")
