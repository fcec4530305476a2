from pathlib import Path

import pytest

from htdemucs.errors import ConfigError
from htdemucs.training import TrainConfig, read_config
from htdemucs.training.config import (
    AugmentConfig,
    DataConfig,
    OptimConfig,
    RootConfig,
    loss_weights,
)

SMALLEST = "out: run\ndata: {train: [music]}\n"


def read(tmp_path, text, *words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_config(path, words)


def test_defaults_are_the_published_augmentation(tmp_path):
    config = read(tmp_path, SMALLEST)
    expected = DataConfig(train=(RootConfig(Path("music")),))
    assert config == TrainConfig(out=Path("run"), data=expected)
    augment = AugmentConfig()
    assert (augment.scale_min, augment.scale_max, augment.remix_group) == (0.25, 1.25, 4)
    published = (augment.repitch, augment.repitch_semitones)
    assert published == (0.2, 2)
    assert (augment.repitch_tempo, augment.repitch_tempo_std) == (0.12, 0.05)
    beyond = (
        "mixup",
        "sources",
        "silence",
        "tilt",
        "saturate",
        "effects",
        "pan",
        "width",
        "lowpass",
        "limit",
        "codec",
    )
    assert not any(getattr(augment, name) for name in beyond)


def test_overrides_replace_values_of_the_file(tmp_path):
    config = read(
        tmp_path,
        SMALLEST + "optim: {lr: 1e-3, ema: [0.9, 0.99]}\n",
        "optim.lr=3e-4",
        "optim.kind=adamw",
        "steps=7",
        "data.valid=[{path: a, weight: 2}, b]",
        "data.cache=null",
        "optim.clip=5",
        "model={channels: 8}",
    )
    assert config.optim == OptimConfig(kind="adamw", lr=3e-4, ema=(0.9, 0.99), clip=5.0)
    assert config.steps == 7
    assert config.data.valid == (RootConfig(Path("a"), 2.0), RootConfig(Path("b")))
    assert config.data.cache is None
    assert config.model == {"channels": 8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.speed=1"], r"unknown key optim\.speed; known are kind, lr"),
        (["steps"], "'steps' is not of the form key=value"),
        (["steps=x: [", "seed=1"], "cannot read the value in"),
        (["steps=many"], "steps must be a number, not 'many'"),
        (["steps=1.5"], r"steps must be a whole number, not 1\.5"),
        (["steps=true"], "steps must be a number, not True"),
        (["steps=.inf"], "steps must be a number, not inf"),
        (["optim=adam"], r"optim cannot be 'adam'; set its keys, such as optim\.kind"),
        (["data=music"], r"data cannot be 'music'; set its keys, such as data\.musdb"),
        (["musdb=/music"], r"unknown key musdb; use data\.musdb"),
        (
            ["data.workers=-1"],
            r"data\.workers must not be negative; 0 reads in the training process",
        ),
        (["data.segment=0"], r"data\.segment must be more than 0 seconds"),
        (["data.valid_seconds=-3"], r"data\.valid_seconds must be more than 0 seconds"),
        (["steps=0"], "steps must be at least 1"),
        (
            ["optim.loss=snr"],
            r"optim\.loss must be one of l1, .*, or weights of several, .*not 'snr'",
        ),
        (["optim.loss={l1: 1, snr: 1}"], r"optim\.loss must be one of l1, .*, not 'snr'"),
        (["optim.loss={l1: 0}"], r"optim\.loss\.l1 must be a number above 0, not 0"),
        (["optim.loss={l1: much}"], r"optim\.loss\.l1 must be a number above 0, not 'much'"),
        (["optim.loss={}"], r"optim\.loss is empty; name at least one error, such as l1"),
        (["optim.loss=3"], r"optim\.loss cannot be 3"),
        (["optim.loss_region=[0.1, 0.4]"], r"optim\.loss_region must be two numbers of seconds"),
        (["optim.loss_region=0.4"], r"optim\.loss_region must be two numbers of seconds"),
        (["optim.lr=fast"], r"optim\.lr must be a number, not 'fast'"),
        (["optim.lr=-1"], r"optim\.lr must be more than 0"),
        (["optim.lr=1", "optim.lr.x=1"], r"optim\.lr\.x: lr has no keys of its own"),
        (["optim.kind=sgd"], r"optim\.kind must be one of adam, adamw"),
        (["optim.ema=[1.5]"], r"optim\.ema must be between 0 and 1"),
        (["optim=3"], r"optim cannot be 3; set its keys, such as optim\.kind"),
        (["steps.x=3"], "steps must be a number, not {'x': 3}"),
        (["best_by=sdr"], "best_by must be loss, nsdr or nsdr SOURCE, not 'sdr'"),
        (["optim.lr_factors={a: 0}"], r"optim\.lr_factors\.a must be a number above 0, not 0; to"),
        (["optim.plateau_factor=1"], r"optim\.plateau_factor must be between 0 and 1"),
        (["optim.plateau_patience=0"], r"optim\.plateau_patience must be at least 1"),
        (["keep=0"], "keep must be at least 1"),
        (["augment.remix=2"], r"augment\.remix must be from 0 to 1"),
        (["augment.scale_min=3"], r"augment\.scale_max is below"),
        (["augment.mixup=[0.5, 1.5]"], r"augment\.mixup must have probabilities from 0 to 1"),
        (
            ["augment.mixup_scale_min=2"],
            r"augment\.mixup_scale_max is below augment\.mixup_scale_min",
        ),
        (
            ["augment.effect_probabilities.echo=2"],
            r"effect_probabilities\.echo must be from 0 to 1",
        ),
        (
            ["augment.effect_probabilities.delay=1"],
            r"unknown key augment\.effect_probabilities\.delay; known are equalizer, .*, reverb",
        ),
        (["augment.sources=bass"], r"augment\.sources must have keys and values, not 'bass'"),
        (["augment.sources.bass=1"], r"sources\.bass cannot be 1; set its keys, such as augment\."),
        (
            ["augment.sources.bass.tilt=x"],
            r"augment\.sources\.bass\.tilt must be a number, not 'x'",
        ),
        (
            ["augment.sources.bass.silence=2"],
            r"augment\.sources\.bass\.silence must be from 0 to 1",
        ),
        (
            ["augment.sources.bass.gain=1"],
            r"unknown key augment\.sources\.bass\.gain; known are shift",
        ),
        (
            ["augment.sources.bass.codec=1"],
            r"augment\.sources\.bass\.codec cannot differ between sources; set augment\.codec",
        ),
        (["batch_size=6"], r"batch_size must be a multiple of augment\.remix_group"),
        (["batch_size=8", "accumulate=3"], "batch_size must be a multiple of accumulate"),
        (["seed=-1"], "seed must not be negative"),
        (["model={channels: 8}", "init_from=x"], "set model or init_from, not both"),
        (["renamed={a: b}"], "renamed needs init_from"),
        (["data.train=[]"], r"there is no music; set data\.train or data\.musdb"),
        (["data.train=[{weight: 2}]"], r"data\.train\.path is missing"),
    ],
)
def test_mistakes_are_named(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, SMALLEST, *words)


def test_a_loss_is_a_name_or_weights_of_several(tmp_path):
    assert loss_weights(read(tmp_path, SMALLEST, "optim.loss=log_wmse").optim.loss) == {
        "log_wmse": 1.0
    }
    several = read(tmp_path, SMALLEST, "optim.loss={l1: 1, si_sdr: 1e-1}").optim.loss
    assert loss_weights(several) == {"l1": 1.0, "si_sdr": 0.1}


def test_whole_numbers_may_be_written_with_an_exponent(tmp_path):
    config = read(
        tmp_path, SMALLEST, "steps=1e5", "batch_size=8.0", "augment.repitch_semitones=3.0"
    )
    assert (config.steps, config.batch_size, config.augment.repitch_semitones) == (100_000, 8, 3)
    assert isinstance(config.steps, int)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must contain keys and values"),
        ("a: [", "cannot read"),
        ("data: {train: [x]}\n", "out is missing"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "none.yaml")
