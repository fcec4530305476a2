"""Training: from music and a configuration to a model that `load_model` reads.

Start reading at `trainer.py` (the loop), then `run.py` (builds the loop from a configuration) and
`dataloader.py` (the examples). This package imports evaluation and everything below it; only the
command line imports this package. To add an augmentation: a documented field in `AugmentConfig`
(config.py) and a block with its own random generator in augment.py. To add a loss: a function in
`ERRORS` (losses.py) and its name in `OptimConfig.loss` (config.py). To add an optimiser:
`build_optimizer` (optim.py). To add a data set's layout: a YAML file in `mappings/`, whose keys are
the fields of `StemMapping` (layouts.py).
"""

from htdemucs.training.config import TrainConfig, read_config
from htdemucs.training.log import LogEntry
from htdemucs.training.run import Run, finish, prepare, split_runs

__all__ = ["LogEntry", "Run", "TrainConfig", "finish", "prepare", "read_config", "split_runs"]
