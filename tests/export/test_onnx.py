import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from helpers import TINY, awake, snr
from htdemucs import Bag, HTDemucs, HTDemucsConfig, Separator
from htdemucs.errors import ExportError, SegmentTooLongError
from htdemucs.export import export_onnx
from htdemucs.export import onnx as exporter
from htdemucs.export.operations import ChunkedAttention, RealSpectrogram
from htdemucs.model.spectrogram import Spectrogram

LENGTH, CHUNK = 2000, 3  # samples, and MB of scores, of the whole model that is exported


def network(seed=0, **fields):
    torch.manual_seed(seed)
    return awake(HTDemucs(HTDemucsConfig(**TINY | {"segment": 0.5} | fields))).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model, path = network(), tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, path, export_onnx(model, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole model, exported with every option, its file and a mixture."""
    model, path = network(depth=1, dconv_depth=1), tmp_path_factory.mktemp("onnx") / "whole.onnx"
    export_onnx(
        model, path, with_stft=True, half=True, static_batch=1, segment=0.25, attention_chunk=CHUNK
    )
    return model, path, torch.randn(1, 2, LENGTH)


def run(path, model, mixture):
    spectrogram = (model.members[0] if isinstance(model, Bag) else model).spectrogram(mixture)
    inputs = {"mixture": mixture.numpy(), "spectrogram": spectrogram.numpy()}
    time, spectral = onnxruntime.InferenceSession(path).run(["time", "spectral"], inputs)
    return torch.from_numpy(time), torch.from_numpy(spectral)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_equals_torch_in_batches_of_any_size(exported, batch):
    model, path, agreement = exported
    assert agreement > 80
    mixture = torch.randn(batch, 2, 4000)
    time, spectral = run(path, model, mixture)
    with torch.no_grad():
        assert snr(model(mixture), time + model.spectrogram.inverse(spectral, 4000)) > 90


def test_the_metadata_hold_everything_a_program_needs(exported):
    _, path, _ = exported
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(about["sources"]) == ["drums", "bass", "other", "vocals"]
    assert about["segment_length"] == "4000"
    assert (about["sample_rate"], about["audio_channels"], about["n_fft"]) == ("8000", "2", "512")


def test_the_example_without_torch_separates_as_the_engine_does(exported):
    import onnx_separate

    model, path, _ = exported
    track = 0.3 * torch.randn(2, 11111)
    expected = Separator(model, shifts=0, precision="fp32").separate(track, 8000)
    answer = onnx_separate.separate(onnx_separate.Model(str(path)), track.numpy())
    for name, stem in zip(model.sources, torch.from_numpy(answer), strict=True):
        assert snr(expected[name], stem) > 80


def test_the_example_separates_with_a_whole_model(whole):
    import onnx_separate

    model, path, _ = whole
    track = 0.3 * torch.randn(2, 5555)
    expected = Separator(model, shifts=0, precision="fp32", segment=0.25).separate(track, 8000)
    answer = onnx_separate.separate(onnx_separate.Model(str(path)), track.numpy())
    for name, stem in zip(model.sources, torch.from_numpy(answer), strict=True):
        assert snr(expected[name], stem) > 55


def test_a_whole_model_is_called_as_demucs_onnx_calls_one(whole):
    """It runs names that it has, on one segment, and takes the first item of the first output."""
    model, path, mixture = whole
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    stems = session.run(["stems"], {"mix": mixture.numpy()})[0][0]
    with torch.no_grad():
        assert snr(model(mixture)[0], torch.from_numpy(stems)) > 60


def test_a_whole_model_is_called_as_mixxx_calls_one(whole):
    """It reads the file, takes names and the number of sources from it, and gives both buffers."""
    model, path, mixture = whole
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    [entry], [answer] = session.get_inputs(), session.get_outputs()
    stems = np.zeros((1, answer.shape[1], *mixture.shape[1:]), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(entry.name, mixture.numpy())
    binding.bind_output(answer.name, "cpu", 0, np.float32, stems.shape, stems.ctypes.data)
    session.run_with_iobinding(binding)
    assert (entry.shape, answer.shape) == ([1, 2, LENGTH], [1, 4, 2, LENGTH])
    with torch.no_grad():
        assert snr(model(mixture), torch.from_numpy(stems)) > 60


def test_a_fixed_batch_leaves_no_sizes_to_compute_and_attention_is_in_chunks(whole):
    _, path, _ = whole
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    sizes = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}
    assert not {"Shape", "STFT", "DFT"} & {node.op_type for node in graph.node}
    scores = [sizes[node.output[0]] for node in graph.node if node.op_type == "Softmax"]
    assert len(scores) > 4  # of two layers in two branches
    assert all(4 * np.prod([size.dim_value for size in dims]) <= 1e6 * CHUNK for dims in scores)


def test_tensors_that_are_exact_in_half_precision_are_stored_so_and_no_others(whole):
    """The others are those that the network computes: positions, and sines of the STFT."""
    model, path, _ = whole
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in onnx.load(path).graph.initializer}
    large = {name: x for name, x in arrays.items() if x.size >= 256}
    kept = [x for x in large.values() if x.dtype == np.float32]
    assert kept
    assert all((x != x.astype(np.float16)).any() for x in kept)
    assert large["time_decoder.0.rewrite.weight_half"].dtype == np.float16
    weight = model.time_decoder[0].rewrite.weight
    assert not torch.equal(weight, weight.half().float())  # the model itself is not rounded


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"with_stft": True},
        {"half": True},
        {"static_batch": 2},
        {"segment": 0.3},
        {"attention_chunk": 0.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_each_option_alone_equals_torch(options, tmp_path):
    """Weights that are exact in half precision, as those of most checkpoints are, lose nothing."""
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    assert export_onnx(model, tmp_path / "model.onnx", **options) > 80


@pytest.mark.slow
def test_no_tensor_of_htdemucs_exceeds_what_webgpu_binds(tmp_path):
    """The network has the published sizes. A free size counts as 1."""
    model, path = awake(HTDemucs(HTDemucsConfig())).eval(), tmp_path / "htdemucs.onnx"
    export_onnx(model, path, with_stft=True)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    values = [value.type.tensor_type.shape.dim for value in [*graph.value_info, *graph.output]]
    assert max(4 * np.prod([size.dim_value or 1 for size in dims]) for dims in values) <= 128 << 20


@pytest.mark.parametrize(("n_fft", "length"), [(512, 4001), (48, 7)])
def test_the_stft_without_complex_numbers_equals_the_networks(n_fft, length):
    wave, real = Spectrogram(n_fft), RealSpectrogram(n_fft)
    mixture = torch.randn(2, 2, length)
    spectral = torch.randn(2, 3, *wave(mixture).shape[1:])
    assert snr(wave(mixture), real(mixture)) > 120
    assert snr(wave.inverse(spectral, length), real.inverse(spectral, length)) > 120


@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_attention_in_chunks_equals_torchs(size):
    query, key, value = torch.randn(3, 2, 4, 30, 8).unbind()
    expected = F.scaled_dot_product_attention(query, key[:, :, :17], value[:, :, :17])
    assert snr(expected, ChunkedAttention(size)(query, key[:, :, :17], value[:, :, :17])) > 110


@pytest.mark.slow
def test_a_bag_is_exported_as_its_weighted_mean(tmp_path):
    bag = Bag([network(1), network(2)], [[1, 0, 0.3, 1], [0, 1, 0.7, 1]]).eval()
    export_onnx(bag, tmp_path / "bag.onnx")
    mixture = torch.randn(1, 2, 4000)
    time, spectral = run(tmp_path / "bag.onnx", bag, mixture)
    with torch.no_grad():
        expected = bag(mixture)
    assert snr(expected, time + bag.members[0].spectrogram.inverse(spectral, 4000)) > 90


def test_a_segment_longer_than_in_training_is_refused(tmp_path):
    with pytest.raises(SegmentTooLongError, match=r"0.6 s is longer than the 0.5 s"):
        export_onnx(network(), tmp_path / "model.onnx", segment=0.6)


def test_a_file_that_differs_from_torch_is_deleted(exported, tmp_path, monkeypatch):
    """The file is that of another network with the same sizes."""
    monkeypatch.setattr(exporter, "_graph", lambda *_, **__: onnx.load(exported[1]))
    with pytest.raises(ExportError, match="differ from torch"):
        export_onnx(network(seed=1), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"needs onnxscript; .*pip install '\.\[export\]'"):
        export_onnx(network(), tmp_path / "model.onnx")
