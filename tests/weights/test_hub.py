"""`from_pretrained`, `save_pretrained`, `push_to_hub`, and the card that goes with a model."""

import inspect
import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from huggingface_hub import constants as hub_settings

from htdemucs import (
    AudioEncoding,
    Bag,
    CheckpointError,
    ConfigError,
    DownloadError,
    HTDemucs,
    ModelNotFoundError,
    UploadError,
    load_model,
    save_model,
)
from htdemucs.audio import AudioWriter
from htdemucs.evaluation import EvaluationOptions, evaluate
from htdemucs.evaluation.json_report import write_document
from htdemucs.weights import hub
from weights.checkpoints import assert_same, by_hand, one_line, save_safetensors, tiny, write_bag
from weights.fake_hub import TOKEN

# The client's own, on its way to a store of large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
FILES = ["README.md", "config.json", "model.safetensors"]
SIGNATURE = "955717e8"


@pytest.fixture(scope="module")
def bag() -> Bag:
    torch.manual_seed(1)
    members = [tiny(depth=1, t_layers=0, bottom_channels=0) for _ in range(2)]
    return Bag(members, [[1, 0, 0.1, 1], [0, 2, 0.9, 1]], Fraction(1, 3)).eval()


def card(folder) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_saved_network_is_read_again(model, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == FILES
    again = HTDemucs.from_pretrained(tmp_path / "mine")
    assert_same(again, model)
    assert not again.training
    assert_same(load_model(tmp_path / "mine", device="cpu"), model)


def test_a_saved_bag_is_read_again(bag, tmp_path):
    bag.save_pretrained(str(tmp_path / "mine"))
    again = Bag.from_pretrained(str(tmp_path / "mine"))
    assert_same(again, bag)
    assert torch.equal(again.weights, bag.weights)


def test_another_class_is_refused_with_the_call_to_make(model, bag, tmp_path):
    bag.save_pretrained(tmp_path / "bag")
    with pytest.raises(CheckpointError) as error:
        HTDemucs.from_pretrained(tmp_path / "bag")
    one_line(error, "Bag.from_pretrained", "load_model")
    with pytest.raises(CheckpointError, match=r"HTDemucs\.from_pretrained"):
        Bag.from_pretrained("mini")


def test_names_of_models_are_taken(internet, originals, model):
    assert HTDemucs.from_pretrained("mini").sample_rate == 44_100
    content = originals["safetensors"].read_bytes()
    internet.on_hub("adefossez/HTDemucs", {f"{SIGNATURE}.safetensors": content})
    assert_same(HTDemucs.from_pretrained("htdemucs"), model)
    with pytest.raises(ModelNotFoundError, match="no model nonsense"):
        HTDemucs.from_pretrained("nonsense")


def test_the_hub_s_client_knows_the_same_keywords():
    """What its own mixin takes, ours takes, or says what to do instead."""
    for name, others in {
        "from_pretrained": {"model_kwargs"},
        "save_pretrained": {"push_to_hub_kwargs"},
        "push_to_hub": set(),
    }.items():
        theirs = inspect.signature(getattr(PyTorchModelHubMixin, name)).parameters
        ours = inspect.signature(getattr(HTDemucs, name)).parameters
        hub.check_keywords(name, dict.fromkeys(set(theirs) - others - set(ours)))


def on_hub(server, model, tmp_path, repository="someone/my-model", revision="main"):
    save_model(model, tmp_path / revision)
    files = {path.name: path.read_bytes() for path in (tmp_path / revision).iterdir()}
    server.on_hub(repository, files, revision)


def test_a_repository_is_read_in_the_wanted_revision(internet, model, bag, tmp_path):
    on_hub(internet, model, tmp_path)
    on_hub(internet, bag, tmp_path, revision="v2")
    assert_same(HTDemucs.from_pretrained("someone/my-model"), model)
    assert_same(Bag.from_pretrained("someone/my-model", revision="v2"), bag)
    assert_same(Bag.from_pretrained("hf://someone/my-model", revision="v2"), bag)


def test_a_folder_goes_before_a_repository(internet, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(model, tmp_path / "someone" / "my-model")
    assert_same(HTDemucs.from_pretrained("someone/my-model"), model)
    assert internet.log == []


@pytest.mark.parametrize("name", ["HTDemucs", "HTDemucs-mix", "Demucs-mix"])
def test_published_repositories_are_read_by_their_own_names(name, internet, model, tmp_path):
    content = save_safetensors(model, tmp_path / "m.safetensors").read_bytes()
    yaml_file = write_bag(tmp_path / "b.yaml", models=["0a"]).read_bytes()
    file = {"HTDemucs": "htdemucs", "HTDemucs-mix": "htdemucs_mix", "Demucs-mix": "mix"}[name]
    internet.on_hub(f"someone/{name}", {f"{file}.yaml": yaml_file, "0a.safetensors": content})
    assert_same(HTDemucs.from_pretrained(f"someone/{name}"), model)
    assert_same(load_model(f"hf://someone/{name}", device="cpu"), model)


def test_the_network_is_used_only_where_allowed(internet, model, tmp_path):
    on_hub(internet, model, tmp_path)
    folder = tmp_path / "cache"
    for name in ("someone/my-model", "htdemucs"):
        with pytest.raises(DownloadError) as error:
            HTDemucs.from_pretrained(name, local_files_only=True, cache_dir=folder)
        by_hand(error)
    assert internet.log == []
    HTDemucs.from_pretrained("someone/my-model", cache_dir=folder)
    assert list(folder.rglob("model.safetensors"))
    internet.log.clear()
    again = HTDemucs.from_pretrained("someone/my-model", cache_dir=folder, local_files_only=True)
    assert_same(again, model)
    assert internet.log == []


def test_a_download_can_be_forced(internet, originals, model):
    content = originals["safetensors"].read_bytes()
    internet.on_hub("adefossez/HTDemucs", {f"{SIGNATURE}.safetensors": content})
    HTDemucs.from_pretrained("htdemucs")
    internet.log.clear()
    HTDemucs.from_pretrained("htdemucs", force_download=True)
    assert internet.downloads() == [f"{SIGNATURE}.safetensors"]


def test_a_revision_of_an_official_model_is_never_replaced_by_another(
    internet, originals, model, caches
):
    name = f"{SIGNATURE}.safetensors"
    caches["HTDEMUCS_CACHE"].mkdir()
    (caches["HTDEMUCS_CACHE"] / name).write_bytes(originals["safetensors"].read_bytes())
    with pytest.raises(DownloadError) as error:
        HTDemucs.from_pretrained("htdemucs", revision="v2")
    one_line(error, "revision")
    other = tiny(depth=1, t_layers=0, bottom_channels=0)
    content = save_safetensors(other, caches["HTDEMUCS_CACHE"] / "v2.safetensors").read_bytes()
    internet.on_hub("adefossez/HTDemucs", {name: content}, "v2")
    assert_same(HTDemucs.from_pretrained("htdemucs", revision="v2"), other)


def test_the_card_says_what_is_known_and_nothing_else(model, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    text = card(tmp_path / "mine")
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    for words in (
        "# mine",
        "drums, bass, other and vocals",
        "| sample rate | 8000 Hz |",
        "| segment | 1 s |",
        f"| parameters | {parameters:.2f} million |",
        "| network | `HTDemucs` |",
        "## Training data\n\nNot stated.",
        "## Scores\n\nNot measured.",
        "## Licence of the weights\n\nNot stated",
        'HTDemucs.from_pretrained("mine")',
    ):
        assert words in text
    data = ModelCard(text).data
    assert data.license is None
    assert data.library_name == "htdemucs"


def test_the_card_of_a_bag_counts_its_networks(bag, tmp_path):
    bag.save_pretrained(tmp_path / "mine", license="cc-by-4.0", training_data="Twelve songs: ours.")
    text = card(tmp_path / "mine")
    assert "a bag of 2 `HTDemucs`" in text
    assert "## Training data\n\nTwelve songs: ours.\n" in text
    assert "## Licence of the weights\n\ncc-by-4.0\n" in text
    assert ModelCard(text).data.license == "cc-by-4.0"


@pytest.mark.parametrize("licence", ["For research only: ask us", "CC BY-NC 4.0", "自由"])
def test_a_licence_without_a_name_of_the_hub_s_is_stated_in_words(licence, model, tmp_path):
    model.save_pretrained(tmp_path / "mine", license=licence)
    text = card(tmp_path / "mine")
    assert ModelCard(text).data.license == "other"
    assert f"## Licence of the weights\n\n{licence}\n" in text


def test_the_commands_on_the_card_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    HTDemucs.from_pretrained("mini").save_pretrained("mine")
    code = card(tmp_path / "mine").split("```python\n")[1].split("```")[0]
    names = {"waveform": torch.randn(2, 1000), "sample_rate": 44_100}
    exec(code, names)
    assert names["stems"]["drums"].shape == (2, 1000)


def test_the_python_of_the_document_runs(internet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    document = Path(__file__).parents[2] / "docs" / "models.md"
    exec(document.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], {})
    assert "200 songs" in card(tmp_path / "my-model")
    assert internet.commits[0]["files"] == FILES


def test_a_card_is_kept_unless_another_is_described(model, tmp_path):
    folder = tmp_path / "mine"
    model.save_pretrained(folder, license="mit")
    (folder / "README.md").write_text("mine\n", encoding="utf-8")
    model.save_pretrained(folder)
    assert card(folder) == "mine\n"
    model.save_pretrained(folder, license="mit")
    assert "license: mit" in card(folder)


def test_scores_are_those_of_an_evaluation(tmp_path, monkeypatch):
    model = HTDemucs.from_pretrained("mini")
    for stem in model.sources:
        with AudioWriter(
            tmp_path / "music" / "one" / f"{stem}.wav", 44_100, 2, AudioEncoding("wav")
        ) as writer:
            writer.write(0.1 * torch.randn(2, 50_000))
    evaluation = evaluate(tmp_path / "music", EvaluationOptions("mini", device="cpu"))
    write_document(evaluation, tmp_path / "scores.json")
    model.save_pretrained(tmp_path / "mine", scores=tmp_path / "scores.json")
    text = card(tmp_path / "mine")
    document = json.loads((tmp_path / "scores.json").read_text())
    assert "1 track (0.0 min) of `music`" in text
    assert str(tmp_path) not in text
    assert "| dB | drums | bass | other | vocals | all |" in text
    assert f"| {document['mean']['drums']['nsdr']:.2f} |" in text
    assert "SDR (museval)" in text
    del document["median"]["all"]["museval_sdr"]  # as with --metrics nsdr
    (tmp_path / "scores.json").write_text(json.dumps(document))
    model.save_pretrained(tmp_path / "nsdr", scores=tmp_path / "scores.json")
    assert "SDR (museval)" not in card(tmp_path / "nsdr")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scores": "missing.json"}, ["cannot read", "missing.json"]),
        ({"scores": "other.json"}, ["other.json", "htdemucs evaluate"]),
        ({"license": ""}, ["license"]),
        ({"license": "a\nb"}, ["license"]),
        ({"license": 5}, ["license"]),
    ],
)
def test_a_card_that_cannot_be_written_is_refused_first(
    fields, words, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"format": "htdemucs-evaluation"}')
    with pytest.raises(CheckpointError) as error:
        model.save_pretrained("mine", **fields)
    one_line(error, *words)
    assert not (tmp_path / "mine").exists()


def test_a_field_that_no_card_has_is_an_error(model, tmp_path):
    with pytest.raises(TypeError, match="licence"):
        model.save_pretrained(tmp_path / "mine", licence="mit")
    assert not (tmp_path / "mine").exists()


def test_habitual_keywords_that_change_nothing_are_accepted(internet, model, tmp_path):
    model.save_pretrained(
        save_directory=tmp_path / "mine",
        safe_serialization=True,
        max_shard_size="5GB",
        is_main_process=True,
        push_to_hub=False,
        state_dict=None,
    )
    model.save_pretrained(tmp_path / "of-another-process", is_main_process=False)
    assert not (tmp_path / "of-another-process").exists()
    again = HTDemucs.from_pretrained(
        pretrained_model_name_or_path=tmp_path / "mine",
        low_cpu_mem_usage=True,
        use_safetensors=True,
        device_map="cpu",
        map_location="cpu",
        strict=False,
        torch_dtype=torch.float32,
        dtype="auto",
        trust_remote_code=False,
        resume_download=None,
        proxies=None,
    )
    assert_same(again, model)
    model.push_to_hub(
        "someone/new",
        license="mit",
        token=TOKEN,
        safe_serialization=True,
        use_temp_dir=True,
        commit_message=None,
        commit_description="More.",
        create_pr=None,
    )
    assert internet.commits[0]["summary"] == "Upload model"


@pytest.mark.parametrize(
    ("method", "keywords", "words"),
    [
        ("from_pretrained", {"torch_dtype": torch.float16}, ["float32", "precision="]),
        ("from_pretrained", {"dtype": "bfloat16"}, ["float32, not bfloat16"]),
        ("from_pretrained", {"device_map": "cuda:99"}, ["no device cuda:99"]),
        ("from_pretrained", {"device_map": {"encoder": 0}}, ["one device"]),
        ("from_pretrained", {"use_safetensors": False}, ["use_safetensors=False"]),
        ("from_pretrained", {"proxies": {"https": "x"}}, ["HTTPS_PROXY"]),
        ("from_pretrained", {"variant": "fp16"}, ["variant=fp16"]),
        ("from_pretrained", {"subfolder": "../x"}, ["subfolder must be a path"]),
        ("from_pretrained", {"subfolder": "x"}, ["mini has no subfolders"]),
        ("save_pretrained", {"safe_serialization": False}, ["safetensors"]),
        ("save_pretrained", {"push_to_hub": True}, ["call push_to_hub"]),
        ("push_to_hub", {"branch": "v2"}, ["use revision"]),
    ],
)
def test_keywords_for_what_cannot_be_done_say_what_to_do(method, keywords, words, model, tmp_path):
    first = {"from_pretrained": "mini", "save_pretrained": tmp_path / "x", "push_to_hub": "a/b"}
    with pytest.raises(ConfigError) as error:
        getattr(model, method)(first[method], **keywords)
    one_line(error, *words)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("method", ["from_pretrained", "save_pretrained", "push_to_hub"])
def test_a_keyword_that_nobody_has_is_an_error(method, model):
    with pytest.raises(TypeError, match=rf"{method}\(\) got an unexpected keyword argument 'typo'"):
        getattr(model, method)("mini", typo=1)


def test_a_model_in_a_subfolder_is_read(internet, model, bag, tmp_path, monkeypatch):
    save_model(model, tmp_path / "models" / "one")
    again = HTDemucs.from_pretrained(tmp_path / "models", subfolder="one")
    assert_same(again, model)
    with pytest.raises(ModelNotFoundError, match="no model at"):
        HTDemucs.from_pretrained(tmp_path / "models", subfolder="two")
    folder = tmp_path / "models" / "one"
    files = {f"deep/er/{path.name}": path.read_bytes() for path in folder.iterdir()}
    internet.on_hub("someone/several", files)
    assert_same(HTDemucs.from_pretrained("someone/several", subfolder="deep/er"), model)
    with pytest.raises(DownloadError):
        HTDemucs.from_pretrained("someone/several")


def test_a_configuration_names_its_class_as_on_the_hub(model, bag, tmp_path):
    for one, name in ((model, "HTDemucs"), (bag, "Bag")):
        one.save_pretrained(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["architectures"] == [name]
        assert config["model_type"] == name.lower()


def test_models_have_a_device_a_dtype_and_a_number_of_parameters(model, bag):
    for one in (model, bag):
        assert one.device == torch.device("cpu")
        assert one.dtype == torch.float32
        assert one.num_parameters() == sum(x.numel() for x in one.parameters())
    network = HTDemucs.from_pretrained("mini")
    network.transformer.requires_grad_(False)
    frozen = sum(x.numel() for x in network.transformer.parameters())
    assert network.num_parameters() - network.num_parameters(only_trainable=True) == frozen


def test_a_model_is_uploaded_in_one_commit_and_read_again(internet, model, tmp_path):
    url = model.push_to_hub(
        "someone/new", license="mit", token=TOKEN, private=True, commit_message="First weights"
    )
    assert url.startswith(f"{internet.address}/someone/new/commit/")
    assert internet.repositories["someone/new"]["visibility"] == "private"
    (commit,) = internet.commits
    assert commit["files"] == FILES
    assert (commit["summary"], commit["revision"]) == ("First weights", "main")
    text = internet.files["/someone/new/resolve/main/README.md"].decode()
    assert ModelCard(text).data.license == "mit"
    assert "htdemucs separate -n hf://someone/new song.mp3" in text
    assert_same(HTDemucs.from_pretrained("someone/new", token=TOKEN), model)
    with pytest.raises(DownloadError):
        HTDemucs.from_pretrained("someone/new", cache_dir=tmp_path)


def test_a_name_alone_is_in_one_s_own_namespace(internet, bag):
    bag.push_to_hub("new", license="mit", token=TOKEN)
    assert list(internet.repositories) == ["someone/new"]
    assert_same(Bag.from_pretrained("someone/new"), bag)


def test_a_branch_and_a_pull_request(internet, model):
    for options in ({"revision": "v2"}, {"create_pr": True}):
        model.push_to_hub("someone/new", license="mit", token=TOKEN, **options)
    assert internet.repositories["someone/new"]["branches"] == ["v2"]
    assert [(c["revision"], c["proposed"]) for c in internet.commits] == [
        ("v2", False),
        ("main", True),
    ]
    assert_same(HTDemucs.from_pretrained("someone/new", revision="v2"), model)


@pytest.mark.parametrize("fields", [{}, {"training_data": "Songs."}])
def test_nothing_is_uploaded_without_a_licence(fields, internet, model):
    internet.on_hub("someone/new", {"README.md": b"---\ntags: [x]\n---\nNo licence.\n"})
    with pytest.raises(CheckpointError) as error:
        model.push_to_hub("someone/new", token=TOKEN, **fields)
    one_line(error, "state the licence of someone/new", "such as mit")
    assert internet.repositories == {}
    assert internet.commits == []


def test_a_card_on_the_hub_that_states_a_licence_is_kept(internet, model):
    model.push_to_hub("someone/new", license="mit", token=TOKEN)
    internet.on_hub("someone/new", {"README.md": b"---\nlicense: mit\n---\nEdited there.\n"})
    model.push_to_hub("someone/new", token=TOKEN)
    assert internet.commits[-1]["files"] == FILES[1:]
    assert b"Edited there" in internet.files["/someone/new/resolve/main/README.md"]


@pytest.mark.parametrize(
    ("fault", "token"), [(None, None), (None, "hf_reader"), (403, TOKEN), (500, TOKEN)]
)
def test_a_refused_upload_is_one_line(fault, token, internet, model):
    if fault:
        internet.faults["/api/"] = fault
    with pytest.raises(UploadError) as error:
        model.push_to_hub("someone/new", license="mit", token=token)
    one_line(error, "someone/new", str(fault or 401))
    assert internet.commits == []


def test_a_licence_that_the_hub_does_not_know_is_reported(internet, model):
    with pytest.raises(UploadError) as error:
        model.push_to_hub("someone/new", license="mine", token=TOKEN)
    one_line(error, "license", "must be one of")
    assert internet.commits == []


def test_offline_nothing_is_uploaded(internet, model, monkeypatch):
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)
    with pytest.raises(UploadError) as error:
        model.push_to_hub("someone/new", license="mit", token=TOKEN)
    one_line(error, "offline")
    assert internet.log == []
