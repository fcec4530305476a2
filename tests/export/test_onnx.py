import json
import shutil

import onnx
import onnxruntime
import pytest
import torch

from helpers import TINY, awake, snr
from htdemucs import Bag, HTDemucs, HTDemucsConfig, Separator
from htdemucs.errors import ExportError
from htdemucs.export import export_onnx
from htdemucs.export import onnx as exporter


def network(seed=0):
    torch.manual_seed(seed)
    return awake(HTDemucs(HTDemucsConfig(**TINY | {"segment": 0.5}))).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model, path = network(), tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, path, export_onnx(model, path)


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
    answer = onnx_separate.separate(onnx_separate.Core(str(path)), track.numpy())
    for name, stem in zip(model.sources, torch.from_numpy(answer), strict=True):
        assert snr(expected[name], stem) > 80


@pytest.mark.slow
def test_a_bag_is_exported_as_its_weighted_mean(tmp_path):
    bag = Bag([network(1), network(2)], [[1, 0, 0.3, 1], [0, 1, 0.7, 1]]).eval()
    export_onnx(bag, tmp_path / "bag.onnx")
    mixture = torch.randn(1, 2, 4000)
    time, spectral = run(tmp_path / "bag.onnx", bag, mixture)
    with torch.no_grad():
        expected = bag(mixture)
    assert snr(expected, time + bag.members[0].spectrogram.inverse(spectral, 4000)) > 90


def test_a_file_that_differs_from_torch_is_deleted(exported, tmp_path, monkeypatch):
    """The file is that of another network with the same sizes."""
    monkeypatch.setattr(exporter, "_write", lambda *args: shutil.copy(exported[1], args[-1]))
    with pytest.raises(ExportError, match="differ from torch"):
        export_onnx(network(seed=1), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ExportError, match=r"needs onnxscript; .*pip install '\.\[export\]'"):
        export_onnx(network(), tmp_path / "model.onnx")
