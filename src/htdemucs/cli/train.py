"""`htdemucs train`: train or fine-tune a model."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from htdemucs.cli import options as opt
from htdemucs.cli.console import print_status, status_console
from htdemucs.results import counted

if TYPE_CHECKING:
    from htdemucs.training import LogEntry, Run

BENCHMARK_STEPS = 2


@opt.command(
    "train",
    examples="""
    htdemucs train config.yaml
    htdemucs train config.yaml optim.lr=1e-4 steps=2000
    htdemucs train config.yaml --dry-run
    """,
)
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@opt.flag("--dry-run", help="Only measure a step: model size, memory and speed.")
def train(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Train a model, or resume an interrupted run. Needs the extra train.

    CONFIG is a YAML file with the data, the model and the training; KEY=VALUE replaces its keys.
    """
    _require("accelerate", "soundfile")
    from htdemucs.training import finish, prepare, read_config, split_runs

    settings = read_config(config, overrides)
    if settings.tensorboard:
        _require("tensorboard", else_set="tensorboard=false")
    if settings.augment.repitch:
        _require("python-stretch", else_set="augment.repitch=0")
    for single_run in split_runs(settings):
        run = prepare(single_run)
        _print_sizes(run)
        if dry_run:
            _benchmark(run)
            return
        _train(run)
    if run.trainer.accelerator.is_main_process:
        folder = finish(settings)
        print_status(f"done; separate songs with: htdemucs separate -n {folder} SONG")


def _require(*packages: str, else_set: str = "") -> None:
    """Raise TrainingError if a package is not installed."""
    from importlib.util import find_spec

    from htdemucs.errors import TrainingError

    missing = [name for name in packages if find_spec(name.replace("-", "_")) is None]
    if missing:
        raise TrainingError(
            f"training needs {' and '.join(missing)}; "
            "in the repository, run: pip install '.[train]'"
            + (f", or set {else_set}" if else_set else "")
        )


def _print_sizes(run: "Run") -> None:
    """Print the size of the network and of the music."""
    if not run.trainer.accelerator.is_main_process:
        return
    network, corpus = run.trainer.network, run.corpus
    parameters = sum(p.numel() for p in network.parameters())
    seconds = sum(recording.length for recording in corpus.train) / network.sample_rate
    print_status(
        f"{parameters / 1e6:.2f} M parameters for {', '.join(network.sources)}; "
        f"{counted(len(corpus.train), 'track')} ({seconds / 3600:.2f} h) for training, "
        f"{len(corpus.valid)} for validation; processes: {run.trainer.accelerator.num_processes}"
    )
    for note in corpus.notes:
        print_status(f"note: {note}")
    if not corpus.valid:
        print_status("note: there are no validation tracks; the last model is the result")
    if run.resumed:
        print_status(f"resuming after step {run.trainer.step} of {run.config.steps}")
    for change in run.changes:
        print_status(f"note: {change}")
    if changed := run.trainer.changed_conditions:
        print_status(f"note: the best model is scored again, because {_and(changed)} changed")


def _benchmark(run: "Run") -> None:
    """Run a few steps; print their time and memory."""
    import torch

    from htdemucs.environment import peak_device_memory, peak_memory

    entry = run.trainer.benchmark(BENCHMARK_STEPS)
    if not run.trainer.accelerator.is_main_process:
        return
    network, config = run.trainer.network, run.config
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    if torch.cuda.is_available() and run.trainer.accelerator.device.type == "cuda":
        memory, where = peak_device_memory(), "GPU memory"
    else:
        memory, where = peak_memory(), "memory"
    seconds = config.batch_size / entry.examples_per_second
    print_status(f"model: {size / 2**20:.1f} MiB of parameters")
    print_status(
        f"one step of {config.batch_size} examples: {seconds:.2f} s, {entry.waiting:.0%} waiting"
    )
    if memory is not None:
        print_status(f"peak {where}: {memory / 2**20:.0f} MiB")
    print_status(
        f"all {config.steps} steps: {_duration(seconds * config.steps)} without validation"
    )


def _train(run: "Run") -> None:
    """Train to the end and print the log; after a signal, write a checkpoint and exit."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = status_console()
    trainer, total = run.trainer, run.config.steps
    main = trainer.accelerator.is_main_process
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    show_bar = console.is_terminal and main

    def stop() -> None:
        trainer.stop()
        if main:
            print_status("stopping after this step; press Ctrl-C again to stop now")

    with (
        _stop_on_signals(stop) as received,
        Progress(*columns, console=console, disable=not show_bar) as progress,
    ):
        task = progress.add_task("step 0", total=total, completed=trainer.step)
        for entry in run.train():
            if not main:
                continue
            line = _format_entry(entry, run)
            progress.update(task, completed=entry.step, description=line)
            if not show_bar or entry.valid:
                print_status(line)
    if received and trainer.step < total:
        if main:
            print_status(f"stopped after step {trainer.step}; run the same command to resume")
        raise click.exceptions.Exit(128 + received[0])


def _format_entry(entry: "LogEntry", run: "Run") -> str:
    config = run.config
    line = f"step {entry.step}/{config.steps}"
    if entry.step:
        remaining = (config.steps - entry.step) * config.batch_size / entry.examples_per_second
        line += (
            f"  loss {entry.loss:.5f}  {entry.examples_per_second:.2f} examples/s  "
            f"{entry.waiting:.0%} waiting  {_duration(remaining)} left"
        )
    for model, scores in entry.valid.items():
        line += f"\n  valid {model}: " + "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
    if entry.valid:
        best = entry.best
        line += f"\n  best: step {best['step']:.0f}, loss {best['loss']:.4g}, {best['nsdr']:.2f} dB"
    return line


def _and(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _stop_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` on Ctrl-C or SIGTERM; a second signal ends the process immediately.

    A thread waits for the signals, because Python's handlers run only after PyTorch's current
    operation, which may take minutes.
    """
    received: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def wait() -> None:
        while number := int.from_bytes(reader.recv(1), "little"):  # 0 after closing
            if number not in kinds:
                continue
            if received:
                os._exit(128 + number)
            received.append(number)
            stop()

    previous = {kind: signal.signal(kind, lambda *_: None) for kind in kinds}
    previous_fd = signal.set_wakeup_fd(writer.fileno())
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        signal.set_wakeup_fd(previous_fd)
        for kind, handler in previous.items():
            signal.signal(kind, handler)
        writer.close()
        thread.join()
        reader.close()
