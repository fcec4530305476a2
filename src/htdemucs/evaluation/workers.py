"""Tracks scored in this process, or shared out among several."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized

import torch

from htdemucs.audio import AudioFile
from htdemucs.errors import HTDemucsError
from htdemucs.evaluation.estimates import Estimator, FileEstimator, ModelEstimator
from htdemucs.evaluation.options import EvaluationOptions
from htdemucs.evaluation.scoring import OnSeconds, TrackResult, score_track
from htdemucs.evaluation.tracks import Track, audio_files
from htdemucs.separation import Progress, Separator
from htdemucs.weights import load_model

POLL = 0.2  # seconds between looks at the workers' progress
WAIT_POLICY = "OMP_WAIT_POLICY"  # read by OpenMP, with which torch shares out its work
DIED = "the process that scored it died, perhaps for lack of memory; try fewer --workers"
NO_ROOM = "the device has too little memory; lower --batch-size, --segment or --workers"

OnProgress = Callable[[Progress], None]
Outcome = TrackResult | str  # or why there is none


@dataclass(frozen=True)
class Job:
    """How to score any track, in a form that can be sent to another process."""

    options: EvaluationOptions
    stems: tuple[str, ...]
    device: str

    def estimator(self) -> Estimator:
        """Load the model, or find the files."""
        if self.options.estimates:
            return FileEstimator(self.options.estimates, self.stems)
        return model_estimator(self.options, self.device)

    def score(self, track: Track, estimator: Estimator, on_seconds: OnSeconds) -> Outcome:
        """The track's scores, or why there are none."""
        try:
            return score_track(
                track,
                estimator,
                oracle=self.options.oracle,
                spectra=self.options.spectra,
                on_seconds=on_seconds,
            )
        except HTDemucsError as error:
            return str(error)
        except torch.OutOfMemoryError:
            return NO_ROOM


def model_estimator(options: EvaluationOptions, device: str) -> ModelEstimator:
    """Load the model.

    Raises:
        ModelNotFoundError, DownloadError, CheckpointError, SeparationError: it cannot be had, or
            not with these options.
    """
    separator = Separator(
        load_model(options.model, repo=options.repo, device=device, stems=options.stems),
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
    job: Job, tracks: Sequence[Track], estimator: Estimator, on_progress: OnProgress | None
) -> Iterator[tuple[Track, Outcome]]:
    """Each track with its outcome, one after the other, in this process."""
    total = _total_seconds(tracks)
    done = 0.0

    def on_seconds(seconds: float) -> None:
        nonlocal done
        done += seconds
        if on_progress:
            on_progress(Progress(done, max(total, done)))

    for track in tracks:
        yield track, job.score(track, estimator, on_seconds)


def score_in_processes(
    job: Job, tracks: Sequence[Track], on_progress: OnProgress | None
) -> Iterator[tuple[Track, Outcome]]:
    """Each track with its outcome, as they finish, by as many processes as the options say.

    The processes are new ones, not copies of this one, because a GPU cannot be used in copies.
    Each computes with as many threads as this one, whatever their number, since the last bits of a
    network's output depend on that.

    If a process dies, the tracks that were with it or still waiting are scored again, each in a
    process of its own, so that only the one that it cannot bear is lost.
    """
    left: list[Track] = []
    workers = min(job.options.workers, len(tracks))
    for track, outcome in _pool(job, tracks, workers, on_progress):
        if outcome is None:
            left.append(track)
        else:
            yield track, outcome
    for track in left:
        for _, outcome in _pool(job, [track], 1, on_progress):
            yield track, outcome or DIED


def _pool(
    job: Job, tracks: Sequence[Track], workers: int, on_progress: OnProgress | None
) -> Iterator[tuple[Track, Outcome | None]]:
    """Each track with its outcome, None where its process died."""
    context = multiprocessing.get_context("spawn")
    total, done = _total_seconds(tracks), context.Value("d", 0.0)
    pool = ProcessPoolExecutor(
        workers, context, _start_worker, (job, torch.get_num_threads(), done)
    )
    try:
        with _sleeping_threads():
            waiting = {pool.submit(_score_in_worker, track): track for track in tracks}
        while waiting:
            finished, _ = wait(waiting, POLL, FIRST_COMPLETED)
            if on_progress:
                on_progress(Progress(done.value, max(total, done.value)))
            for future in finished:
                yield waiting.pop(future), _outcome(future)
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


def _outcome(future: Future[Outcome]) -> Outcome | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return None


class _Worker:
    """What a worker process keeps between tracks."""

    def __init__(self, job: Job, done: "Synchronized[float]") -> None:
        self._job, self._done = job, done
        self._estimator = job.estimator()

    def score(self, track: Track) -> Outcome:
        return self._job.score(track, self._estimator, self._count)

    def _count(self, seconds: float) -> None:
        with self._done.get_lock():
            self._done.value += seconds


_worker: list[_Worker] = []  # one, in a worker process


def _start_worker(job: Job, threads: int, done: "Synchronized[float]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    torch.set_num_threads(threads)
    _worker.append(_Worker(job, done))


def _score_in_worker(track: Track) -> Outcome:
    return _worker[0].score(track)


def _total_seconds(tracks: Sequence[Track]) -> float:
    """About how long all tracks are; those that cannot be read count as nothing."""
    total = 0.0
    for track in tracks:
        with suppress(HTDemucsError):
            total += AudioFile(next(iter(audio_files(track.folder).values()))).duration or 0.0
    return total
