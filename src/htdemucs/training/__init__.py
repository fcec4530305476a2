"""Training: music and a configuration in, a model that `load_model` reads out."""

from htdemucs.training.config import TrainConfig, read_config
from htdemucs.training.journal import Report
from htdemucs.training.run import Run, finish, parts, prepare

__all__ = ["Report", "Run", "TrainConfig", "finish", "parts", "prepare", "read_config"]
