"""Score many multitracks, in this process or in several worker processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
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
from htdemucs.evaluation.scoring import EvaluationOptions, OnSeconds, TrackScores, score_track
from htdemucs.events import EventCallback, ProgressTracker, ignore_events
from htdemucs.separation import Separator
from htdemucs.weights import load_model

POLL = 0.2  # seconds between updates of the progress
WAIT_POLICY = "OMP_WAIT_POLICY"  # OpenMP's variable; torch's CPU threads are OpenMP's
WORKER_DIED = "the process that scored it died, perhaps for lack of memory; try fewer workers"
OUT_OF_MEMORY = "the device has too little memory; lower the batch size, the segment or the workers"


@dataclass(frozen=True)
class ScoringJob:
    """How to score any multitrack; can be pickled for a worker process."""

    options: EvaluationOptions
    stems: tuple[str, ...]
    device: str

    def estimator(self) -> Estimator:
        """Return the estimator: it loads the model, or reads files."""
        if self.options.estimates:
            return FileEstimator(self.options.estimates, self.stems)
        return model_estimator(self.options, self.device)

    def score(self, folder: Path, estimator: Estimator, on_seconds: OnSeconds) -> TrackScores | str:
        """Return the scores of the multitrack in a folder, or an error message."""
        try:
            return score_track(
                read_multitrack(folder),
                estimator,
                oracle=self.options.oracle,
                spectra=self.options.spectra,
                metrics=self.options.metrics,
                on_seconds=on_seconds,
            )
        except HTDemucsError as error:
            return str(error)
        except torch.OutOfMemoryError:
            return OUT_OF_MEMORY


def model_estimator(
    options: EvaluationOptions, device: str, on_event: EventCallback = ignore_events
) -> ModelEstimator:
    """Load the model and return its estimator.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError: the model cannot be loaded.
        SeparationError: the model does not support the options.
    """
    model = load_model(
        options.model, repo=options.repo, device=device, stems=options.stems, on_progress=on_event
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


def score_sequentially(
    job: ScoringJob,
    folders: Sequence[Path],
    estimator: Estimator,
    on_event: EventCallback = ignore_events,
) -> Iterator[tuple[Path, TrackScores | str]]:
    """Yield each folder with its scores or error message, in order, from this process."""
    tracker = ProgressTracker(None, _total_seconds(folders))
    done = 0.0

    def on_seconds(seconds: float) -> None:
        nonlocal done
        done += seconds
        on_event(tracker.at(done))

    for folder in folders:
        yield folder, job.score(folder, estimator, on_seconds)


def score_in_parallel(
    job: ScoringJob, folders: Sequence[Path], on_event: EventCallback = ignore_events
) -> Iterator[tuple[Path, TrackScores | str]]:
    """Yield each folder with its scores or error message, as they finish, from worker processes.

    The processes are spawned, not forked, because a GPU cannot be used after a fork. Each has as
    many threads as this one, because the last bits of a network's output depend on their number.

    If a process dies, all folders without a result are scored again, each in a separate process, so
    that only the folder that makes its process die has no scores.
    """
    unfinished: list[Path] = []
    workers = min(job.options.workers, len(folders))
    for folder, result in _run_pool(job, folders, workers, on_event):
        if result is None:
            unfinished.append(folder)
        else:
            yield folder, result
    for folder in unfinished:
        for _, result in _run_pool(job, [folder], 1, on_event):
            yield folder, result or WORKER_DIED


def _run_pool(
    job: ScoringJob, folders: Sequence[Path], workers: int, on_event: EventCallback
) -> Iterator[tuple[Path, TrackScores | str | None]]:
    """Yield each folder with its scores or error message; with None if its process died."""
    context = multiprocessing.get_context("spawn")
    tracker, done = ProgressTracker(None, _total_seconds(folders)), context.Value("d", 0.0)
    pool = ProcessPoolExecutor(
        workers, context, _start_worker, (job, torch.get_num_threads(), done)
    )
    try:
        with _passive_waiting():
            pending = {pool.submit(_score_in_worker, folder): folder for folder in folders}
        while pending:
            finished, _ = wait(pending, POLL, FIRST_COMPLETED)
            on_event(tracker.at(done.value))
            for future in finished:
                folder = pending.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = None
                yield folder, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _passive_waiting() -> Iterator[None]:
    """Make the OpenMP threads of processes that are started here sleep while they wait.

    Several processes with one thread per core each would otherwise spend most of their time in busy
    waiting. A value that the user has set is kept.
    """
    previous = os.environ.get(WAIT_POLICY)
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")
    try:
        yield
    finally:
        if previous is None:
            del os.environ[WAIT_POLICY]


_score_folder: list[Callable[[Path], TrackScores | str]] = []  # one function, in a worker


def _start_worker(job: ScoringJob, threads: int, done: "Synchronized[float]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    torch.set_num_threads(threads)
    estimator = job.estimator()

    def on_seconds(seconds: float) -> None:
        with done.get_lock():
            done.value += seconds

    _score_folder.append(lambda folder: job.score(folder, estimator, on_seconds))


def _score_in_worker(folder: Path) -> TrackScores | str:
    return _score_folder[0](folder)


def _total_seconds(folders: Sequence[Path]) -> float:
    """Return the approximate length of all multitracks that can be read."""
    total = 0.0
    for folder in folders:
        with suppress(HTDemucsError):
            total += AudioFile(audio_paths(folder)[0]).duration or 0.0
    return total
