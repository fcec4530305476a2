"""Models on this machine, by name and by path. No test here may use the network."""

import hashlib
from pathlib import Path

import pytest
import torch

from htdemucs import (
    Bag,
    CheckpointError,
    ConfigError,
    DemucsConfig,
    HDemucsConfig,
    HTDemucs,
    HTDemucsConfig,
    ModelNotFoundError,
    load_model,
    save_model,
)
from htdemucs.devices import choose_device
from htdemucs.weights import download, registry
from htdemucs.weights.load import known_config
from weights.checkpoints import assert_same, save_safetensors, tiny, write_bag


@pytest.fixture(autouse=True)
def _no_network(caches, monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"asked the network for {arguments}")

    monkeypatch.setattr(registry, "download_from_hub", refuse)
    monkeypatch.setattr(registry, "download_from_url", refuse)


@pytest.fixture
def repo(th, st, tmp_path) -> Path:
    """Return a folder such as people pass to --repo."""
    folder = tmp_path / "repo"
    folder.mkdir()
    checksum = hashlib.sha256(th.read_bytes()).hexdigest()[:8]
    (folder / "0000000a.th").write_bytes(th.read_bytes())
    (folder / f"0000000b-{checksum}.th").write_bytes(th.read_bytes())
    (folder / "0000000c-12345678.th").write_bytes(th.read_bytes())
    (folder / "0000000d.safetensors").write_bytes(st.read_bytes())
    signatures = ["0000000a", "0000000b", "0000000d"]
    weights = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]]
    write_bag(folder / "mix.yaml", models=signatures, weights=weights)
    write_bag(folder / "broken.yml", models=["0000000a", "0000000c"])
    return folder


def load(name, **options):
    return load_model(name, device="cpu", **options)


def message_of(error: type[Exception], name, **options) -> str:
    with pytest.raises(error) as caught:
        load(name, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", ["0000000a", "0000000b", "0000000d"])
def test_a_member_of_a_repo_is_loaded(name, repo, model):
    assert_same(load(name, repo=repo), model)
    assert_same(load(name, repo=str(repo)), model)


def test_a_bag_of_a_repo_is_loaded(repo, model):
    bag = load("mix", repo=repo)
    assert isinstance(bag, Bag)
    assert bag.weights.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]]
    assert not bag.training
    assert_same(bag.members[2], model)
    assert_same(load(repo / "mix.yaml"), bag)


@pytest.mark.parametrize(
    ("stems", "members"), [(["drums"], 1), (["other", "drums"], 2), (["vocals"], 3)]
)
def test_a_bag_for_some_stems_reads_only_the_members_they_need(stems, members, repo):
    mixture = torch.randn(1, 2, 3000)
    part, whole = load("mix", repo=repo, stems=stems), load("mix", repo=repo)
    assert part.sources == tuple(stems)
    assert len(part.members) == members
    with torch.no_grad():
        assert torch.equal(part(mixture), whole.select_sources(stems)(mixture))


def test_unknown_stems_do_not_limit_a_bag(repo, model):
    assert load("mix", repo=repo, stems=["piano"]).sources == model.sources
    assert_same(load("0000000a", repo=repo, stems=["vocals"]), model)


def test_a_file_with_a_wrong_checksum_is_refused(repo):
    for name in ("0000000c", "broken"):
        message = message_of(CheckpointError, name, repo=repo)
        assert "0000000c-12345678.th is damaged: its checksum differs" in message


def test_two_files_for_one_signature_are_refused(repo):
    (repo / "0000000c-87654321.th").write_bytes(b"another")
    assert "delete all but one" in message_of(CheckpointError, "0000000c", repo=repo)


def test_a_folder_in_our_format_is_found_in_a_repo(repo, model):
    save_model(model, repo / "mine")
    assert_same(load("mine", repo=repo), model)


def test_a_repo_without_the_name_is_described(repo, tmp_path):
    message = message_of(ModelNotFoundError, "htdemucs", repo=repo)
    assert "0000000a" in message
    assert "mix" in message
    assert "0000000d" in message
    (repo / "mix.yaml").write_text("models: [0000000f]")
    assert "needs 0000000f.th" in message_of(ModelNotFoundError, "mix", repo=repo)
    (tmp_path / "bare").mkdir()
    assert "no models" in message_of(ModelNotFoundError, "x", repo=tmp_path / "bare")
    assert "not a folder" in message_of(ModelNotFoundError, "x", repo=tmp_path / "absent")


@pytest.mark.parametrize("name", ["../repo/0000000a", "/0000000a", "", ".", "..", "a/b", "a\\b"])
def test_names_that_would_leave_a_repo_are_refused(name, repo):
    message_of(ModelNotFoundError, name, repo=repo)


def test_models_are_loaded_by_path(th, st, model, tmp_path, monkeypatch):
    save_model(model, tmp_path / "folder")
    for path in (th, str(th), st, str(st), tmp_path / "folder"):
        assert_same(load(path), model)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_same(load(f"~/{th.name}"), model)
    monkeypatch.chdir(tmp_path)
    assert_same(load(st.name), model)


@pytest.mark.parametrize(
    "name",
    ["no/such.th", "~nobody/x.th", "x" * 5000, "a\0b", "", "  ", "two\nlines", "\x1b[31m"],
)
def test_impossible_paths_are_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ModelNotFoundError, CheckpointError)) as caught:
        load(name)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()


def test_paths_that_are_no_model_are_refused(tmp_path):
    (tmp_path / "song.mp3").write_bytes(b"ID3")
    assert "it must be a .th" in message_of(ModelNotFoundError, tmp_path / "song.mp3")
    assert "as the repo" in message_of(CheckpointError, tmp_path)
    (tmp_path / "odd.th").mkdir()
    assert "config.json" in message_of(CheckpointError, tmp_path / "odd.th")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("htdemuc", "htdemucs"), ("htdemucs_tf", "htdemucs_ft"), ("htdemucs6s", "htdemucs_6s")],
)
def test_the_closest_name_is_suggested(name, meant):
    assert f"did you mean {meant}?" in message_of(ModelNotFoundError, name)


def test_all_names_are_listed_if_none_is_close():
    message = message_of(ModelNotFoundError, "spleeter")
    assert "htdemucs, htdemucs_ft, htdemucs_6s" in message


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "models: [!!python/object/apply:os.system ['touch {marker}']]",
        "models: !!python/name:os.system",
        "models: [0a]\nsegment: !!python/object/new:subprocess.Popen [['touch', '{marker}']]",
        "models: ['../0000000a']",
        "models: ['/etc/passwd']",
        "models: ['..']",
        "models: ['0000000a\\n']",
        "models: 0000000a",
        "models: []",
        "models: [[0000000a]]",
        "models: [null]",
        "models: [1.5]",
        "models: [true]",
        "models: [0x" + "f" * 9000 + "]",
        "models: [" + "9" * 9000 + "]",
        "models: [2001-99-99]",
        "models: {0000000a: 1}",
        "weights: [[1]]",
        "models: [0000000a]\nclass: os.system",
        "models: [0000000a]\nweights: 5",
        "models: [0000000a]\nweights: []",
        "models: [0000000a]\nweights: [[1, 1, 1]]",
        "models: [0000000a]\nweights: [[1, 1, 1, 1], [1, 1, 1, 1]]",
        "models: [0000000a]\nweights: [[1, 1, 1, x]]",
        "models: [0000000a]\nweights: [[1, 1, 1, .nan]]",
        "models: [0000000a]\nweights: [[1, 1, 1, .inf]]",
        "models: [0000000a]\nweights: [[1, 1, 1, 0]]",
        "models: [0000000a]\nweights: [1, 1, 1, 1]",
        "models: [0000000a]\nsegment: -1",
        "models: [0000000a]\nsegment: 0",
        "models: [0000000a]\nsegment: .inf",
        "models: [0000000a]\nsegment: .nan",
        "models: [0000000a]\nsegment: yes",
        "models: [0000000a]\nsegment: '1e999999999'",
        "models: [0000000a]\nsegment: 1" + "0" * 400,
        "",
        "text",
        "[models]",
        "a: b: c",
        "{",
        "[" * 400,
        "\x01",
        "models: [\ud800]",
    ],
)
def test_yaml_that_is_no_bag_is_refused(text, repo, tmp_path):
    marker = tmp_path / "it_ran"
    text = text.replace("{marker}", str(marker))
    (repo / "evil.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "evil" in message_of(CheckpointError, "evil", repo=repo)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["models", "weights", "segment"])
def test_yaml_that_is_endless_to_read_is_refused(key, repo):
    anchors = "&a0 [x, x]"
    for i in range(1, 60):
        anchors = f"&a{i} [{anchors}, *a{i - 1}]"
    models = "" if key == "models" else "models: [0000000a]\n"
    text = f"{models}{key}: [{anchors}]\n"
    (repo / "bomb.yaml").write_text(text)
    assert "bomb.yaml" in message_of(CheckpointError, "bomb", repo=repo)


def test_a_bag_of_networks_with_other_sources_is_refused(repo, tmp_path):
    other = tiny(depth=1, t_layers=0, bottom_channels=0, sources=["a", "b", "c", "d"])
    save_safetensors(other, repo / "0000000e.safetensors")
    write_bag(repo / "odd.yaml", models=["0000000a", "0000000e"])
    assert "same sources" in message_of(CheckpointError, "odd", repo=repo)


@pytest.mark.parametrize(("segment", "exact"), [(0.7, 0.7), (44, 1), (1, 1)])
def test_the_segment_of_a_bag_is_as_written_and_never_longer_than_its_members_own(
    segment, exact, repo
):
    write_bag(repo / "short.yaml", models=["0000000a"], segment=segment)
    bag = load("short", repo=repo)
    assert bag.segment == exact
    assert isinstance(bag, Bag)


def test_a_bag_of_one_network_is_loaded_as_that_network(repo, model):
    """The published package describes every model as a bag."""
    write_bag(repo / "single.yaml", models=["0000000a"])
    loaded = load("single", repo=repo)
    assert isinstance(loaded, HTDemucs)
    assert_same(loaded, model)


def test_all_official_models_are_accounted_for():
    table = registry._table()
    named = [member for model in registry.official_models().values() for member in model.members]
    assert set(named) == set(table["signatures"])
    assert {entry["folder"] for entry in table["signatures"].values()} == {
        "hybrid_transformer",
        "mdx_final",
    }
    for signature, entry in table["signatures"].items():
        assert len(bytes.fromhex(signature)) == len(bytes.fromhex(entry["checksum"])) == 4
    assert table["signatures"]["955717e8"]["checksum"] == "8726e21a"


def test_official_configurations_and_weights_fit():
    for model in registry.official_models().values():
        configs = [registry.official_config(member) for member in model.members]
        assert {config.sources for config in configs} == {model.sources}
        if model.weights is not None:
            assert len(model.weights) == len(model.members)
            assert {len(row) for row in model.weights} == {len(model.sources)}
        assert model.repository == "adefossez/" + registry.repository_name(model.name)
        assert not registry.is_cached(model)
    assert registry.DEFAULT_MODEL in registry.official_models()


def test_known_configurations_need_no_weights(st):
    assert known_config("htdemucs") == known_config("955717e8") == HTDemucsConfig()
    assert known_config("htdemucs_6s").sources[4:] == ("guitar", "piano")
    assert known_config(str(st)).channels == 8
    with pytest.raises(ModelNotFoundError, match="downloaded"):
        known_config("hf://someone/mix")
    assert known_config("hdemucs_mmi") == HDemucsConfig()
    assert known_config("mdx") == known_config("9a6b4851") == DemucsConfig()
    assert not known_config("c511e2ab").cac
    assert known_config("mdx_q") == DemucsConfig()


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "cpu:x"])
def test_a_missing_device_is_reported_before_the_model_is_looked_for(device):
    with pytest.raises(ConfigError, match="no device"):
        load_model("htdemucs", device=device)


def test_a_model_is_loaded_to_the_device(th):
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device(None).type in ("cpu", "cuda", "mps")
    assert next(load_model(th, device="cpu").parameters()).device.type == "cpu"


def test_the_environment_chooses_the_cache(caches, monkeypatch):
    assert download.default_cache() == caches["HTDEMUCS_CACHE"]
    monkeypatch.delenv("HTDEMUCS_CACHE")
    assert download.default_cache() == caches["XDG_CACHE_HOME"] / "htdemucs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(caches["TORCH_HOME"]))
    assert download.default_cache() == caches["TORCH_HOME"] / ".cache" / "htdemucs"
    monkeypatch.setenv("HTDEMUCS_CACHE", "~/models")
    assert download.default_cache() == caches["TORCH_HOME"] / "models"
