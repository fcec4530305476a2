"""Training: from music and a configuration to a model that `load_model` reads."""

from htdemucs.training.config import TrainConfig, read_config
from htdemucs.training.log import LogEntry
from htdemucs.training.run import Run, finish, parts, prepare

__all__ = ["LogEntry", "Run", "TrainConfig", "finish", "parts", "prepare", "read_config"]
