"""Whole runs on a small MUSDB18-HQ folder."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState

import training_data
from helpers import OLDER, TINY, awake, snr
from htdemucs import HTDemucs, HTDemucsConfig, load_model, save_model
from htdemucs.errors import AudioError, CheckpointError, ConfigError, HTDemucsError, TrainingError
from htdemucs.model import Bag
from htdemucs.training import finish, prepare, split_runs
from htdemucs.training.checkpoint import load

SOURCES = training_data.SOURCES


def train(config, until=None):
    """The entries of a run's log, stopped after step `until`."""
    run = prepare(config)
    entries = []
    for entry in run.train():
        entries.append(entry)
        if entry.step == until:
            run.trainer.stop()
    return entries


def final(config):
    """Everything a finished run leaves, as flat tensors."""
    saved = load(config.out)

    def flat(value, name):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from flat(item, f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                yield from flat(item, f"{name}.{i}")
        else:
            yield name, value

    return dict(flat(saved, ""))


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return [
        name
        for name, value in ours.items()
        if not (
            torch.equal(value, theirs[name])
            if isinstance(value, torch.Tensor)
            else value == theirs[name]
        )
    ]


@pytest.mark.parametrize("kind", OLDER)
def test_older_networks_learn_and_resume_to_the_bit(make_config, kind):
    fields = OLDER[kind].to_dict() | {"architecture": kind, "channels": 4, "dconv_comp": 1}
    options = {"batch_size": 4, "valid_every": 3, "log_every": 3, "save_every": 3}
    options |= {"model": fields, "optim": {"lr": 1e-2}, "words": ["data.segment=0.5"]}
    config = make_config(steps=6, **options)
    entries = train(config)
    assert entries[-1].valid["raw"]["loss"] < entries[0].valid["raw"]["loss"]
    parts_config = make_config("parts", steps=6, **options)
    train(parts_config, until=3)
    train(parts_config)
    assert not same(final(config), final(parts_config))
    model = load_model(finish(config), device="cpu")
    assert type(model).__name__ == kind
    assert model.segment == 1  # of the configuration, not of the examples


def test_an_unknown_kind_of_network_is_refused(make_config):
    with pytest.raises(
        ConfigError, match=r"model\.architecture must be one of HTDemucs, HDemucs, Demucs"
    ):
        prepare(make_config(model={"architecture": "TasNet"}))


def test_a_published_style_run_learns(make_config):
    config = make_config(
        steps=40,
        valid_every=20,
        log_every=20,
        batch_size=4,
        augment={"shift": 0.1},
        optim={"lr": 2e-2, "ema": [0.8]},
        tensorboard=True,
    )
    entries = train(config)
    assert [entry.step for entry in entries] == [20, 40]
    first, last = (entry.valid["raw"] for entry in entries)
    assert last["loss"] < 0.9 * first["loss"]
    assert last["nsdr"] > first["nsdr"] + 1
    assert set(last) == {"loss", "nsdr", *(f"nsdr {source}" for source in SOURCES)}
    assert entries[-1].best["loss"] == min(
        scores["loss"] for entry in entries for scores in entry.valid.values()
    )
    assert set(entries[-1].valid) == {"raw", "ema 0.8"}
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert lines == [dataclasses.asdict(entry) for entry in entries]
    assert list((config.out / "tensorboard").iterdir())
    model = load_model(str(finish(config)))
    assert model.sources == SOURCES
    assert load_model(str(config.out / "last")).config == model.config


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_a_stopped_run_goes_on_bit_for_bit(make_config, kind):
    optim = {"kind": kind, "lr": 1e-3, "ema": [0.5, 0.9], "warmup": 3, "decay": "cosine"}
    changes = {
        "valid_every": 3,
        "model": training_data.MODEL | {"t_dropout": 0.2},
        "optim": optim | {"clip": 1.0},
    }
    whole = make_config("whole", **changes)
    expected = train(whole)
    cut = make_config("cut", **changes)
    first = train(cut, until=4)
    assert first[-1].step == 4
    assert load(cut.out)["step"] == 4
    second = train(cut)
    assert [entry.step for entry in second] == [6]
    assert second[-1].loss == expected[-1].loss
    assert second[-1].valid == expected[-1].valid
    assert same(final(whole), final(cut)) == []
    logged = [json.loads(x)["step"] for x in (cut.out / "log.jsonl").read_text().splitlines()]
    assert logged == [2, 3, 4, 6]


def test_a_run_that_died_between_checkpoints_goes_on_bit_for_bit(make_config):
    whole, cut = (make_config(name, log_every=1, save_every=2) for name in ("whole", "cut"))
    train(whole)
    entries = prepare(cut).train()
    while next(entries).step < 5:  # the last checkpoint is step 4's
        pass
    entries.close()
    assert load(cut.out)["step"] == 4
    train(cut)
    assert same(final(whole), final(cut)) == []
    assert (whole.out / "log.jsonl").read_text().count("\n") == 6
    assert (cut.out / "log.jsonl").read_text().count("\n") == 6


def test_workers_and_seeds(make_config):
    plain = make_config("plain")
    train(plain)
    train(make_config("workers", words=["data.workers=2"]))
    assert same(final(plain), final(make_config("workers"))) == []
    other = make_config("other", seed=1)
    train(other)
    assert same(final(plain), final(other))


def test_accumulating_is_the_same_as_a_whole_batch(make_config):
    whole, halves = make_config("whole", steps=3), make_config("halves", steps=3, accumulate=2)
    ours, theirs = train(whole), train(halves)
    assert ours[-1].loss == pytest.approx(theirs[-1].loss, rel=1e-5)
    ours, theirs = load(whole.out)["model"], load(halves.out)["model"]
    assert all(torch.allclose(ours[n], theirs[n], atol=1e-5) for n in ours)


def test_the_best_of_all_candidates_is_kept(make_config):
    """Here the average, whose loss is made to be the lowest."""
    config = make_config(steps=3, valid_every=3)
    run = prepare(config)
    scores = iter([0.3, 0.1])  # the network as it is, its average
    run.trainer.validate = lambda _network: {"loss": next(scores), "nsdr": 0.0}
    (entry,) = [entry for entry in run.train() if entry.valid]
    assert entry.best == {"step": 3, "loss": 0.1, "nsdr": 0.0}
    kept = load_model(str(config.out / "best")).state_dict()
    average = run.trainer.averages[0].parameters()
    raw = run.trainer.network.state_dict()
    assert all(torch.equal(kept[name], average[name]) for name in kept)
    assert not all(torch.equal(kept[name], raw[name]) for name in kept)


def test_best_by_nsdr(make_config):
    config = make_config(best_by="nsdr", valid_every=3)
    entries = train(config)
    every = [scores["nsdr"] for entry in entries for scores in entry.valid.values()]
    assert entries[-1].best["nsdr"] == max(every)


def test_the_learning_rate_falls_on_a_plateau_and_resumes_there(make_config):
    optim = {"decay": "plateau", "plateau_patience": 2, "plateau_factor": 0.5, "final_lr": 0.2}
    losses = [0.5, 0.4, 0.4, 0.45, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]

    def rates(config, until):
        run = prepare(config)
        run.trainer.validate = lambda _n: {"loss": losses[run.trainer.step - 1], "nsdr": 0.0}
        made = []
        for entry in run.train():
            made.append(entry.rate)
            assert run.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * entry.rate)
            if entry.step == until:
                run.trainer.stop()
        return made

    options = {"steps": 11, "valid_every": 1, "optim": optim | {"lr": 1e-3}}
    # No better model after steps 3 and 4, then after 6 and 7, 8 and 9.
    expected = [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]
    assert rates(make_config("whole", **options), None) == expected
    cut = make_config("cut", **options)
    assert rates(cut, 6) + rates(cut, None) == expected
    with pytest.raises(ConfigError, match=r"optim\.decay=plateau needs validation tracks"):
        prepare(
            make_config(
                "none",
                **options | {"data": {"train": [str(cut.data.musdb / "test")], "workers": 0}},
            )
        )


def test_frozen_parameters_stay_and_others_learn(make_config, start):
    config = make_config(
        model={}, init_from=str(start), steps=2,
        optim={"lr": 1e-2, "freeze": ["spectral_encoder", "transformer"], "clip": 1.0},
    )  # fmt: skip
    train(config)
    before, after = (
        load_model(str(folder)).state_dict() for folder in (start, config.out / "last")
    )
    for name, value in before.items():
        frozen = name.startswith(("spectral_encoder.", "transformer."))
        if frozen:
            assert torch.equal(value, after[name]), name
    assert not torch.equal(
        before["time_encoder.0.conv.weight"], after["time_encoder.0.conv.weight"]
    )
    with pytest.raises(CheckpointError, match=r"another optim\.kind, freeze or lr_factors"):
        prepare(make_config(model={}, init_from=str(start), optim={"ema": []}))


def test_other_factors_of_the_learning_rate_hold_after_resuming(make_config):
    words = ["optim.lr_factors={transformer: 0.5}"]
    train(make_config(steps=1, words=words))
    run = prepare(make_config(steps=2, words=["optim.lr_factors={transformer: 0.1}"]))
    list(run.train())
    rates = {group["lr"] for group in run.trainer.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([1e-4, 1e-3])


def test_best_by_the_nsdr_of_one_source(make_config):
    config = make_config(best_by="nsdr bass", steps=3, valid_every=1)
    run = prepare(config)
    # Two candidates at each step: the network as it is, its average.
    bass = iter([float("nan"), 1.0, 3.0, 2.0, 2.5, float("nan")])
    run.trainer.validate = lambda _network: {"loss": 0.1, "nsdr": 0.0, "nsdr bass": next(bass)}
    (*_, last) = run.train()
    assert last.best == {"step": 2, "loss": 0.1, "nsdr": 0.0, "nsdr bass": 3.0}
    with pytest.raises(
        ConfigError, match="best_by must name one of drums, bass, other, vocals, not"
    ):
        prepare(make_config(best_by="nsdr guitar"))


def test_a_validation_before_the_first_step(make_config, start):
    config = make_config(
        model={}, init_from=str(start), pre_valid=True, steps=2, valid_every=2, tensorboard=True
    )
    run = prepare(config)
    expected = run.trainer.validate(load_model(str(start), device="cpu"))
    first, *_, last = run.train()
    assert (first.step, last.step) == (0, 2)
    assert first.valid == {"raw": pytest.approx(expected)}
    assert first.best == {"step": 0} | first.valid["raw"]
    assert json.loads((config.out / "log.jsonl").read_text().splitlines()[0])["step"] == 0
    assert all(entry.step for entry in prepare(config).train())


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["optim.loss=mse"], ["optim.loss"]),
        (["optim.source_weights=[1, 0, 0, 0]"], ["optim.source_weights"]),
        (["data.valid_seconds=1"], ["data.valid_seconds"]),
        (["data.normalize=false"], ["the validation tracks"]),
        (["optim.lr=1e-9"], []),
    ],
)
def test_best_is_scored_again_if_scores_are_measured_otherwise(make_config, words, changed):
    train(make_config(steps=3, valid_every=3))
    config = make_config(steps=6, valid_every=6, words=[*words, "optim.lr=1e-9"])
    run = prepare(config)
    assert run.trainer.changed_conditions == changed
    assert run.trainer.best["step"] == 3
    stored = run.trainer.best
    expected = run.trainer.validate(load_model(config.out / "best", device="cpu"))
    assert (stored == {"step": 3} | expected) == (not changed)
    (*_, last) = train(config)
    candidates = [expected, *last.valid.values()]
    assert last.best["loss"] == pytest.approx(min(scores["loss"] for scores in candidates))
    assert prepare(config).trainer.changed_conditions == []


def test_a_best_model_that_is_gone_is_forgotten(make_config):
    config = make_config(steps=3, valid_every=3)
    train(config)
    shutil.rmtree(config.out / "best")
    (*_, last) = train(make_config(steps=6, valid_every=6, words=["optim.loss=mse"]))
    assert last.best["step"] == 6
    assert (config.out / "best").is_dir()


def test_changes_of_the_configuration_are_listed_and_logged(make_config):
    config = make_config(steps=2)
    assert prepare(config).changes == []
    train(config)
    assert prepare(config).changes == []
    longer = make_config(steps=4, words=["optim.lr=1e-4", "model.t_layers=1"])
    expected = ["optim.lr was 0.001 and is now 0.0001", "steps was 2 and is now 4"]
    assert prepare(longer).changes == expected
    train(longer)
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert lines[1] == {"step": 2, "changes": expected}
    assert [line["step"] for line in lines] == [2, 2, 4]
    assert prepare(longer).changes == []


def test_without_tracks_to_validate_with_the_last_model_is_the_result(make_config, data):
    config = make_config(data={"train": [str(data / "test")], "workers": 0, "segment": 0.5})
    entries = train(config)
    assert not any(entry.valid for entry in entries)
    assert finish(config) == config.out / "last"
    assert isinstance(load_model(str(finish(config))), HTDemucs)


def test_a_loss_that_is_not_finite_stops_with_its_batch(make_config):
    config = make_config(optim={"lr": 1e30}, valid_every=100)
    with pytest.raises(TrainingError, match=r"loss of step \d is not finite; its batch is in"):
        train(config)
    (path,) = config.out.glob("not-finite-*.pt")
    kept = torch.load(path, weights_only=True)
    assert kept["batch"].shape == (4, 5, 2, 4000)
    assert kept["batch"].isfinite().all()


def test_a_run_resumes_without_a_track_that_has_become_unusable(make_config, tmp_path):
    """A sample that is not finite stops the run once; then its track is left out."""
    for name in ("good", "bad"):
        training_data.track(tmp_path / "music" / name, 1)
    data = {"train": [str(tmp_path / "music")], "workers": 0, "segment": 0.5}
    train(make_config(steps=1, data=data))
    run = prepare(make_config(steps=9, data=data))
    path = tmp_path / "music" / "bad" / "bass.wav"
    soundfile.write(path, np.full((24_000, 2), np.nan), training_data.RATE, "FLOAT")
    with pytest.raises(
        AudioError, match=r"sample \d+ of .*bad/bass\.wav, at .* s, is not a finite"
    ):
        list(run.train())
    resumed = prepare(make_config(steps=9, data=data))
    assert [recording.name for recording in resumed.corpus.train] == ["good"]
    assert resumed.corpus.notes[0].startswith(f"{path.parent} is left out: sample 0 of {path}")
    (*_, last) = resumed.train()
    assert last.step == 9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions(make_config, precision):
    AcceleratorState._reset_state(reset_partial_state=True)  # one precision a process
    config = make_config(precision=precision, steps=2, valid_every=2)
    (entry,) = [entry for entry in train(config) if entry.valid]
    assert 0 < entry.loss < 1
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_compiled_core_learns_the_same_and_validates_uncompiled(make_config, monkeypatch):
    asked = []

    def compile_function(core):
        def run(*inputs):
            asked.append(torch.is_grad_enabled())
            return core(*inputs)

        return run

    monkeypatch.setattr("htdemucs.training.trainer.compile_function", compile_function)
    config = make_config(compiled=True, steps=2)
    train(config)
    assert asked == [True, True]
    plain = dataclasses.replace(make_config(steps=2), out=config.out.with_name("plain"))
    train(plain)
    assert not same(final(config), final(plain))


def test_a_region_of_the_loss_reaches_the_trainer(make_config):
    """In samples of the network's rate: only this part counts."""
    config = make_config(words=["optim.loss_region=[0.4, 0.1]"], steps=1)
    assert prepare(config).trainer.loss.region == (3200, 800)
    (*_, entry) = train(config)
    assert entry.loss > 0


def test_weighted_losses_and_keys_for_one_source_resume_unchanged(make_config):
    words = ["optim.loss={l1: 1, log_wmse: 0.01}", "augment.sources.vocals={shift: 0.3, tilt: 3}"]
    config = make_config(words=words, steps=2, save_every=1, valid_every=2)
    entries = train(config)
    assert entries[-1].valid["raw"]["loss"] > 0
    again = prepare(config)
    assert again.changes == []
    assert again.trainer.changed_conditions == []
    assert again.trainer.dataset.sampler.length == 4000 + 2400  # room for the longest shift
    changed = prepare(make_config(words=[words[0], "augment.sources.vocals.tilt=2"], steps=2))
    assert "augment.sources.vocals.tilt was 3 and is now 2" in changed.changes


def test_what_a_run_cannot_do(make_config):
    with pytest.raises(ConfigError, match=r"sources must name some of drums, .*, not 'guitar'"):
        prepare(make_config(words=["augment.sources.guitar.tilt=2"]))
    with pytest.raises(ConfigError, match=r"at most the model's 1 seconds"):
        prepare(make_config(words=["data.segment=2"]))
    with pytest.raises(ConfigError, match="unknown configuration fields: width"):
        prepare(make_config(model={"width": 3}))
    with pytest.raises(ConfigError, match=r"source_weights must be 4 numbers"):
        prepare(make_config(words=["optim.source_weights=[1, 2]"]))
    with pytest.raises(ConfigError, match=r"loss_region must not begin before the example"):
        prepare(make_config(words=["optim.loss_region=[1.5, 0.1]"]))
    with pytest.raises(ConfigError, match=r"loss_region must have 4096 samples or more"):
        prepare(make_config(words=["optim.loss_region=[0.4, 0.1]", "optim.stft_weight=1"]))
    with pytest.raises(ConfigError, match="compiled needs HTDemucs or HDemucs"):
        prepare(
            make_config(
                model={"architecture": "Demucs", "sample_rate": 8000}, words=["compiled=true"]
            )
        )
    with pytest.raises(HTDemucsError, match="no model nonsense"):
        prepare(make_config(model={}, init_from="nonsense"))
    with pytest.raises(TrainingError, match="has no model yet"):
        finish(make_config("nothing"))


def test_another_network_does_not_go_on_with_a_run(make_config):
    train(make_config(steps=2))
    with pytest.raises(CheckpointError, match=r"another optim\.kind"):
        prepare(make_config(words=["optim.kind=muon"]))
    with pytest.raises(CheckpointError, match="another network or other averages"):
        prepare(make_config(model=training_data.MODEL | {"t_layers": 2}))
    with pytest.raises(CheckpointError, match="another network or other averages"):
        prepare(make_config(words=["optim.ema=[0.5]"]))
    longer = prepare(make_config(steps=4, words=["optim.lr=1e-4"]))
    assert longer.resumed
    assert longer.trainer.step == 2


def outputs(folder, x):
    """What a model makes of a waveform, by source."""
    model = load_model(str(folder))
    with torch.no_grad():
        return dict(zip(model.sources, model(x).unbind(1), strict=True))


@pytest.fixture
def start(tmp_path):
    """A model to start from: of the data's sample rate."""
    model = awake(HTDemucs(HTDemucsConfig(**training_data.MODEL))).eval()
    save_model(model, tmp_path / "start")
    return tmp_path / "start"


def test_fine_tuning_starts_where_the_model_is(make_config, start):
    config = make_config(model={}, init_from=str(start), steps=1, optim={"lr": 1e-9})
    train(config)
    x = 0.1 * torch.randn(1, 2, 8000)
    ours, theirs = outputs(config.out / "last", x), outputs(start, x)
    assert all(snr(theirs[source], ours[source]) > 60 for source in SOURCES)


def test_fine_tuning_for_sources_of_ones_own(make_config, start, tmp_path):
    names = ("vocals", "guitar", "beat")
    training_data.track(tmp_path / "mine" / "one", 1, sources=names)
    config = make_config(
        model={},
        init_from=str(start),
        sources=list(names),
        renamed={"beat": "drums"},
        steps=2,
        optim={"lr": 1e-9},
        data={"train": [str(tmp_path / "mine")], "workers": 0, "segment": 0.5},
    )
    train(config)
    x = 0.1 * torch.randn(1, 2, 8000)
    ours, theirs = outputs(finish(config), x), outputs(start, x)
    assert tuple(ours) == names
    assert snr(theirs["vocals"], ours["vocals"]) > 60
    assert snr(theirs["drums"], ours["beat"]) > 60


def test_fine_tuning_with_longer_segments(make_config, start):
    config = make_config(
        model={}, init_from=str(start), steps=1, optim={"lr": 1e-9}, words=["data.segment=1.5"]
    )
    run = prepare(config)
    assert run.trainer.dataset[0].shape[-1] == 12_000
    list(run.train())
    assert load_model(str(config.out / "last")).segment == 1.5
    assert load_model(str(start)).segment == 1
    shorter = make_config("short", model={}, init_from=str(start), words=["data.segment=0.5"])
    assert prepare(shorter).trainer.network.segment == 1


def test_one_copy_a_source_ends_as_a_bag(make_config, start):
    config = make_config(
        model={}, init_from=str(start), per_source=True, steps=2, valid_every=2, optim={"lr": 1e-3}
    )
    for part in split_runs(config):
        entries = train(part)
        source = part.out.name
        assert set(entries[-1].best) == {"step", "loss", "nsdr", f"nsdr {source}"}
        assert entries[-1].best["nsdr"] == entries[-1].best[f"nsdr {source}"]
    bag = load_model(str(finish(config)))
    assert isinstance(bag, Bag)
    assert torch.equal(bag.weights, torch.eye(4))
    x = 0.1 * torch.randn(1, 2, 8000)
    whole = outputs(finish(config), x)
    for source in SOURCES:
        assert torch.equal(outputs(config.out / source / "best", x)[source], whole[source])
    with pytest.raises(ConfigError, match="is a bag; set init_from to one of its members"):
        prepare(make_config("again", model={}, init_from=str(finish(config))))


def test_the_network_is_the_same_each_time(make_config):
    first, second = (prepare(make_config()).trainer.network for _ in range(2))
    assert TINY["channels"] != first.config.channels
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
