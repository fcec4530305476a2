"""What a training run is told: a YAML file and `key=value` words, checked before it starts."""

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
    """A folder of track folders.

    Attributes:
        path: it; each folder in it holds one file a source, wav or flac.
        weight: how often its tracks are drawn, relative to the hours they hold.
    """

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """Where the music is, and how it is cut.

    Attributes:
        musdb: a MUSDB18-HQ folder: its `train/` to learn from, without the 14 standard validation
            tracks, which are validated with.
        train: more folders to learn from.
        valid: more folders to choose the best model with.
        segment: seconds of an example; by default the model's own segment.
        valid_seconds: validate with this much from the middle of each track; by default all.
        workers: processes that read and augment; 0 does it in the training process.
        cache: folder for the tracks' metadata; by default `cache` in the run's folder.
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
    """What is done to examples. The first block is as published, the second off by default.

    Attributes:
        shift: seconds within which each source is moved by itself.
        flip_channels, flip_sign: swap left and right, or the polarity, of half the sources.
        scale_min, scale_max: gain of each source.
        remix: probability that sources of different tracks are mixed with each other, within
            a group of examples.
        remix_group: examples in a group.
        repitch: probability of changing pitch and tempo.
        repitch_semitones, repitch_tempo: by at most this much (semitones; a fraction).

        silence: probability that a source is left out of an example.
        tilt: decibels an octave, at most, by which each source's spectrum is tilted.
        saturate: probability that a source is softly clipped.
        effects: probability that a source goes through a chain of effects of its own: equaliser,
            compressor, distortion, chorus or phaser or flanger, echo, width, reverb.
        pan: how far, at most, a source is moved to one side; 1 is all the way.
        width: how much, at most, the difference of a source's channels is scaled up or down.
        lowpass: probability that mixture and sources end at a frequency from 10 kHz up, as lossy
            files do.
        limit: probability that the mixture is softly limited, as masters are.
        codec: probability that the mixture goes through MP3, AAC or Opus and back.
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
    """How parameters move.

    Attributes:
        kind: "adam" or "adamw".
        lr, transformer_lr: learning rates; the transformer has a group of its own.
        beta2, weight_decay, transformer_weight_decay: of the optimiser.
        clip: greatest norm of the gradient; 0 leaves it.
        warmup: steps over which the rate rises to its full value.
        decay: "none", or "cosine" down to `final_lr` of it at the last step.
        final_lr: fraction of the rate left at the end of a cosine decay.
        ema: decays of the averaged models kept beside the raw one.
        loss: error of the waveforms: "l1" (mean absolute) or "mse" (mean square), or "rms", the
            root of each example's mean square, which is nearest to what nsdr measures.
        stft_weight: weight of a multi-resolution STFT loss beside it.
        source_weights: weight of each source in the loss; equal by default.
    """

    kind: Literal["adam", "adamw"] = "adam"
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

    def __post_init__(self) -> None:
        _require(self.lr > 0, "optim.lr must be more than 0")
        _require(all(0 < d < 1 for d in self.ema), "optim.ema must be between 0 and 1")
        _require(0 < self.beta2 < 1, "optim.beta2 must be between 0 and 1")
        for name in ("transformer_lr", "weight_decay", "transformer_weight_decay", "clip"):
            value = getattr(self, name)
            _require(value is None or value >= 0, f"optim.{name} must not be negative")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    Attributes:
        out: folder of the run: checkpoint, log, best and last model.
        model: fields of `HTDemucsConfig`, for training from scratch.
        init_from: a loadable model to start from instead.
        sources: what is separated; by default the model's own. Sources that `init_from` has keep
            what they have learnt, the others' last layers start anew.
        renamed: new name to the source of `init_from` whose last layers it takes.
        per_source: train one copy for each source, scored on that source alone, and end as a bag
            of them, as `htdemucs_ft` is.
        batch_size: examples a step, over all processes and accumulated parts together.
        accumulate: parts a step's batch is computed in.
        steps: optimiser steps in all.
        valid_every, save_every, log_every: steps between validations, checkpoints, log lines.
        best_by: what a validation is judged by: the lowest loss, or the highest nsdr.
        precision: of the forward pass.
        device: "auto" trains on a GPU where there is one.
        tensorboard: also log for TensorBoard.
        seed: of everything random.
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
    """The configuration in a YAML file, with `key.subkey=value` words laid over it.

    Raises:
        ConfigError: unreadable, an unknown key (it is named), or a value of the wrong kind.
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
    """An instance of a dataclass from plain values, every key and kind checked."""
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
    """A plain value as a field's kind."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, str):  # a path alone is a root with its defaults
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


def _require(held: bool, message: str) -> None:
    if not held:
        raise ConfigError(message)
