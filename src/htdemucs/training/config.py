"""The configuration of a training run: a YAML file and `key=value` overrides, checked at the start.

The tables in docs/training.md are generated from the docstrings of these classes.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from htdemucs.errors import ConfigError

C = TypeVar("C")

EFFECTS = ("equalizer", "compressor", "distortion", "modulation", "echo", "width", "reverb")
COMMON_KEYS = ("remix", "remix_group", "lowpass", "limit", "codec", "sources")  # of `augment`
LOSSES = ("l1", "mse", "rms", "l1_snr", "l1_snr_db", "l1_snr_stft", "si_sdr", "log_wmse")


@dataclass(frozen=True)
class RootConfig:
    """A folder of multitracks.

    Attributes:
        path: a folder that has a folder for each track, with one file per source (wav, flac, aiff,
            mp3 or ogg). Or a folder that has a folder for each source, or a CSV file with the
            columns instrum and path: then the files of different sources are mixed at random.
        weight: how often its tracks are drawn, relative to their duration.
        mapping: which files are summed to which source: "moisesdb", "slakh", "medleydb", or a YAML
            file.
        metadata: folder with the metadata files of a mapping, if they are not in the tracks'
            folders.
        missing: "skip" leaves out tracks that lack a source; with "silence", the source is silent.
    """

    path: Path
    weight: float = 1.0
    mapping: str | None = None
    metadata: Path | None = None
    missing: Literal["skip", "silence"] = "skip"


@dataclass(frozen=True)
class DataConfig:
    """The music, and how it is cut.

    Attributes:
        musdb: a MUSDB18-HQ folder: train on its `train/`, except for the 14 standard validation
            tracks, which are used for validation.
        train: more folders to train on, each a path, or with the keys below.
        valid: more folders for validation, in the same form.
        normalize: divide each track by the standard deviation of its mixture, after subtracting the
            mean, in training and in validation.
        segment: seconds of an example; by default the model's own segment. If it is longer than
            that of `init_from`, it becomes the model's segment.
        valid_seconds: validate on this many seconds from the middle of each track; by default on
            whole tracks.
        workers: processes that read and augment, at most one per core; 0 uses the training process.
        cache: folder for lengths, formats and levels of the files; by default `cache` in the run's
            folder.
    """

    musdb: Path | None = None
    train: tuple[RootConfig, ...] = ()
    valid: tuple[RootConfig, ...] = ()
    normalize: bool = True
    segment: float | None = None
    valid_seconds: float | None = None
    workers: int = 4
    cache: Path | None = None

    def __post_init__(self) -> None:
        _require(
            self.workers >= 0,
            "data.workers must not be negative; 0 reads in the training process",
        )
        for name in ("segment", "valid_seconds"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"data.{name} must be more than 0 seconds")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to examples. The defaults are those of the published training.

    Attributes:
        shift: delay each source separately by up to this many seconds.
        flip_channels: swap left and right of half of the sources.
        flip_sign: flip the polarity of half of the sources.
        scale_min: lowest gain of a source.
        scale_max: highest gain of a source.
        remix: probability that sources of different tracks are mixed, within a group of examples.
        remix_group: examples in a group.
        repitch: probability that pitch and tempo are changed.
        repitch_semitones: greatest change of the pitch in semitones; all whole numbers up to it are
            equally likely.
        repitch_tempo: greatest change of the tempo as a fraction.
        repitch_tempo_std: standard deviation of the change of the tempo, which is normally
            distributed and cut at `repitch_tempo`.

        mixup: probabilities that further excerpts of the same source are added to a source, such as
            [0.2, 0.02] for up to two.
        mixup_scale_min: lowest gain of an added excerpt.
        mixup_scale_max: highest gain of an added excerpt.
        silence: probability that a source is silent in an example.
        tilt: greatest tilt of a source's spectrum in decibels per octave.
        saturate: probability that a source is softly clipped.
        effects: probability that a source goes through a random chain of equaliser, compressor,
            distortion, modulation (chorus, phaser or flanger), echo, width and reverb.
        effect_probabilities: probability of each effect in a chain, such as {reverb: 0.8, echo: 0};
            0.35 by default.
        pan: greatest distance by which a source is panned to one side; 1 is hard left or right.
        width: greatest change of a source's stereo width as a fraction.
        lowpass: probability that mixture and sources are low-passed at 10 kHz or more, as in lossy
            files.
        limit: probability that the mixture is softly limited, as in masters.
        codec: probability that the mixture goes through MP3, AAC or Opus (96 to 320 kbit/s) and
            back, aligned to the sample.
        sources: other values of these keys for individual sources, such as
            {vocals: {effects: 0.5}}; all keys but those of the remix and the mixture (`lowpass`,
            `limit`, `codec`).
    """

    shift: float = 1.0
    flip_channels: bool = True
    flip_sign: bool = True
    scale_min: float = 0.25
    scale_max: float = 1.25
    remix: float = 1.0
    remix_group: int = 4
    repitch: float = 0.2
    repitch_semitones: int = 2
    repitch_tempo: float = 0.12
    repitch_tempo_std: float = 0.05

    mixup: tuple[float, ...] = ()
    mixup_scale_min: float = 0.5
    mixup_scale_max: float = 1.5
    silence: float = 0.0
    tilt: float = 0.0
    saturate: float = 0.0
    effects: float = 0.0
    effect_probabilities: Mapping[str, Any] = field(default_factory=dict)
    pan: float = 0.0
    width: float = 0.0
    lowpass: float = 0.0
    limit: float = 0.0
    codec: float = 0.0
    sources: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("remix", "repitch", "silence", "saturate", "effects", "lowpass", "limit",
                     "codec"):  # fmt: skip
            _require(0 <= getattr(self, name) <= 1, f"augment.{name} must be from 0 to 1")
        _require(
            all(0 <= probability <= 1 for probability in self.mixup),
            "augment.mixup must have probabilities from 0 to 1",
        )
        for effect, value in self.effect_probabilities.items():
            key = f"augment.effect_probabilities.{effect}"
            _require(effect in EFFECTS, f"unknown key {key}; known are {', '.join(EFFECTS)}")
            probability = _number(value)
            _require(
                probability is not None and 0 <= probability <= 1, f"{key} must be from 0 to 1"
            )
        for name in ("shift", "scale_min", "repitch_semitones", "repitch_tempo_std", "tilt", "pan",
                     "width", "mixup_scale_min"):  # fmt: skip
            _require(getattr(self, name) >= 0, f"augment.{name} must not be negative")
        for name in ("scale", "mixup_scale"):
            _require(
                getattr(self, f"{name}_max") >= getattr(self, f"{name}_min"),
                f"augment.{name}_max is below augment.{name}_min",
            )
        _require(0 <= self.repitch_tempo < 1, "augment.repitch_tempo must be from 0 to below 1")
        _require(self.remix_group >= 1, "augment.remix_group must be at least 1")
        for source in self.sources:
            self.for_source(source)

    def for_source(self, source: str) -> "AugmentConfig":
        """Return the configuration with the values that `sources` has for a source.

        Raises:
            ConfigError: a key is unknown or applies to all sources, or a value is wrong.
        """
        prefix = f"augment.sources.{source}"
        values = self.sources.get(source, {})
        if not isinstance(values, Mapping):
            raise ConfigError(f"{prefix} cannot be {values!r}; set its keys, such as {prefix}.tilt")
        hints = typing.get_type_hints(AugmentConfig)
        known = [key for key in hints if key not in COMMON_KEYS]
        changes = {}
        for key, value in values.items():
            _require(
                key not in COMMON_KEYS,
                f"{prefix}.{key} cannot differ between sources; set augment.{key}",
            )
            _require(key in known, f"unknown key {prefix}.{key}; known are {', '.join(known)}")
            changes[key] = _convert(hints[key], value, f"{prefix}.{key}")
        try:
            return dataclasses.replace(self, sources={}, **changes)
        except ConfigError as error:
            raise ConfigError(str(error).replace("augment.", f"{prefix}.")) from error


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and the loss.

    Attributes:
        kind: "adam", "adamw", or "muon": orthogonal updates of the weights, AdamW for the rest.
        lr: learning rate.
        transformer_lr: learning rate of the transformer; by default `lr`.
        lr_factors: factors of the learning rate by the beginning of the parameters' names, such as
            {spectral_encoder: 0.1}; the longest one that fits counts.
        freeze: beginnings of the names of parameters that are not trained, such as time_encoder or
            transformer.
        beta2: second beta of the optimiser.
        weight_decay: weight decay of everything except the transformer.
        transformer_weight_decay: weight decay of the transformer.
        clip: maximum norm of the gradient; 0 is no limit.
        warmup: steps over which the learning rate rises to its full value.
        decay: "none", "cosine" down to `final_lr` at the last step, or "plateau": the learning rate
            is multiplied by `plateau_factor` when `plateau_patience` validations in a row have
            found no better model.
        final_lr: lowest fraction of the learning rate.
        plateau_factor: factor of each reduction.
        plateau_patience: validations without a better model before a reduction.
        ema: decays of moving averages of the weights, each of which is validated too.
        loss: error of the waveforms: "l1" (mean absolute), "mse" (mean square), "rms" (root of each
            example's mean square, which is closest to nsdr), "l1_snr", "l1_snr_db", "l1_snr_stft",
            "si_sdr" or "log_wmse". Or weights of several, such as {l1_snr: 1, l1_snr_stft: 1}.
        stft_weight: weight of an additional multi-resolution STFT loss.
        source_weights: weight of each source in the loss; equal by default.
        loss_region: the part of an example that counts in the loss, as two numbers of seconds
            before its end, such as [0.4, 0.1]. For live separation; by default everything counts.
    """

    kind: Literal["adam", "adamw", "muon"] = "adam"
    lr: float = 3e-4
    transformer_lr: float | None = None
    lr_factors: Mapping[str, Any] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    beta2: float = 0.999
    weight_decay: float = 0.0
    transformer_weight_decay: float = 0.0
    clip: float = 0.0
    warmup: int = 0
    decay: Literal["none", "cosine", "plateau"] = "none"
    final_lr: float = 0.0
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    ema: tuple[float, ...] = ()
    loss: str | Mapping[str, Any] = "l1"
    stft_weight: float = 0.0
    source_weights: tuple[float, ...] = ()
    loss_region: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optim.lr must be more than 0")
        _require(all(0 < d < 1 for d in self.ema), "optim.ema must be between 0 and 1")
        _require(0 < self.beta2 < 1, "optim.beta2 must be between 0 and 1")
        for name in ("transformer_lr", "weight_decay", "transformer_weight_decay", "clip"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"optim.{name} must not be negative")
        for prefix, factor in self.lr_factors.items():
            number = _number(factor)
            _require(
                number is not None and number > 0,
                f"optim.lr_factors.{prefix} must be a number above 0, not {factor!r}; to train "
                "nothing there, use optim.freeze",
            )
        _require(0 < self.plateau_factor < 1, "optim.plateau_factor must be between 0 and 1")
        _require(self.plateau_patience >= 1, "optim.plateau_patience must be at least 1")
        loss_weights(self.loss)
        first, last = self.loss_region if len(self.loss_region) == 2 else (0.0, 0.0)
        _require(
            not self.loss_region or first > last >= 0,
            "optim.loss_region must be two numbers of seconds before the end, as in [0.4, 0.1]",
        )


def loss_weights(loss: str | Mapping[str, Any]) -> dict[str, float]:
    """Return the weight of each error that `optim.loss` names.

    Raises:
        ConfigError: a name is unknown, a weight is not above 0, or nothing is named.
    """
    weights: dict[str, float] = {}
    for name, value in ({loss: 1.0} if isinstance(loss, str) else loss).items():
        _require(
            name in LOSSES, f"optim.loss must be one of {', '.join(LOSSES)}, or weights of several,"
            f" such as {{l1: 1, si_sdr: 0.01}}, not {name!r}",
        )  # fmt: skip
        weight = _number(value)
        if weight is None or weight <= 0:
            raise ConfigError(f"optim.loss.{name} must be a number above 0, not {value!r}")
        weights[name] = weight
    _require(bool(weights), "optim.loss is empty; name at least one error, such as l1")
    return weights


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        out: folder of the run, for the checkpoint, the log, and the best and last model.
        model: `architecture` (HDemucs, Demucs or, by default, HTDemucs) and fields of its
            configuration, to train from scratch.
        init_from: a model to start from instead, by any name or path that `load_model` takes.
        sources: names of the stems to separate; by default those of the model. Sources that
            `init_from` has keep their weights; the last layers of the others start with random
            weights.
        renamed: maps a new source to the source of `init_from` whose last layers it gets, or to a
            list of sources whose sum it begins with.
        per_source: train one copy for each source, whose loss is that source's, and collect the
            copies in a bag, like `htdemucs_ft`.
        data: the music, and how it is cut.
        augment: random changes to examples.
        optim: the optimiser and the loss.
        batch_size: examples per step, of all processes and accumulated parts together.
        accumulate: parts in which a step's batch is computed, to save memory.
        steps: number of optimiser steps.
        valid_every: steps between validations.
        pre_valid: validate before the first step too.
        save_every: steps between checkpoints.
        keep: number of the latest checkpoints to keep, as `checkpoint-STEP.pt`; with 1, only
            `checkpoint.pt`.
        log_every: steps between lines of the log.
        best_by: the best model has the lowest "loss", the highest "nsdr", or the highest nsdr of
            one source, such as "nsdr vocals".
        precision: precision of the forward pass: "fp32", "bf16" or "fp16".
        compiled: use torch.compile for the network's core: faster steps after a slow start.
        device: "auto" uses a GPU if there is one; "cpu" does not.
        tensorboard: write TensorBoard curves too.
        seed: seed of all random numbers.
    """

    out: Path
    model: Mapping[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    sources: tuple[str, ...] = ()
    renamed: Mapping[str, Any] = field(default_factory=dict)
    per_source: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    batch_size: int = 64
    accumulate: int = 1
    steps: int = 100_000
    valid_every: int = 1000
    pre_valid: bool = False
    save_every: int = 1000
    keep: int = 1
    log_every: int = 50
    best_by: str = "loss"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compiled: bool = False
    device: Literal["auto", "cpu"] = "auto"
    tensorboard: bool = True
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "steps", "valid_every", "save_every", "log_every",
                     "keep"):  # fmt: skip
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        _require(
            self.best_by in ("loss", "nsdr") or self.best_by.startswith("nsdr "),
            f"best_by must be loss, nsdr or nsdr SOURCE, not {self.best_by!r}",
        )
        _require(self.seed >= 0, "seed must not be negative")
        _require(not (self.model and self.init_from), "set model or init_from, not both")
        _require(
            not self.renamed or bool(self.init_from and self.sources),
            "renamed needs init_from, and the new names in sources",
        )
        _require(
            self.batch_size % self.accumulate == 0, "batch_size must be a multiple of accumulate"
        )
        _require(
            not self.augment.remix or self.batch_size % self.augment.remix_group == 0,
            "batch_size must be a multiple of augment.remix_group",
        )
        _require(
            bool(self.data.train or self.data.musdb),
            "there is no music; set data.train or data.musdb",
        )


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read the configuration in a YAML file; `key.subkey=value` overrides replace its values.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value has the wrong type.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must contain keys and values")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not of the form key=value")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"cannot read the value in {override!r}") from None
        _set_value(fields, key.split("."), value)
    return from_plain(TrainConfig, fields, "")


def _set_value(fields: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        fields = fields.setdefault(key, {})
        if not isinstance(fields, dict):
            raise ConfigError(f"{'.'.join(keys)}: {key} has no keys of its own")
    fields[keys[-1]] = value


def from_plain(kind: type[C], fields: Any, prefix: str) -> C:
    """Build a dataclass from plain values; check every key and type.

    `prefix` is the path of the keys for messages, such as "optim.".
    """
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'the configuration'} must have keys and values")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(map(str, fields)) - set(hints))
    if unknown:
        nested = [f"{name}.{unknown[0]}" for name, hint in hints.items() if _has(hint, unknown[0])]
        known = f"use {' or '.join(nested)}" if nested else f"known are {', '.join(hints)}"
        raise ConfigError(f"unknown key {prefix}{unknown[0]}; {known}")
    required = {
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    for name in sorted(required - set(fields)):
        raise ConfigError(f"{prefix}{name} is missing")
    values = {k: _convert(hints[k], v, f"{prefix}{k}") for k, v in fields.items()}
    return kind(**values)


def _has(hint: Any, name: str) -> bool:
    """Return whether a type is a dataclass with a field of this name."""
    return dataclasses.is_dataclass(hint) and name in typing.get_type_hints(hint)


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Convert a plain value to the type of the field `key`."""
    if dataclasses.is_dataclass(hint):
        if hint is RootConfig and isinstance(value, str):
            value = {"path": value}
        if not isinstance(value, Mapping):
            first = dataclasses.fields(hint)[0].name
            raise ConfigError(f"{key} cannot be {value!r}; set its keys, such as {key}.{first}")
        return from_plain(typing.cast(type[Any], hint), value, f"{key}.")
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        kinds = [kind for kind in choices if kind is not type(None)]
        fitting = [kind for kind in kinds if typing.get_origin(kind) is Mapping]
        return _convert((fitting if isinstance(value, dict) and fitting else kinds)[0], value, key)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(choices[0], item, key) for item in items)
    if origin is Literal:
        if value not in choices:
            raise ConfigError(f"{key} must be one of {', '.join(choices)}, not {value!r}")
        return value
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if hint in (float, int):
        number = _number(value)
        if number is None:
            raise ConfigError(f"{key} must be a number, not {value!r}")
        if hint is float:
            return number
        if not number.is_integer():
            raise ConfigError(f"{key} must be a whole number, not {value!r}")
        return int(number)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{key} must have keys and values, not {value!r}")
        return value
    raise ConfigError(f"{key} cannot be {value!r}")


def _number(value: Any) -> float | None:
    """Return a finite number, also from text, since YAML reads 3e-4 and 1e5 as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
