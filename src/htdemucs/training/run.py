"""Build a run from its configuration: the network, the music and the training loop."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from htdemucs.errors import ConfigError, TrainingError, reason
from htdemucs.fsutil import atomic_write, delete_partials
from htdemucs.model import Bag, Network, build
from htdemucs.model.architectures import CONFIGS
from htdemucs.model.config import seconds_to_samples
from htdemucs.training.config import TrainConfig
from htdemucs.training.dataloader import ExcerptSampler, StemDataset
from htdemucs.training.dataset import Corpus, Recording, read_corpus
from htdemucs.training.head_transfer import replace_sources
from htdemucs.training.log import LogEntry, TrainingLog
from htdemucs.training.losses import MIN_STFT_LENGTH, loss_region
from htdemucs.training.rng import seed_torch
from htdemucs.training.trainer import BEST, LAST, Trainer
from htdemucs.training.validation import Validation
from htdemucs.weights import load_model, save_model

CONFIG = "config.yaml"  # in the run's folder
PATIENCE = timedelta(hours=3)  # of a process for the one that reads the music for the first time


@dataclass(frozen=True)
class Run:
    """A run that is ready to start.

    Attributes:
        trainer: the training loop.
        corpus: the music.
        resumed: true if the run starts from a checkpoint.
        changes: what differs from the configuration that the run had before, one line each.
    """

    trainer: Trainer
    corpus: Corpus
    resumed: bool
    changes: list[str] = field(default_factory=list)

    @property
    def config(self) -> TrainConfig:
        """Return the run's configuration."""
        return self.trainer.config

    def train(self) -> Iterator[LogEntry]:
        """Train, write a log to the run's folder, and yield its entries.

        Raises:
            TrainingError: the loss is not finite, or the run's folder cannot be written.
            AudioError: a file cannot be read.
        """
        try:
            yield from self._train()
        except OSError as error:
            raise TrainingError(
                f"cannot write to {self.config.out}: {reason(error)}; free some space there, "
                "then run again to resume from the last checkpoint"
            ) from error

    def _train(self) -> Iterator[LogEntry]:
        if not self.trainer.accelerator.is_main_process:
            yield from self.trainer.run()
            return
        delete_partials(self.config.out)
        with atomic_write(self.config.out / CONFIG) as partial:
            text = yaml.safe_dump(_plain(self.config), sort_keys=False)
            partial.write_text(text, encoding="utf-8")
        log = TrainingLog(self.config.out, self.trainer.step, self.config.tensorboard)
        if self.changes:
            log.write_changes(self.trainer.step, self.changes)
        try:
            for entry in self.trainer.run():
                log.write(entry)
                yield entry
        finally:
            log.close()


def split_runs(config: TrainConfig) -> list[TrainConfig]:
    """Return the configurations of the single runs: `config` itself, or one for each source."""
    if not config.per_source:
        return [config]
    sources = config.sources or _build_network(config).sources
    return [
        dataclasses.replace(
            config,
            out=config.out / source,
            per_source=False,
            best_by=config.best_by.split()[0],  # each run has one source
            optim=dataclasses.replace(
                config.optim, source_weights=tuple(float(s == source) for s in sources)
            ),
        )
        for source in sources
    ]


def prepare(config: TrainConfig) -> Run:
    """Build one run, and resume it from its checkpoint if it has one.

    Raises:
        ConfigError: the configuration contradicts itself, the network or this machine.
        AudioError, EvaluationError: a folder has no usable track.
        CheckpointError: the run's checkpoint is damaged or belongs to another network.
    """
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[config.precision]
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            cpu=config.device == "cpu",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot train in {config.precision} here ({error}); set precision=fp32"
        ) from error
    network = _build_network(config)
    weights = config.optim.source_weights or (1.0,) * len(network.sources)
    if len(weights) != len(network.sources) or min(weights) < 0 or not sum(weights):
        raise ConfigError(f"optim.source_weights must be {len(network.sources)} numbers from 0 up")
    scored = [name for name, weight in zip(network.sources, weights, strict=True) if weight]
    if config.best_by.startswith("nsdr ") and config.best_by.removeprefix("nsdr ") not in scored:
        raise ConfigError(f"best_by must name one of {', '.join(scored)}, not {config.best_by!r}")
    with accelerator.main_process_first():  # the others find the files' properties in the cache
        corpus = read_corpus(
            config.data,
            network.sources,
            channels=network.audio_channels,
            sample_rate=network.sample_rate,
            cache=config.data.cache or config.out / "cache",
        )
    validate = None
    if corpus.valid:
        validate = Validation(
            corpus.valid, weights, config.optim.loss, config.data.valid_seconds, accelerator
        )
    dataset = _build_dataset(config, network, corpus.train)
    conditions = validate.conditions if validate else {}
    trainer = Trainer(config, network, dataset, validate, accelerator, conditions)
    resumed = trainer.resume()
    return Run(trainer, corpus, resumed, _config_changes(config) if resumed else [])


def finish(config: TrainConfig) -> Path:
    """Return the folder of the model of finished runs, for `load_model`.

    With `per_source`, the models of the single runs are first collected in a bag.
    """
    if not config.per_source:
        return _model_folder(config)
    members = [load_model(_model_folder(run), device="cpu") for run in split_runs(config)]
    assert all(isinstance(member, Network) for member in members)
    bag = Bag(members, torch.eye(len(members)).tolist())  # type: ignore[arg-type]
    save_model(bag, config.out / BEST)
    return config.out / BEST


def _model_folder(config: TrainConfig) -> Path:
    """Return the folder of the best model, or of the last one without validation."""
    for name in (BEST, LAST):
        if (config.out / name).is_dir():
            return config.out / name
    raise TrainingError(f"{config.out} has no model yet")


def _build_network(config: TrainConfig) -> Network:
    """Return the network to train; its weights depend on the configuration only."""
    seed_torch(config.seed, "network")
    if config.init_from is None:
        fields = dict(config.model)
        if config.sources:
            fields["sources"] = config.sources
        architecture = fields.pop("architecture", "HTDemucs")
        if architecture not in CONFIGS:
            raise ConfigError(
                f"model.architecture must be one of {', '.join(CONFIGS)}, not {architecture!r}"
            )
        if config.data.segment is not None and architecture == "HTDemucs":
            fields.setdefault("segment", config.data.segment)
        return build(CONFIGS[architecture].from_dict(fields))
    model = load_model(config.init_from, device="cpu")
    if isinstance(model, Bag):
        if len(model.members) > 1:
            raise ConfigError(f"{config.init_from} is a bag; set init_from to one of its members")
        model = model.members[0]
    seed_torch(config.seed, "head transfer")
    if config.sources and (config.sources != model.sources or config.renamed):
        model = replace_sources(model, config.sources, config.renamed)
    longest = model.max_segment
    if config.data.segment is not None and longest is not None and config.data.segment > longest:
        longer = build(dataclasses.replace(model.config, segment=config.data.segment))
        longer.load_state_dict(model.state_dict())  # no parameter depends on the length
        return longer
    return model


def _build_dataset(
    config: TrainConfig, network: Network, recordings: list[Recording]
) -> StemDataset:
    sample_rate = network.sample_rate
    length = network.config.segment_length
    if config.data.segment is not None:
        length = seconds_to_samples(config.data.segment, sample_rate)
    if length < 1:
        raise ConfigError("data.segment is shorter than a sample")
    longest = network.max_segment
    if longest is not None and length > seconds_to_samples(longest, sample_rate):
        raise ConfigError(f"data.segment must be at most the model's {float(longest):g} seconds")
    region = loss_region(config.optim, sample_rate) or (length, 0)
    if region[0] > length:
        raise ConfigError("optim.loss_region must not begin before the example")
    if config.optim.stft_weight and region[0] - region[1] < MIN_STFT_LENGTH:
        raise ConfigError(
            f"optim.loss_region must have {MIN_STFT_LENGTH} samples or more for optim.stft_weight"
        )
    if unknown := sorted(set(map(str, config.augment.sources)) - set(network.sources)):
        raise ConfigError(
            f"augment.sources must name some of {', '.join(network.sources)}, not {unknown[0]!r}"
        )
    shift = max(config.augment.for_source(source).shift for source in network.sources)
    sampler = ExcerptSampler(
        [recording.length for recording in recordings],
        [recording.weight for recording in recordings],
        length=length + math.ceil(shift * sample_rate),
        remix=config.augment.remix,
        remix_group=config.augment.remix_group,
        seed=config.seed,
    )
    return StemDataset(
        recordings,
        sampler,
        config.augment,
        sources=network.sources,
        channels=network.audio_channels,
        sample_rate=sample_rate,
        length=length,
        batch_size=config.batch_size,
        seed=config.seed,
    )


def _config_changes(config: TrainConfig) -> list[str]:
    """Return how the configuration differs from the one in the run's folder, one line for a key."""
    try:
        saved = yaml.safe_load((config.out / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    before, now = _flatten(saved), _flatten(_plain(config))
    changes = []
    for key in sorted((before.keys() | now.keys()) - {"out"}):
        old, new = before.get(key, "not set"), now.get(key, "not set")
        if old != new:
            changes.append(f"{key} was {old} and is now {new}")
    return changes


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by their paths, such as "optim.lr"."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _plain(value: Any) -> Any:
    """Return a configuration as dictionaries, lists and scalars, for YAML."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
