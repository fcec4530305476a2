"""The configuration of a training run: a YAML file and `key=value` words, checked at the start.

The tables in docs/training.md are made of the docstrings of these classes.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from htdemucs.errors import ConfigError

C = TypeVar("C")


@dataclass(frozen=True)
class RootConfig:
    """A folder of multitracks.

    Attributes:
        path: folder; each folder in it holds one file per source, wav or flac.
        weight: how often its tracks are drawn, relative to their hours.
    """

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """The music, and how it is cut.

    Attributes:
        musdb: a MUSDB18-HQ folder: learn from its `train/`, except for the 14 standard validation
            tracks, which are validated with.
        train: more folders to learn from, each a path, or with its own keys as below.
        valid: more folders to choose the best model with, in the same form.
        segment: seconds of an example; by default the model's own segment.
        valid_seconds: validate with this much from the middle of each track; by default all of it.
        workers: processes that read and augment, at most one a core; with 0, the training process
            does.
        cache: folder for facts about the files; by default `cache` in the run's folder.
    """

    musdb: Path | None = None
    train: tuple[RootConfig, ...] = ()
    valid: tuple[RootConfig, ...] = ()
    segment: float | None = None
    valid_seconds: float | None = None
    workers: int = 4
    cache: Path | None = None


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to examples. Those of the first block are as published, the others are off.

    Attributes:
        shift: move each source by itself, within so many seconds.
        flip_channels: swap left and right of half the sources.
        flip_sign: flip the polarity of half the sources.
        scale_min: least gain of a source.
        scale_max: greatest gain of a source.
        remix: probability that sources of different tracks are mixed, within a group of examples.
        remix_group: examples in a group.
        repitch: probability that pitch and tempo are changed.
        repitch_semitones: most semitones by which the pitch is changed.
        repitch_tempo: greatest fraction by which the tempo is changed.

        silence: probability that a source is left out of an example.
        tilt: most decibels per octave by which a source's spectrum is tilted.
        saturate: probability that a source is softly clipped.
        effects: probability that a source goes through a random chain of equaliser, compressor,
            distortion, chorus or phaser or flanger, echo, width and reverb.
        pan: greatest distance by which a source is moved to one side; 1 is all the way.
        width: greatest fraction by which the difference of a source's channels is scaled.
        lowpass: probability that mixture and sources end at a frequency from 10 kHz up, as lossy
            files do.
        limit: probability that the mixture is softly limited, as masters are.
        codec: probability that the mixture goes through MP3, AAC or Opus (96 to 320 kbit/s) and
            back, aligned to the sample.
    """

    shift: float = 1.0
    flip_channels: bool = True
    flip_sign: bool = True
    scale_min: float = 0.25
    scale_max: float = 1.25
    remix: float = 1.0
    remix_group: int = 4
    repitch: float = 0.2
    repitch_semitones: float = 2.0
    repitch_tempo: float = 0.12

    silence: float = 0.0
    tilt: float = 0.0
    saturate: float = 0.0
    effects: float = 0.0
    pan: float = 0.0
    width: float = 0.0
    lowpass: float = 0.0
    limit: float = 0.0
    codec: float = 0.0

    def __post_init__(self) -> None:
        published = ("remix", "repitch")
        for name in (*published, "silence", "saturate", "effects", "lowpass", "limit", "codec"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name} must be from 0 to 1")
        for name in ("shift", "scale_min", "repitch_semitones", "tilt", "pan", "width"):
            _require(getattr(self, name) >= 0, f"augment.{name} must not be negative")
        _require(self.scale_max >= self.scale_min, "augment.scale_max is below augment.scale_min")
        _require(0 <= self.repitch_tempo < 1, "augment.repitch_tempo must be from 0 to below 1")
        _require(self.remix_group >= 1, "augment.remix_group must be at least 1")


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and the loss.

    Attributes:
        kind: "adam", "adamw", or "muon": orthogonal updates of the weights, AdamW for the rest.
        lr: learning rate.
        transformer_lr: learning rate of the transformer; by default `lr`.
        beta2: second beta of the optimiser.
        weight_decay: weight decay of everything but the transformer.
        transformer_weight_decay: weight decay of the transformer.
        clip: greatest norm of the gradient; 0 for no limit.
        warmup: steps over which the learning rate rises to its full value.
        decay: "none", or "cosine" down to `final_lr` at the last step.
        final_lr: fraction of the learning rate at the end of a cosine decay.
        ema: decays of the averaged models kept beside the raw one.
        loss: error of the waveforms: "l1" (mean absolute), "mse" (mean square), or "rms" (root of
            each example's mean square, the nearest to nsdr).
        stft_weight: weight of an additional multi-resolution STFT loss.
        source_weights: weight of each source in the loss; equal by default.
        loss_region: only this part of an example counts in the loss: two numbers of seconds before
            its end, as [0.4, 0.1]. For live separation; by default everything counts.
    """

    kind: Literal["adam", "adamw", "muon"] = "adam"
    lr: float = 3e-4
    transformer_lr: float | None = None
    beta2: float = 0.999
    weight_decay: float = 0.0
    transformer_weight_decay: float = 0.0
    clip: float = 0.0
    warmup: int = 0
    decay: Literal["none", "cosine"] = "none"
    final_lr: float = 0.0
    ema: tuple[float, ...] = ()
    loss: Literal["l1", "mse", "rms"] = "l1"
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
        first, last = self.loss_region if len(self.loss_region) == 2 else (0.0, 0.0)
        _require(
            not self.loss_region or first > last >= 0,
            "optim.loss_region must be two numbers of seconds before the end, as in [0.4, 0.1]",
        )


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        out: folder of the run: checkpoint, log, best and last model.
        model: `kind` (HTDemucs, the default, HDemucs or Demucs) and fields of its configuration, to
            train from scratch.
        init_from: a model to start from instead, by any name or path that `load_model` takes.
        sources: names of the stems to separate; by default the model's own. Sources that
            `init_from` has keep their weights, the last layers of the others start anew.
        renamed: new name to the source of `init_from` whose last layers it takes over.
        per_source: train one copy per source, scored on that source alone, and gather them in a
            bag, as `htdemucs_ft` is.
        data: the music, and how it is cut.
        augment: random changes to examples.
        optim: the optimiser and the loss.
        batch_size: examples per step, of all processes and accumulated parts together.
        accumulate: parts in which a step's batch is computed.
        steps: optimiser steps in all.
        valid_every: steps between validations.
        save_every: steps between checkpoints.
        log_every: steps between lines of the log.
        best_by: the best model has the lowest "loss" or the highest "nsdr".
        precision: precision of the forward pass: "fp32", "bf16" or "fp16".
        compiled: let torch compile the network's core: faster steps after minutes of compiling.
        device: "auto" trains on a GPU where there is one, "cpu" never does.
        tensorboard: also log for TensorBoard.
        seed: seed of all random draws.
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
    save_every: int = 1000
    log_every: int = 50
    best_by: Literal["loss", "nsdr"] = "loss"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compiled: bool = False
    device: Literal["auto", "cpu"] = "auto"
    tensorboard: bool = True
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "steps", "valid_every", "save_every", "log_every"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        _require(self.seed >= 0, "seed must not be negative")
        _require(not (self.model and self.init_from), "give model or init_from, not both")
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
        _require(bool(self.data.train or self.data.musdb), "name music in data.train or data.musdb")


def read_config(path: Path, words: Sequence[str] = ()) -> TrainConfig:
    """Read the configuration in a YAML file; `key.subkey=value` words replace its values.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value of the wrong kind.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must hold keys and values")
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not of the form key=value")
        _lay(fields, key.split("."), _yaml_value(word, value))
    return _build(TrainConfig, fields, "")


def _yaml_value(word: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"cannot read the value in {word!r}") from None


def _lay(fields: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        fields = fields.setdefault(key, {})
        if not isinstance(fields, dict):
            raise ConfigError(f"{'.'.join(keys)}: {key} has no keys of its own")
    fields[keys[-1]] = value


def _build(kind: type[C], fields: Any, place: str) -> C:
    """Build a dataclass from plain values; check every key and kind."""
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{place.rstrip('.') or 'the configuration'} must have keys and values")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(map(str, fields)) - set(hints))
    if unknown:
        raise ConfigError(f"unknown key {place}{unknown[0]}; known are {', '.join(hints)}")
    required = {
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    for name in sorted(required - set(fields)):
        raise ConfigError(f"{place}{name} is missing")
    values = {k: _convert(hints[k], v, f"{place}{k}") for k, v in fields.items()}
    return kind(**values)


def _convert(hint: Any, value: Any, place: str) -> Any:
    """Convert a plain value to a field's kind."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, str):  # a path alone is a root with default values
            value = {"path": value}
        return _build(typing.cast(type[Any], hint), value, f"{place}.")
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        return _convert(next(c for c in choices if c is not type(None)), value, place)
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert(choices[0], item, place) for item in items)
    if origin is Literal:
        if value not in choices:
            raise ConfigError(f"{place} must be one of {', '.join(choices)}, not {value!r}")
        return value
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 3e-4 as text
        except ValueError:
            raise ConfigError(f"{place} must be a number, not {value!r}") from None
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and value is True):
        return value
    if origin in (Mapping, dict, typing.get_origin(Mapping[str, Any])) and isinstance(value, dict):
        return value
    raise ConfigError(f"{place} cannot be {value!r}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
