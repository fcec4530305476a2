"""`htdemucs batch` on Ray: many tracks, shared among workers that each have a model.

`separate_on_cluster` distributes tracks with Ray Data; `ResultTable` collects their results in a
Parquet file.
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
from typing import Any, NamedTuple, get_type_hints

import torch

from htdemucs.audio.ffmpeg import audio_errors
from htdemucs.batch import remote
from htdemucs.batch.inputs import Track
from htdemucs.batch.plan import Plan
from htdemucs.batch.remote import RemoteFile
from htdemucs.errors import ClusterError, HTDemucsError, SeparationError
from htdemucs.fast import keep_freed_memory
from htdemucs.fsutil import atomic_write
from htdemucs.results import Status, TrackResult
from htdemucs.stems.paths import TAGS, template_fields

MAX_CRASHES = 3  # workers that may die on a track before it fails
OBJECT_STORE = 512 << 20  # bytes; it holds only lists and results
MAX_BLOCK = 64  # tracks that a worker receives together
MIN_BLOCKS = 32  # blocks for each worker, so that all workers end at about the same time
PACK_ROWS = 10_000  # rows of the table that are Python objects; more are packed into Arrow tables
STANDARD_ERROR = 2  # file descriptor
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # send no statistics
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # fatal errors are raised; all others are in Ray's log files
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # avoids a warning
}


@dataclass(frozen=True)
class Workers:
    """The number of workers, and each one's share of the cluster."""

    count: int
    cpus: float
    gpus: float


class WorkerInfo(NamedTuple):
    """The worker that a result comes from.

    Attributes:
        worker: its host and process; None if the track never reached a worker.
        device: its device.
        crash_count: number of workers that died on the track.
    """

    worker: str | None = None
    device: str | None = None
    crash_count: int = 0


def check_installed() -> None:
    """Raise ClusterError unless Ray, pyarrow and fsspec are installed."""
    missing = [name for name in ("ray", "pyarrow", "fsspec") if find_spec(name) is None]
    if missing:
        raise ClusterError(
            f"{' and '.join(missing)} not found; in the repository, run: pip install '.[batch]'"
        )


def assign_outputs(
    tracks: Sequence[Track | HTDemucsError], plan: Plan
) -> tuple[dict[int, Track], dict[int, TrackResult]]:
    """Assign output paths to all tracks; return tracks and failures by their position in the list.

    Raises:
        HTDemucsError: the only item of `tracks` is an error, or `plan` needs tags of remote files.
    """
    library = plan.library()
    assigned: dict[int, Track] = {}
    failures: dict[int, TrackResult] = {}
    tags = set(template_fields(plan.options.filename)) & set(TAGS)
    for position, track in enumerate(tracks):
        if tags and isinstance(track, Track) and not track.is_local:
            raise SeparationError(f"the tags of {track.location} are not known here; use {{track}}")
        try:
            if isinstance(track, HTDemucsError):
                raise track
            assigned[position] = library.assign_output(track)
        except HTDemucsError as error:
            location = "" if isinstance(track, HTDemucsError) else track.location
            failures[position] = TrackResult.of_error(location, error)
    if not assigned and len(tracks) == 1 and isinstance(tracks[0], HTDemucsError):
        raise tracks[0]
    return assigned, failures


@contextmanager
def session(address: str | None) -> Iterator[None]:
    """Connect to the Ray cluster at `address`; without one, start a cluster on this machine.

    Raises:
        ClusterError: the cluster does not respond.
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
        with _stderr_to_null():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        where = f"at {address}" if address else "on this machine"
        raise ClusterError(f"the Ray cluster {where} does not respond ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()


def divide_cluster(workers: int | None, device: str | None, gpu_sharing: int = 1) -> Workers:
    """Return the number of workers, and each one's share of the cluster.

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


def separate_on_cluster(
    tracks: Mapping[int, Track], plan: Plan, workers: Workers
) -> Generator[tuple[int, TrackResult, WorkerInfo]]:
    """Separate tracks with assigned outputs; yield each one's position and result when it ends.

    If a worker dies, another one gets its track. A track fails after `MAX_CRASHES` dead workers.

    Raises:
        ClusterError: the workers cannot start, or Ray fails.
    """
    import pyarrow
    import ray
    from ray.data import ActorPoolStrategy, from_arrow

    _quiet_ray_data()
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ledger)
    ledger = actor.remote()
    block_size = max(1, min(MAX_BLOCK, len(tracks) // (MIN_BLOCKS * workers.count)))
    packed = [json.dumps([position, asdict(track)]) for position, track in tracks.items()]
    blocks = [packed[i : i + block_size] for i in range(0, len(packed), block_size)]
    data: Any = from_arrow([pyarrow.table({"track": block}) for block in blocks])
    data = data.map(
        _Worker,
        fn_constructor_args=(plan, _threads(workers), ledger, str(Path.cwd())),
        compute=ActorPoolStrategy(size=workers.count, max_tasks_in_flight_per_actor=1),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    try:
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            reports = [json.loads(text) for text in batch["report"].to_pylist()]
            for report in reports:
                if "error" in report:
                    raise ClusterError(report["error"])
                result = TrackResult(**report["result"])
                yield report["position"], result, WorkerInfo(*report["worker_info"])
            ledger.forget.remote([report["position"] for report in reports])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClusterError(f"Ray failed: {reason}; run the same command again") from error


class _Ledger:
    """An actor that outlives the workers and remembers which tracks they started and ended."""

    def __init__(self) -> None:
        self._starts: dict[int, int] = {}
        self._reports: dict[int, str] = {}

    def begin(self, position: int) -> tuple[int, str | None]:
        """Return how often workers started this track before, and its report if one ended it."""
        before = self._starts.get(position, 0)
        if position not in self._reports:
            self._starts[position] = before + 1
        return before, self._reports.get(position)

    def end(self, position: int, report: str) -> None:
        self._reports[position] = report

    def forget(self, positions: list[int]) -> None:
        for position in positions:
            self._starts.pop(position, None)
            self._reports.pop(position, None)


class _Worker:
    """An actor: one model on one device."""

    def __init__(self, plan: Plan, threads: int | None, ledger: Any, folder: str) -> None:
        with suppress(OSError):  # relative paths are relative to the user's folder
            os.chdir(folder)
        self._ledger = ledger
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._error: str | None = None
        if threads:
            torch.set_num_threads(threads)
        try:
            self._separator, self._library = plan.separator(plan.device), plan.library()
            keep_freed_memory()
        except HTDemucsError as error:
            self._error = f"{socket.gethostname()} cannot separate: {error}"

    def __call__(self, packed: dict[str, Any]) -> dict[str, Any]:
        """Separate a track, unless another worker did and died before it could report."""
        import ray

        if self._error is not None:
            return {"report": json.dumps({"error": self._error})}
        position, fields = json.loads(packed["track"])
        crash_count, report = ray.get(self._ledger.begin.remote(position))
        if report is None:
            remote_file = fields.pop("remote_file")
            track = Track(**fields, remote_file=RemoteFile(**remote_file) if remote_file else None)
            worker_info = WorkerInfo(self._name, str(self._separator.device), crash_count)
            result = self._separate(track, crash_count).to_dict()
            report = json.dumps(
                {"position": position, "result": result, "worker_info": worker_info}
            )
            ray.get(self._ledger.end.remote(position, report))
        return {"report": report}

    def _separate(self, track: Track, crash_count: int) -> TrackResult:
        if crash_count < MAX_CRASHES:
            return self._library.separate(track, self._separator, wait=True)
        error = f"{track.location}: its worker died {crash_count} times, perhaps for lack of memory"
        return TrackResult(track.location, "failed", error)


def _threads(workers: Workers) -> int | None:
    """Return a worker's share of the threads that `htdemucs separate` uses; None on a GPU.

    Ray counts logical processors, but torch uses one thread for each core.
    """
    if workers.gpus:
        return None
    threads_per_processor = torch.get_num_threads() / (os.cpu_count() or 1)
    return max(1, round(workers.cpus * min(1.0, threads_per_processor)))


class ResultTable:
    """Collects results in any order, and writes them to a Parquet file in the order of the list."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # by status
        self.duration = 0.0  # seconds of audio that were separated
        self._rows: list[dict[str, Any]] = []
        self._tables: list[Any] = []

    def add(
        self, position: int, result: TrackResult, worker_info: WorkerInfo | None = None
    ) -> None:
        """Add the result of the track at this position in the list, from 0."""
        self.counts[result.status] += 1
        if result.status == "separated":
            self.duration += result.duration or 0.0
        worker = (worker_info or WorkerInfo())._asdict()
        row = {"position": position, **result.to_dict(), **worker}
        self._rows.append({name: _parquet_value(value) for name, value in row.items()})
        if len(self._rows) >= PACK_ROWS:
            self._pack()

    def write(self, location: str) -> None:
        """Write the table to a path or URL; the file appears only when it is complete.

        Raises:
            AudioError, StorageError: the file cannot be written.
        """
        from pyarrow import concat_tables, parquet

        self._pack()
        table = concat_tables(self._tables).sort_by("position")

        def save(path: Path) -> None:
            parquet.write_table(table, path, compression="zstd")

        if remote.is_url(location):
            with tempfile.TemporaryDirectory(prefix="htdemucs-") as scratch:
                save(Path(scratch, "results"))
                remote.upload(Path(scratch, "results"), location)
            return
        remedy = "check its folder, or choose another path for the table"
        with (
            audio_errors(Path(location), "cannot be written", remedy),
            atomic_write(Path(location)) as partial,
        ):
            save(partial)

    def _pack(self) -> None:
        from pyarrow import Table

        self._tables.append(Table.from_pylist(self._rows, schema=_schema()))
        self._rows = []


def _schema() -> Any:
    """Return the columns of the table: position, the fields of a TrackResult, and the worker."""
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    types: dict[Any, Any] = {
        str: text, Status: text, float: real, int: count, tuple[str, ...]: pa.list_(text),
        Mapping[str, str]: pa.map_(text, text), Mapping[str, float]: pa.map_(text, real),
    }  # fmt: skip
    columns = {"position": count}
    for row in (TrackResult, WorkerInfo):
        for name, hint in get_type_hints(row).items():
            columns[name] = next(
                kind for type_, kind in types.items() if hint in (type_, type_ | None)
            )
    return pa.schema(list(columns.items()))


def _parquet_value(value: Any) -> Any:
    """Return a field as Parquet can hold it. File names may contain bytes that are not UTF-8."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case list():
            return [_parquet_value(item) for item in value]
        case dict():
            return [(name, _parquet_value(item)) for name, item in value.items()]
    return value


@contextmanager
def _stderr_to_null() -> Iterator[None]:
    """Drop the lines that Ray's C++ code writes to standard error despite its log level."""
    sys.stderr.flush()
    original = os.dup(STANDARD_ERROR)
    with Path(os.devnull).open("wb") as null:
        os.dup2(null.fileno(), STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(original, STANDARD_ERROR)
        os.close(original)


def _quiet_ray_data() -> None:
    """Make Ray Data write to its log files only."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)
