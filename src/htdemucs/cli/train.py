"""`htdemucs train`: train or fine-tune a model."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from htdemucs.cli.shared import messages

if TYPE_CHECKING:
    from htdemucs.training import LogEntry, Run

REHEARSED_STEPS = 2


def train(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file with the data, the model and the training.", show_default=False
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Replaces keys of the file: optim.lr=1e-4 steps=2000."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only measure a step: model size, memory and speed."),
    ] = False,
) -> None:
    """Train a model, or resume a run that was stopped. Needs htdemucs[train]."""
    _require("accelerate", "soundfile")
    from htdemucs.training import finish, parts, prepare, read_config

    settings = read_config(config, changes or [])
    if settings.tensorboard:
        _require("tensorboard", else_set="tensorboard=false")
    if settings.augment.repitch:
        _require("python-stretch", else_set="augment.repitch=0")
    for part in parts(settings):
        run = prepare(part)
        _introduce(run)
        if dry_run:
            _rehearse(run)
            return
        _follow(run)
    if run.trainer.accelerator.is_main_process:
        folder = finish(settings)
        line = f"done: separate with it by  htdemucs separate -n {folder} SONG"
        messages().print(line, soft_wrap=True, markup=False)


def _require(*packages: str, else_set: str = "") -> None:
    """Raise TrainingError if a package is not installed."""
    from importlib.util import find_spec

    from htdemucs.errors import TrainingError

    missing = [name for name in packages if find_spec(name.replace("-", "_")) is None]
    if missing:
        raise TrainingError(
            f"training needs {' and '.join(missing)}; install with: pip install 'htdemucs[train]'"
            + (f", or set {else_set}" if else_set else "")
        )


def _introduce(run: "Run") -> None:
    """Print the size of the network and of the music."""
    if not run.trainer.accelerator.is_main_process:
        return
    say = partial(messages().print, soft_wrap=True, markup=False)
    network, corpus = run.trainer.network, run.corpus
    parameters = sum(p.numel() for p in network.parameters())
    seconds = sum(recording.length for recording in corpus.train) / network.sample_rate
    say(
        f"{parameters / 1e6:.2f} M parameters for {', '.join(network.sources)}; "
        f"{len(corpus.train)} tracks ({seconds / 3600:.2f} h) to learn from, "
        f"{len(corpus.valid)} to validate with; processes: {run.trainer.accelerator.num_processes}"
    )
    for note in corpus.notes:
        say(f"note: {note}")
    if not corpus.valid:
        say("note: no tracks to validate with; the last model is the result")
    if run.resumed:
        say(f"resuming after step {run.trainer.step} of {run.config.steps}")


def _rehearse(run: "Run") -> None:
    """Run a few steps and print their time and memory."""
    import torch

    from htdemucs.provenance import peak_device_memory, peak_memory

    entry = run.trainer.rehearse(REHEARSED_STEPS)
    if not run.trainer.accelerator.is_main_process:
        return
    network, config = run.trainer.network, run.config
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    if torch.cuda.is_available() and run.trainer.accelerator.device.type == "cuda":
        memory, where = peak_device_memory(), "GPU memory"
    else:
        memory, where = peak_memory(), "memory"
    seconds = config.batch_size / entry.examples_per_second
    say = messages().print
    say(f"model: {size / 2**20:.1f} MiB of parameters")
    say(f"one step of {config.batch_size} examples: {seconds:.2f} s, {entry.waiting:.0%} waiting")
    if memory is not None:
        say(f"peak {where}: {memory / 2**20:.0f} MiB")
    say(f"all {config.steps} steps: {_duration(seconds * config.steps)} without validation")


def _follow(run: "Run") -> None:
    """Train to the end and print the log; after a signal, write a checkpoint and exit."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = messages()
    trainer, total = run.trainer, run.config.steps
    main = trainer.accelerator.is_main_process
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    live = console.is_terminal and main
    with (
        _stopping(trainer.stop) as received,
        Progress(*columns, console=console, disable=not live) as progress,
    ):
        task = progress.add_task("step 0", total=total, completed=trainer.step)
        for entry in run.train():
            if not main:
                continue
            line = _line(entry, run)
            progress.update(task, completed=entry.step, description=line)
            if not live or entry.valid:
                console.print(line, soft_wrap=True)
    if received and trainer.step < total:
        if main:
            console.print(f"stopped after step {trainer.step}; run the same command to resume")
        raise typer.Exit(128 + received[0])


def _line(entry: "LogEntry", run: "Run") -> str:
    config = run.config
    remaining = (config.steps - entry.step) * config.batch_size / entry.examples_per_second
    line = (
        f"step {entry.step}/{config.steps}  loss {entry.loss:.5f}  "
        f"{entry.examples_per_second:.2f} examples/s  {entry.waiting:.0%} waiting  "
        f"{_duration(remaining)} left"
    )
    for model, scores in entry.valid.items():
        line += f"\n  valid {model}: " + "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
    if entry.valid:
        best = entry.best
        line += f"\n  best: step {best['step']:.0f}, loss {best['loss']:.4g}, {best['nsdr']:.2f} dB"
    return line


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into a call of `stop`; a second one ends the process at once."""
    received: list[int] = []

    def handle(caught: int, _frame: FrameType | None) -> None:
        received.append(caught)
        signal.signal(caught, signal.SIG_DFL)
        stop()

    before = {kind: signal.signal(kind, handle) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
