import dataclasses
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import OLDER, awake
from htdemucs import Bag, CheckpointError, HTDemucs, HTDemucsConfig, load_model, save_model
from htdemucs.fsutil import atomic_write
from htdemucs.model import build
from htdemucs.weights import demucs_format, native_format
from weights.checkpoints import assert_same, tiny

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@pytest.fixture
def saved(model, tmp_path) -> Path:
    save_model(model, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="module")
def bag() -> Bag:
    torch.manual_seed(1)
    members = [tiny(depth=1, t_layers=0, bottom_channels=0) for _ in range(2)]
    return Bag(members, [[1, 0, 0.1, 1], [0, 2, 0.9, 1]], Fraction(1, 3)).eval()


def test_features_may_be_off_as_null(tmp_path):
    network = tiny(freq_emb=0, rescale=0, t_layers=0, bottom_channels=0)
    save_model(network, tmp_path)
    fields = json.loads((tmp_path / CONFIG).read_text())
    fields["members"][0] |= {"freq_emb": None, "rescale": None, "bottom_channels": 512}
    (tmp_path / CONFIG).write_text(json.dumps(fields))
    again = load_model(tmp_path, device="cpu")
    assert again.config == network.config
    assert_same(again, network)


def failure(path: Path, *words: str) -> str:
    """Assert that loading a folder fails in one line with these words; return the line."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path, device="cpu")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert all(word in message for word in (str(path), *words)), message
    return message


def change_config(path: Path, change) -> Path:
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    change(config)
    (path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return path


def change_state(path: Path, change) -> Path:
    state = load_file(path / WEIGHTS)
    change(state)
    save_file(state, path / WEIGHTS)
    return path


def test_a_network_is_saved_and_loaded_to_the_bit(model, saved):
    again = load_model(saved, device="cpu")
    assert isinstance(again, HTDemucs)
    assert again.config == model.config
    assert not again.training
    assert_same(model, again)
    mixture = torch.randn(1, 2, 3000)
    with torch.no_grad():
        assert torch.equal(model(mixture), again(mixture))


def test_a_bag_is_saved_and_loaded_to_the_bit(bag, tmp_path):
    save_model(bag, str(tmp_path / "bag"))
    again = load_model(str(tmp_path / "bag"), device="cpu")
    assert isinstance(again, Bag)
    assert [m.config for m in again.members] == [m.config for m in bag.members]
    assert torch.equal(again.weights, bag.weights)
    assert again.segment == bag.segment == Fraction(1, 3)
    assert_same(bag, again)


@pytest.mark.parametrize("segment", [7.8, 0.7, 0.1, Fraction(39, 5), 12])
def test_segments_are_saved_and_loaded_exactly(segment, tmp_path):
    model = tiny(depth=1, t_layers=0, bottom_channels=0, segment=segment)
    save_model(model, tmp_path / "one")
    demucs_format.write(model, tmp_path / "official.safetensors")
    for path in (tmp_path / "one", tmp_path / "official.safetensors"):
        again = load_model(path, device="cpu").config
        assert again == model.config
        assert type(again.segment) is type(model.config.segment)
    bag = Bag([model], segment=segment)
    save_model(bag, tmp_path / "bag")
    again = load_model(tmp_path / "bag", device="cpu")
    assert (again.segment, type(again.segment)) == (segment, type(bag.segment))


@pytest.mark.parametrize("segment", ["NaN", "1e400", "-1.5", '"0.7"', "null", "[1]"])
def test_a_segment_that_is_no_number_of_seconds_is_refused(segment, bag, tmp_path):
    save_model(bag, tmp_path)
    config = (tmp_path / "config.json").read_text()
    for old in ('"segment": "1/3"', '"segment": "1"'):  # the bag's, and its members'
        (tmp_path / "config.json").write_text(config.replace(old, f'"segment": {segment}'))
        with pytest.raises(CheckpointError) as error:
            load_model(tmp_path, device="cpu")
        assert len(str(error.value).splitlines()) == 1


def test_stored_as_float16_where_that_loses_nothing(model, saved, tmp_path):
    assert {value.dtype for value in load_file(saved / WEIGHTS).values()} == {torch.float16}
    with torch.no_grad():
        finer = HTDemucs(model.config)
        finer.load_state_dict(model.state_dict())
        finer.time_encoder[0].conv.bias.add_(1e-7)
    save_model(finer, tmp_path / "finer")
    stored = load_file(tmp_path / "finer" / WEIGHTS)
    fine = [name for name, value in stored.items() if value.dtype == torch.float32]
    assert fine == ["members.0.time_encoder.0.conv.bias"]
    assert_same(finer, load_model(tmp_path / "finer", device="cpu"))


def test_stems_select_the_networks_of_a_bag_in_a_folder(bag, tmp_path):
    save_model(bag, tmp_path / "bag")
    stem = bag.sources[-1]
    assert load_model(tmp_path / "bag", device="cpu", stems=[stem]).sources == (stem,)


def test_a_network_that_a_bag_holds_twice_is_stored_once(model, tmp_path):
    finer = HTDemucs(model.config)
    save_model(Bag([finer, finer]), tmp_path / "twice")
    again = load_model(tmp_path / "twice", device="cpu")
    assert len(again.members) == 1
    assert again.weights.tolist() == [[2.0] * 4]
    assert_same(Bag([finer, finer]), again)


@pytest.mark.parametrize("architecture", OLDER)
def test_older_networks_are_saved_and_loaded_to_the_bit(architecture, tmp_path):
    network = awake(build(OLDER[architecture])).eval()
    save_model(network, tmp_path / "older")
    again = load_model(tmp_path / "older", device="cpu")
    assert type(again) is type(network)
    assert again.config == network.config
    assert_same(network, again)


def test_a_bag_of_all_architectures_is_saved_and_loaded(model, tmp_path):
    rate = {"sample_rate": model.sample_rate}
    members = [build(dataclasses.replace(config, **rate)) for config in OLDER.values()]
    bag = Bag([*members, model])
    save_model(bag, tmp_path / "bag")
    again = load_model(tmp_path / "bag", device="cpu")
    assert [type(member).__name__ for member in again.members] == [*OLDER, "HTDemucs"]
    assert_same(bag, again)


def test_a_member_without_an_architecture_is_an_htdemucs(saved, model):
    change_config(saved, lambda config: config["members"][0].pop("architecture"))
    assert_same(model, load_model(saved, device="cpu"))


def test_members_of_unknown_architectures_are_refused(saved):
    change_config(saved, lambda config: config["members"][0].update(architecture="TasNet"))
    failure(saved, "its architecture is TasNet; known are HTDemucs, HDemucs, Demucs")
    change_config(saved, lambda config: config["members"][0].update(architecture=["HTDemucs"]))
    failure(saved, "its architecture is ['HTDemucs']")


def test_part_of_a_bag_is_not_saved(bag, tmp_path):
    with pytest.raises(CheckpointError, match="save the whole"):
        save_model(bag.select_sources(["vocals"]), tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_missing_files_are_named(saved, tmp_path):
    (saved / WEIGHTS).unlink()
    failure(saved, WEIGHTS)
    (tmp_path / "empty").mkdir()
    failure(tmp_path / "empty", "config.json")
    with pytest.raises(CheckpointError, match="cannot read"):
        native_format.read(tmp_path / "empty")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\x00", '{"format": "other"}', "[" * 100_000, "9" * 5000]
)
def test_a_damaged_config_is_refused(text, saved):
    (saved / CONFIG).write_text(text, encoding="utf-8")
    failure(saved)


def test_a_config_that_is_no_text_is_refused(saved):
    (saved / CONFIG).write_bytes(b"\xff\xfe{}")
    failure(saved, "JSON")


def test_a_config_of_a_later_version_is_refused(saved):
    failure(change_config(saved, lambda c: c.update(version=2)), "version", "update htdemucs")
    failure(change_config(saved, lambda c: c.pop("version")), "version")


@pytest.mark.parametrize(
    "fields",
    [
        {"members": []},
        {"members": None},
        {"members": {"0": {}}},
        {"members": [5]},
        {"members": [["channels"]]},
        {"members": [{}, {}]},
        {"weights": 5},
        {"weights": "1111"},
        {"weights": [1, 1, 1, 1]},
        {"weights": [["1", "1", "1", "1"]]},
        {"weights": [[1, 1, 1, None]]},
        {"weights": [[1, 1, 1]]},
        {"weights": []},
        {"weights": [[0, 0, 0, 0]]},
        {"weights": [[1, 1, 1, 10**400]]},
        {"weights": [[1, 1, 1, float("nan")]]},
        {"segment": "1e999999999"},
        {"segment": "1/0"},
        {"segment": "-1"},
        {"segment": None},
    ],
)
def test_an_impossible_config_is_refused(fields, saved):
    failure(change_config(saved, lambda c: c.update(fields)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", 16),
        ("channels", "8"),
        ("channels", 10**400),
        ("channels", 1 << 19),
        ("t_layers", 1 << 19),
        ("depth", 10**9),
        ("segment", "1e999999999"),
        ("segment", "0"),
        ("segment", -1),
        ("segment", None),
        ("sources", ["a"]),
        ("sources", 4),
        ("sources", [["a"]]),
        ("n_fft", 1000),
        ("freq_emb", [1]),
        ("wiener_iters", 0),
    ],
)
def test_a_member_that_does_not_fit_its_parameters_is_refused(name, value, saved):
    failure(change_config(saved, lambda c: c["members"][0].update({name: value})))


def test_sources_may_have_other_names(saved):
    names = ["a", "b", "c", "d"]
    change_config(saved, lambda c: c["members"][0].update(sources=names))
    assert load_model(saved, device="cpu").sources == tuple(names)


FIRST = "members.0.spectral_encoder.0.conv.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop(FIRST), ["lacks", FIRST]),
        (lambda s: s.update(other=torch.ones(1)), ["unknown", "other"]),
        (lambda s: s.update({"members.0.other": torch.ones(1)}), ["unknown", "members.0.other"]),
        (lambda s: s.update({"members.1.other": torch.ones(1)}), ["unknown", "members.1.other"]),
        (lambda s: s.update({"members.٠.x": torch.ones(1)}), ["unknown"]),
        (lambda s: s.update({f"members.{'9' * 5000}.x": torch.ones(1)}), ["unknown"]),
        (lambda s: s.update({FIRST: torch.ones(8, 4, 8)}), [FIRST, "not [8, 4, 8, 1]"]),
        (lambda s: s.update({FIRST: s[FIRST] * torch.nan}), [FIRST, "finite"]),
        (lambda s: s.update({FIRST: s[FIRST].int()}), [FIRST]),
        (lambda s: s.clear(), ["0 values"]),
    ],
)
def test_parameters_that_do_not_fit_the_config_are_refused(change, words, saved):
    failure(change_state(saved, change), *words)


def test_truncated_weights_are_refused(saved):
    whole = (saved / WEIGHTS).read_bytes()
    for end in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        (saved / WEIGHTS).write_bytes(whole[:end])
        failure(saved, "damaged")
    (saved / WEIGHTS).write_bytes(b"<html>not here</html>" * 10)
    failure(saved, "damaged")


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize(("where", "step"), [(Path, "write_bytes"), (Path, "write_text")])
def test_a_failing_save_leaves_the_earlier_model(where, step, saved, bag, monkeypatch):
    before = contents(saved)

    def fail(*args, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, step, fail)
    with pytest.raises(CheckpointError, match=r"cannot write .*: No space left"):
        save_model(bag, saved)
    assert contents(saved) == before


@pytest.mark.parametrize("survived", [0, 1])
def test_a_save_cut_short_never_mixes_two_models(survived, saved, monkeypatch):
    """The sources are in another order: a mixed model would swap stems, and nobody would notice."""
    other = tiny(depth=1, dconv_depth=1, sources=("vocals", "other", "bass", "drums"))
    replace, done = Path.replace, []

    def cut(self, target):
        if len(done) == survived:
            raise KeyboardInterrupt
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        save_model(other, saved)
    monkeypatch.undo()
    failure(saved, "config.json")
    save_model(other, saved)
    assert_same(other, load_model(saved, device="cpu"))


def test_saving_again_keeps_the_folder_a_model_throughout(model, saved, monkeypatch):
    """Training does this: the configuration stays, only the weights change."""
    replace, seen = Path.replace, []

    def look(self, target):
        seen.append(native_format.is_model_folder(saved))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    save_model(model, saved)
    assert seen == [True, True]


def test_a_saved_model_is_two_files(saved):
    assert sorted(contents(saved)) == [CONFIG, WEIGHTS]


def test_a_folder_that_cannot_be_written_is_reported(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_model(model, tmp_path / "file")
    (tmp_path / "dir" / WEIGHTS).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot write"):
        save_model(model, tmp_path / "dir")
    assert [file.name for file in (tmp_path / "dir").iterdir()] == [WEIGHTS]


def test_the_format_is_the_documented_one(saved, model):
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    assert config["format"] == "htdemucs"
    assert config["version"] == 1
    assert "weights" not in config
    (member,) = config["members"]
    assert member.pop("architecture") == "HTDemucs"
    assert HTDemucsConfig.from_dict(member) == model.config
    assert all(re.match(r"members\.0\.\w", name) for name in load_file(saved / WEIGHTS))


def fill_the_disk(path: Path) -> None:
    path.write_text("half")
    raise OSError("full")


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "deep" / ("long " * 40 + "name.txt")
    with atomic_write(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(OSError, match="full"), atomic_write(path) as partial:
        fill_the_disk(partial)
    assert contents(path.parent) == {path.name: b"first"}
    with atomic_write(path) as one, atomic_write(path) as two:
        assert one != two
        one.write_text("outer")
        two.write_text("inner")
    assert path.read_text() == "outer"


def test_both_files_have_the_same_permissions(saved):
    modes = {path.stat().st_mode for path in saved.iterdir()}
    assert len(modes) == 1
