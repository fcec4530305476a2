"""Set the number of torch's threads for a while.

MERGED: Multitracks scored in this process, or shared out among several.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch

from htdemucs.audio import AudioFile
from htdemucs.errors import HTDemucsError
from htdemucs.evaluation.dataset import audio_paths, read_multitrack
from htdemucs.evaluation.estimates import Estimator, FileEstimator, ModelEstimator
from htdemucs.evaluation.scoring import EvaluationOptions, OnSeconds, TrackResult, score_track
from htdemucs.events import EventCallback, ProgressTracker, ignore_events
from htdemucs.separation import Separator
from htdemucs.weights import load_model

POLL = 0.2  # seconds between looks at the workers' progress
WAIT_POLICY = "OMP_WAIT_POLICY"  # read by OpenMP, with which torch shares out its work
DIED = "the process that scored it died, perhaps for lack of memory; try fewer workers"
NO_ROOM = "the device has too little memory; lower the batch size, the segment or the workers"


@dataclass(frozen=True)
class Scoring:
    """How to score any multitrack, in a form that can be sent to another process."""

    options: EvaluationOptions
    stems: tuple[str, ...]
    device: str

    def estimator(self) -> Estimator:
        """Load the model, or find the files."""
        if self.options.estimates:
            return FileEstimator(self.options.estimates, self.stems)
        return model_estimator(self.options, self.device)

    def score(self, folder: Path, estimator: Estimator, on_seconds: OnSeconds) -> TrackResult | str:
        """Return the scores of the multitrack in a folder, or why there are none."""
        try:
            return score_track(
                read_multitrack(folder),
                estimator,
                oracle=self.options.oracle,
                spectra=self.options.spectra,
                on_seconds=on_seconds,
            )
        except HTDemucsError as error:
            return str(error)
        except torch.OutOfMemoryError:
            return NO_ROOM


def model_estimator(
    options: EvaluationOptions, device: str, tell: EventCallback = ignore_events
) -> ModelEstimator:
    """Load the model.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError, SeparationError: it cannot be had, or
            not with these options.
    """
    model = load_model(
        options.model, repo=options.repo, device=device, stems=options.stems, on_progress=tell
    )
    separator = Separator(
        model,
        overlap=options.overlap,
        shifts=options.shifts,
        segment=options.segment,
        batch_size=options.batch_size,
        stems=options.stems,
        seed=options.seed,
        precision=options.precision,
    )
    return ModelEstimator(separator)


def score_here(
    scoring: Scoring,
    folders: Sequence[Path],
    estimator: Estimator,
    tell: EventCallback = ignore_events,
) -> Iterator[tuple[Path, TrackResult | str]]:
    """Yield each folder with its result or failure, one after the other, in this process."""
    pace = ProgressTracker(None, _total_seconds(folders))
    done = 0.0

    def on_seconds(seconds: float) -> None:
        nonlocal done
        done += seconds
        tell(pace.at(done))

    for folder in folders:
        yield folder, scoring.score(folder, estimator, on_seconds)


def score_in_processes(
    scoring: Scoring, folders: Sequence[Path], tell: EventCallback = ignore_events
) -> Iterator[tuple[Path, TrackResult | str]]:
    """Yield each folder with its result or failure, as they finish, by as many workers as asked.

    The processes are new ones, not copies of this one, because a GPU cannot be used in copies.
    Each computes with as many threads as this one, whatever the number of workers, since the last
    bits of a network's output depend on that.

    If a process dies, the folders that it had or that were still waiting are scored again, each in
    a process of its own, so that only the one that kills its process is lost.
    """
    again: list[Path] = []
    workers = min(scoring.options.workers, len(folders))
    for folder, result in _pool(scoring, folders, workers, tell):
        if result is None:
            again.append(folder)
        else:
            yield folder, result
    for folder in again:
        for _, result in _pool(scoring, [folder], 1, tell):
            yield folder, result or DIED


def _pool(
    scoring: Scoring, folders: Sequence[Path], workers: int, tell: EventCallback
) -> Iterator[tuple[Path, TrackResult | str | None]]:
    """Yield each folder with its result or failure, None where its process died."""
    context = multiprocessing.get_context("spawn")
    pace, done = ProgressTracker(None, _total_seconds(folders)), context.Value("d", 0.0)
    pool = ProcessPoolExecutor(
        workers, context, _start_worker, (scoring, torch.get_num_threads(), done)
    )
    try:
        with _sleeping_threads():
            waiting = {pool.submit(_score_in_worker, folder): folder for folder in folders}
        while waiting:
            finished, _ = wait(waiting, POLL, FIRST_COMPLETED)
            tell(pace.at(done.value))
            for future in finished:
                yield waiting.pop(future), _result(future)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _sleeping_threads() -> Iterator[None]:
    """Let processes started here wait for their threads asleep, unless the user says otherwise.

    Several processes with a thread on every core each would else spend most of their time watching
    for threads that cannot run.
    """
    chosen = os.environ.get(WAIT_POLICY)
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")
    try:
        yield
    finally:
        if chosen is None:
            del os.environ[WAIT_POLICY]


def _result(future: Future[TrackResult | str]) -> TrackResult | str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return None


_worker: list[Callable[[Path], TrackResult | str]] = []  # one, in a worker process


def _start_worker(scoring: Scoring, threads: int, done: "Synchronized[float]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    torch.set_num_threads(threads)
    estimator = scoring.estimator()

    def on_seconds(seconds: float) -> None:
        with done.get_lock():
            done.value += seconds

    _worker.append(lambda folder: scoring.score(folder, estimator, on_seconds))


def _score_in_worker(folder: Path) -> TrackResult | str:
    return _worker[0](folder)


def _total_seconds(folders: Sequence[Path]) -> float:
    """Return about how long all multitracks are, without those that cannot be read."""
    total = 0.0
    for folder in folders:
        with suppress(HTDemucsError):
            total += AudioFile(audio_paths(folder)[0]).duration or 0.0
    return total
