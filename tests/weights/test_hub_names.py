"""`hf://` names, from a fake hub: both layouts, offline, and what is refused."""

import pytest
from huggingface_hub import constants as hub_settings

from htdemucs import Bag, CheckpointError, DownloadError, ModelNotFoundError, load_model, save_model
from weights.checkpoints import assert_same, by_hand, one_line, save_safetensors, write_bag


@pytest.mark.parametrize(("name", "repository"), [("htdemucs", "HTDemucs"), ("mix", "Demucs-mix")])
@pytest.mark.parametrize("namespace", ["", "someone/"])
def test_hub_models_in_the_published_layout_are_loaded(
    name, repository, namespace, internet, model, tmp_path
):
    content = save_safetensors(model, tmp_path / "m.safetensors").read_bytes()
    bag = write_bag(tmp_path / "b.yaml", models=["0a", "0b"], weights=[[1] * 4] * 2, segment=0.7)
    files = {f"{name}.yaml": bag.read_bytes(), "0a.safetensors": content, "0b.safetensors": content}
    internet.on_hub(f"{namespace or 'adefossez/'}{repository}", files)
    loaded = load_model(f"hf://{namespace}{name}", device="cpu")
    assert isinstance(loaded, Bag)
    assert float(loaded.segment) == 0.7
    assert_same(loaded.members[1], model)


def test_hub_models_are_loaded_offline_after_one_download(
    internet, originals, model, tmp_path, monkeypatch
):
    bag = write_bag(tmp_path / "b.yaml", models=["0a"])
    files = {"mix.yaml": bag.read_bytes(), "0a.safetensors": originals["safetensors"].read_bytes()}
    internet.on_hub("someone/Demucs-mix", files)
    assert_same(load_model("hf://someone/mix", device="cpu"), model)
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    internet.log.clear()
    assert_same(load_model("hf://someone/mix", device="cpu"), model)
    assert internet.log == []


def test_hub_models_in_our_own_layout_are_loaded(internet, model, tmp_path):
    save_model(model, tmp_path / "ours")
    files = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    internet.on_hub("someone/my-model", files)
    assert_same(load_model("hf://someone/my-model", device="cpu"), model)
    internet.faults["model.safetensors"] = 404
    with pytest.raises(DownloadError) as error:
        load_model("hf://someone/my-model", device="cpu", cache_dir=tmp_path / "elsewhere")
    one_line(error, "model.safetensors")


def test_a_hub_model_that_does_not_exist_is_named(internet):
    with pytest.raises(DownloadError) as error:
        load_model("hf://someone/nothing", device="cpu")
    one_line(error, "someone/Demucs-nothing/nothing.yaml")


@pytest.mark.parametrize("name", ["", "/", "a/b/c", "../x", "a/../x", "a/..", "a b/x", "a/", "x?"])
def test_impossible_hub_names_are_refused(name, internet):
    with pytest.raises(ModelNotFoundError, match="hf://namespace/name"):
        load_model(f"hf://{name}", device="cpu")
    assert internet.log == []


@pytest.mark.parametrize("signature", ["../../x", "x/y", ".x", "", "a b"])
def test_a_hub_bag_must_not_name_paths(signature, internet, tmp_path):
    bag = write_bag(tmp_path / "b.yaml", models=[signature])
    internet.on_hub("someone/Demucs-mix", {"mix.yaml": bag.read_bytes()})
    with pytest.raises(CheckpointError, match="not a signature"):
        load_model("hf://someone/mix", device="cpu")
    assert internet.downloads() == ["mix.yaml"]


@pytest.mark.parametrize("fault", [429, 500, 503])
def test_a_hub_that_fails_is_asked_for_one_file_only(fault, internet):
    internet.faults["/resolve/"] = fault
    with pytest.raises(DownloadError) as error:
        load_model("hf://someone/mix", device="cpu")
    folder = f"{internet.address}/someone/mix/tree/main"
    by_hand(error, f"127.0.0.1 answered {fault} (", f"  download all files from {folder} or ")
    assert {path.rpartition("/")[2] for _, path, _ in internet.log} == {"mix.yaml"}


@pytest.mark.parametrize("fault", [401, 403, 404])
def test_a_hub_that_refuses_is_named_with_its_status(fault, internet):
    internet.faults["/resolve/"] = fault
    with pytest.raises(DownloadError) as error:
        load_model("hf://someone/mix", device="cpu")
    one_line(error, f"someone/mix/config.json: 127.0.0.1 answered {fault} (")


def test_offline_a_hub_model_says_what_to_copy_where(internet, monkeypatch):
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError) as error:
        load_model("hf://someone/mix", device="cpu")
    by_hand(error, "someone/mix/config.json is not in the hub's cache, and HF_HUB_OFFLINE is set")
    by_hand(error, "/someone/mix/tree/main or ", "/someone/Demucs-mix/tree/main", "repo FOLDER")


def test_a_hub_that_fails_leaves_the_files_in_its_cache(internet, originals, model, tmp_path):
    bag = write_bag(tmp_path / "b.yaml", models=["0a"])
    files = {"mix.yaml": bag.read_bytes(), "0a.safetensors": originals["safetensors"].read_bytes()}
    internet.on_hub("someone/Demucs-mix", files)
    assert_same(load_model("hf://someone/mix", device="cpu"), model)
    internet.faults["/resolve/"] = 503
    assert_same(load_model("hf://someone/mix", device="cpu"), model)
