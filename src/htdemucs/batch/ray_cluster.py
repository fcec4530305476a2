"""The outcomes of a large run as a Parquet file, with a row for each track.

MERGED: Separate many tracks on a Ray cluster: Ray Data shares them among workers with a model each.
"""

import json
import logging
import math
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from htdemucs.audio.ffmpeg import audio_errors, printable
from htdemucs.batch import remote
from htdemucs.batch.inputs import Track
from htdemucs.batch.library import Library
from htdemucs.batch.remote import Stored
from htdemucs.batch.results import Outcome, failed
from htdemucs.errors import ClusterError, HTDemucsError, SeparationError
from htdemucs.events import EventCallback
from htdemucs.fast import keep_freed_memory
from htdemucs.fsutil import atomic_write
from htdemucs.separation import Separator
from htdemucs.stems import OutputOptions
from htdemucs.stems.paths import TAGS, template_fields
from htdemucs.weights import load_model

CHUNK = 10_000  # rows that are Python objects; more are packed into Arrow tables


@dataclass(frozen=True)
class Row:
    """A track of a run.

    Attributes:
        position: the track's number in the list of tracks, from 0.
        outcome: the outcome of its separation.
        worker: the host and process that worked on it; None if it never reached a worker.
        device: the worker's device.
        deaths: how many workers died while they worked on it.
    """

    position: int
    outcome: Outcome
    worker: str | None = None
    device: str | None = None
    deaths: int = 0


class OutcomeTable:
    """Collects rows in any order, and writes them to a file in the order of the list."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.duration = 0.0  # seconds of audio separated now
        self._rows: list[dict[str, Any]] = []
        self._tables: list[Any] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        outcome = row.outcome
        self.counts[outcome.status] += 1
        if outcome.status == "separated":
            self.duration += outcome.duration or 0.0
        self._rows.append(
            {
                "position": row.position,
                "path": _text(outcome.track),
                "status": outcome.status,
                "reason": _text(outcome.reason),
                "duration": outcome.duration,
                "seconds": outcome.seconds,
                "resumed": outcome.resumed,
                "gain": outcome.gain,
                "files": [(name, _text(path)) for name, path in outcome.files.items()],
                "manifest": _text(outcome.manifest),
                "warnings": [_text(warning) for warning in outcome.warnings],
                "worker": row.worker,
                "device": row.device,
                "deaths": row.deaths,
            }
        )
        if len(self._rows) >= CHUNK:
            self._pack()

    def write(self, place: str) -> None:
        """Write the table to a path or URL; the file appears there only when it is whole.

        Raises:
            AudioError, StorageError: the file cannot be written.
        """
        from pyarrow import concat_tables, parquet

        self._pack()
        table = concat_tables(self._tables).sort_by("position")

        def save(path: Path) -> None:
            parquet.write_table(table, path, compression="zstd")

        if remote.is_url(place):
            with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
                save(Path(scratch, "outcomes"))
                remote.put(Path(scratch, "outcomes"), place)
            return
        remedy = "check its folder, or choose another place for the table"
        with (
            audio_errors(Path(place), "cannot be written", remedy),
            atomic_write(Path(place)) as partial,
        ):
            save(partial)

    def _pack(self) -> None:
        from pyarrow import Table

        self._tables.append(Table.from_pylist(self._rows, schema=_schema()))
        self._rows = []


def _schema() -> Any:
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    kinds: dict[str, Any] = {
        "position": count,
        "path": text,
        "status": text,
        "reason": text,
        "duration": real,
        "seconds": real,
        "resumed": real,
        "gain": real,
        "files": pa.map_(text, text),
        "manifest": text,
        "warnings": pa.list_(text),
        "worker": text,
        "device": text,
        "deaths": count,
    }
    return pa.schema(list(kinds.items()))


def _text(value: str | None) -> str | None:
    """Return text that UTF-8 can hold, as Parquet needs it; file names can hold any bytes."""
    return None if value is None else printable(Path(value)) if value else ""


MAX_DEATHS = 3  # workers that may die over a track before it fails
OBJECT_STORE = 512 << 20  # bytes; only lists and outcomes go through it
MOST_AT_ONCE = 64  # tracks that a worker gets in one piece
SHARES = 32  # least number of pieces for each worker, so that all end at about the same time
STANDARD_ERROR = 2  # file descriptor
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # send no statistics
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # fatal errors are raised; all others are in Ray's log files
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # avoids a warning
}


@dataclass(frozen=True)
class Plan:
    """The work on each track, in a form that can be sent to another machine.

    Attributes:
        name, repo: the model, as for `load_model`.
        options: the files to write.
        stems: limit the model to these stems.
        settings: arguments of the `Separator`.
        out: path or URL of the folder for the stems.
        device: the device of each worker; by default the best that it has.
        skip_existing, scratch: as for `Library`.
    """

    name: str
    repo: Path | None
    options: OutputOptions
    stems: tuple[str, ...] | None
    settings: Mapping[str, Any]
    out: str
    device: str | None = None
    skip_existing: bool = True
    scratch: Path | None = None

    def separator(
        self, device: str | None, tell: EventCallback | None = None, **changes: Any
    ) -> Separator:
        """Load the model and return its separator, with `changes` to the settings.

        Raises:
            ModelNotFoundError, DownloadError, CheckpointError: the model cannot be loaded.
            ConfigError, SeparationError: the model cannot run with these settings.
        """
        stems = self.stems or self.options.only_stem
        model = load_model(self.name, repo=self.repo, device=device, stems=stems, on_progress=tell)
        needed = self.stems or self.options.needed_stems(model.sources)
        return Separator(model, stems=needed, **{**self.settings, **changes})

    def library(self) -> Library:
        """Return the library that receives the stems."""
        return Library(
            self.out, self.options, skip_existing=self.skip_existing, scratch=self.scratch
        )

    def check(self, tell: EventCallback | None = None) -> None:
        """Raise the errors that every worker would raise."""
        self.separator("cpu", tell, precision="fp32")


@dataclass(frozen=True)
class Workers:
    """The number of workers, and each one's share of the cluster."""

    count: int
    cpus: float
    gpus: float


def require() -> None:
    """Raise ClusterError unless Ray, pyarrow and fsspec are installed."""
    missing = [name for name in ("ray", "pyarrow", "fsspec") if find_spec(name) is None]
    if missing:
        raise ClusterError(
            f"no {' and '.join(missing)} here; install it with: pip install 'htdemucs[batch]'"
        )


def place_all(
    tracks: Sequence[Track | HTDemucsError], plan: Plan
) -> tuple[dict[int, Track], dict[int, Outcome]]:
    """Find a place for every track; return placed tracks and failures, by position in the list.

    Raises:
        HTDemucsError: the only item of `tracks` is an error, or `plan` needs tags of remote files.
    """
    library = plan.library()
    placed: dict[int, Track] = {}
    failures: dict[int, Outcome] = {}
    tags = set(template_fields(plan.options.filename)) & set(TAGS)
    for position, track in enumerate(tracks):
        if tags and isinstance(track, Track) and not track.is_local:
            raise SeparationError(f"the tags of {track.location} are not known here; use {{track}}")
        try:
            if isinstance(track, HTDemucsError):
                raise track
            placed[position] = library.place(track)
        except HTDemucsError as error:
            location = None if isinstance(track, HTDemucsError) else track.location
            failures[position] = failed(location, error)
    if not placed and len(tracks) == 1 and isinstance(tracks[0], HTDemucsError):
        raise tracks[0]
    return placed, failures


@contextmanager
def session(address: str | None) -> Iterator[None]:
    """Connect to Ray's cluster at `address` or, without one, start a cluster of this machine alone.

    Raises:
        ClusterError: the cluster does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray.data  # binds `ray` too

    if ray.is_initialized():
        yield
        return
    settings: dict[str, Any] = {"address": address}
    if address is None:
        settings = {"address": "local", "include_dashboard": False}
        settings["object_store_memory"] = OBJECT_STORE
    try:
        with _mute():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        where = f"of {address}" if address else "here"
        raise ClusterError(f"Ray's cluster {where} does not answer ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def share_out(workers: int | None, device: str | None, gpu_sharing: int = 1) -> Workers:
    """Return each worker's share of the cluster.

    Args:
        workers: the number of workers; by default one for each GPU or, without GPUs, for each
            machine.
        device: "cpu" uses no GPUs.
        gpu_sharing: workers on each GPU.

    Raises:
        ClusterError: the cluster has no device for workers.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if device != "cpu" and (gpus or (device or "").startswith("cuda")):
        if not (gpus or workers):
            raise ClusterError("the cluster has no GPU; add one, or set the number of workers")
        return Workers(workers or gpus * gpu_sharing, 1, 1 / gpu_sharing)
    cpus = [machine["CPU"] for machine in machines if machine.get("CPU")]
    if not cpus:
        raise ClusterError("the cluster has no CPU for workers; add machines to it")
    count = workers or len(cpus)
    share = min(cpus) / math.ceil(count / len(cpus))
    return Workers(count, math.floor(share) if share >= 1 else share, 0)


def separate_all(placed: Mapping[int, Track], plan: Plan, workers: Workers) -> Generator[Row]:
    """Separate placed tracks on the cluster; yield a row for each track as soon as it ends.

    If a worker dies, another one gets its track. A track fails after `MAX_DEATHS` dead workers.

    Raises:
        ClusterError: the workers cannot start, or Ray fails.
    """
    import pyarrow
    import ray
    from ray.data import ActorPoolStrategy, from_arrow

    _quiet()
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ledger)
    ledger = actor.remote()
    at_once = max(1, min(MOST_AT_ONCE, len(placed) // (SHARES * workers.count)))
    packed = [json.dumps([position, asdict(track)]) for position, track in placed.items()]
    pieces = [packed[i : i + at_once] for i in range(0, len(packed), at_once)]
    data: Any = from_arrow([pyarrow.table({"track": piece}) for piece in pieces])
    data = data.map(
        _Worker,
        fn_constructor_args=(plan, _threads(workers), ledger, str(Path.cwd())),
        compute=ActorPoolStrategy(size=workers.count, max_tasks_in_flight_per_actor=1),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    try:
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            rows = [_unpacked(text) for text in batch["row"].to_pylist()]
            yield from rows
            ledger.forget.remote([row.position for row in rows])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClusterError(f"Ray failed: {reason}; run the same command again") from error


class _Ledger:
    """An actor that outlives the workers and remembers which tracks they started and ended."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._ended: dict[int, str] = {}

    def begin(self, position: int) -> tuple[int, str | None]:
        """Return how often workers started this track before, and its row if one ended it."""
        before = self._begun.get(position, 0)
        if position not in self._ended:
            self._begun[position] = before + 1
        return before, self._ended.get(position)

    def end(self, position: int, row: str) -> None:
        self._ended[position] = row

    def forget(self, positions: list[int]) -> None:
        for position in positions:
            self._begun.pop(position, None)
            self._ended.pop(position, None)


class _Worker:
    """An actor: one model on one device."""

    def __init__(self, plan: Plan, threads: int | None, ledger: Any, folder: str) -> None:
        with suppress(OSError):  # relative paths mean what they meant to the user
            os.chdir(folder)
        self._ledger = ledger
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._problem: str | None = None
        if threads:
            torch.set_num_threads(threads)
        try:
            self._separator, self._library = plan.separator(plan.device), plan.library()
            keep_freed_memory()
        except HTDemucsError as error:
            self._problem = f"{socket.gethostname()} cannot separate: {error}"

    def __call__(self, packed: dict[str, Any]) -> dict[str, Any]:
        """Separate a track, unless another worker did and died before it could report."""
        import ray

        if self._problem is not None:
            return {"row": json.dumps({"problem": self._problem})}
        position, fields = json.loads(packed["track"])
        deaths, row = ray.get(self._ledger.begin.remote(position))
        if row is None:
            stored = fields.pop("stored")
            track = Track(**fields, stored=Stored(**stored) if stored else None)
            row = json.dumps(asdict(self._row(position, track, deaths)))
            ray.get(self._ledger.end.remote(position, row))
        return {"row": row}

    def _row(self, position: int, track: Track, deaths: int) -> Row:
        if deaths < MAX_DEATHS:
            outcome = self._library.separate(track, self._separator)
        else:
            reason = f"{track.location}: its worker died {deaths} times, perhaps for lack of memory"
            outcome = failed(track.location, ClusterError(reason))
        return Row(position, outcome, self._name, str(self._separator.device), deaths)


def _threads(workers: Workers) -> int | None:
    """Return a worker's share of the threads that `htdemucs separate` uses; None on a GPU.

    Ray counts logical processors, but torch uses a thread for each core.
    """
    if workers.gpus:
        return None
    threads_per_processor = torch.get_num_threads() / (os.cpu_count() or 1)
    return max(1, round(workers.cpus * min(1.0, threads_per_processor)))


def _unpacked(text: str) -> Row:
    row = json.loads(text)
    if "problem" in row:
        raise ClusterError(row["problem"])
    return Row(**{**row, "outcome": Outcome(**row["outcome"])})


@contextmanager
def _mute() -> Iterator[None]:
    """Drop the lines that Ray's C++ code writes to standard error in spite of its log level."""
    sys.stderr.flush()
    original = os.dup(STANDARD_ERROR)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(original, STANDARD_ERROR)
        os.close(original)


def _quiet() -> None:
    """Let Ray Data write to its log files only."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)
