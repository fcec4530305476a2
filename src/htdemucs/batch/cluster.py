"""A large run: its tracks shared out by Ray Data among workers that each keep a model."""

import json
import logging
import math
import os
import socket
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from htdemucs.batch.library import Library, Outcome, failed
from htdemucs.batch.report import Row
from htdemucs.batch.sources import Source
from htdemucs.batch.storage import Stored, is_url
from htdemucs.batch.work import Plan, Workshop
from htdemucs.errors import ClusterError, HTDemucsError, SeparationError
from htdemucs.separation.naming import TAGS, template_fields

MAX_DEATHS = 3  # of workers, until the track that they had is blamed
OBJECT_STORE = 512 << 20  # bytes; only lists and outcomes go through it
MOST_AT_ONCE = 64  # tracks handed to a worker in one piece
SHARES = 32  # pieces a worker gets at least, so that all end at about the same time
STANDARD_ERROR = 2  # the file that C writes to
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told of the run
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what stops a run is raised; the rest is in Ray's log files
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning
}


@dataclass(frozen=True)
class Task:
    """A track and the number of its place."""

    row: int
    source: Source
    number: int


@dataclass(frozen=True)
class Workers:
    """How many there are, and what each takes of the cluster."""

    count: int
    cpus: float
    gpus: float


def require() -> None:
    """Raise ClusterError unless what this needs is installed."""
    missing = [name for name in ("ray", "pyarrow", "fsspec") if find_spec(name) is None]
    if missing:
        raise ClusterError(
            f"no {' and '.join(missing)} here; install it with: pip install 'htdemucs[batch]'"
        )


def place_all(
    found: Sequence[Source | HTDemucsError], plan: Plan
) -> tuple[list[Task], list[tuple[int, Outcome]]]:
    """Give every track its place; tell of what has none.

    Raises:
        HTDemucsError: nothing has one.
    """
    library = Library(plan.name, {}, plan.options, plan.top)
    tasks: list[Task] = []
    failures: list[tuple[int, Outcome]] = []
    tags = set(template_fields(plan.options.filename)) & set(TAGS)
    for row, source in enumerate(found):
        if tags and isinstance(source, Source) and is_url(source.path):
            raise SeparationError(f"the tags of {source.path} are not known here; use {{track}}")
        try:
            if isinstance(source, HTDemucsError):
                raise source
            tasks.append(Task(row, source, library.place(source.track).number))
        except HTDemucsError as error:
            path = None if isinstance(source, HTDemucsError) else source.path
            failures.append((row, failed(path, error)))
    if not tasks and len(found) == 1 and isinstance(found[0], HTDemucsError):
        raise found[0]
    return tasks, failures


@contextmanager
def session(address: str | None) -> Iterator[None]:
    """Ray's cluster at an address or, without one, a cluster of this machine alone.

    Raises:
        ClusterError: there is no cluster.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

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
        told = " ".join(str(error).split())
        where = f"of {address}" if address else "here"
        raise ClusterError(f"Ray's cluster {where} does not answer ({told})") from error
    try:
        yield
    finally:
        ray.shutdown()


def share_out(workers: int | None, device: str | None, gpu_sharing: int = 1) -> Workers:
    """How the cluster at hand is shared among workers.

    Args:
        workers: how many; by default one a GPU or, without any, one a machine.
        device: cpu leaves GPUs alone.
        gpu_sharing: workers on each GPU.

    Raises:
        ClusterError: there is no device left for any.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if device != "cpu" and (gpus or (device or "").startswith("cuda")):
        if not (gpus or workers):
            raise ClusterError("the cluster has no GPU; say how many there will be with --workers")
        return Workers(workers or gpus * gpu_sharing, 1, 1 / gpu_sharing)
    cpus = [machine["CPU"] for machine in machines if machine.get("CPU")]
    if not cpus:
        raise ClusterError("the cluster has no CPU for workers; add machines to it")
    count = workers or len(cpus)
    share = min(cpus) / math.ceil(count / len(cpus))
    return Workers(count, math.floor(share) if share >= 1 else share, 0)


def separate_all(tasks: Sequence[Task], plan: Plan, workers: Workers) -> Generator[Row]:
    """Separate tracks on the cluster at hand; give what becomes of each as it is known.

    A track whose worker dies is given to another one, until it has cost `MAX_DEATHS` of them.

    Raises:
        ClusterError: the workers cannot start, or Ray fails.
    """
    import pyarrow
    import ray
    from ray.data import ActorPoolStrategy, from_arrow

    _quiet()
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ledger)
    ledger = actor.remote()
    at_once = max(1, min(MOST_AT_ONCE, len(tasks) // (SHARES * workers.count)))
    packed = [json.dumps(asdict(task)) for task in tasks]
    pieces = [packed[i : i + at_once] for i in range(0, len(packed), at_once)]
    data: Any = from_arrow([pyarrow.table({"task": piece}) for piece in pieces])
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
            ledger.forget.remote([row.number for row in rows])
    except ray.exceptions.RayError as error:
        told = str(error).strip().splitlines()[-1]
        raise ClusterError(f"Ray could not go on: {told}") from error


class _Ledger:
    """Who began what: an actor that outlives the workers."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._ended: dict[int, str] = {}

    def begin(self, row: int) -> tuple[int, str | None]:
        """How many began this before and did not end; what came of it, if one did."""
        before = self._begun.get(row, 0)
        if row not in self._ended:
            self._begun[row] = before + 1
        return before, self._ended.get(row)

    def end(self, row: int, outcome: str) -> None:
        self._ended[row] = outcome

    def forget(self, rows: list[int]) -> None:
        for row in rows:
            self._begun.pop(row, None)
            self._ended.pop(row, None)


class _Worker:
    """An actor: one model on one device."""

    def __init__(self, plan: Plan, threads: int | None, ledger: Any, folder: str) -> None:
        with suppress(OSError):  # relative paths mean what they meant to the user
            os.chdir(folder)
        self._ledger = ledger
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._problem: str | None = None
        try:
            self._workshop = Workshop(plan, threads)
        except HTDemucsError as error:
            self._problem = f"{socket.gethostname()} cannot separate: {error}"

    def __call__(self, packed: dict[str, Any]) -> dict[str, Any]:
        """Separate a track, unless a worker did it that died before it could tell."""
        import ray

        if self._problem is not None:
            return {"row": json.dumps({"problem": self._problem})}
        task = json.loads(packed["task"])
        deaths, row = ray.get(self._ledger.begin.remote(task["row"]))
        if row is None:
            row = json.dumps(self._row(task, deaths))
            ray.get(self._ledger.end.remote(task["row"], row))
        return {"row": row}

    def _row(self, task: dict[str, Any], deaths: int) -> dict[str, Any]:
        stored = task["source"].pop("stored")
        source = Source(**task["source"], stored=Stored(**stored) if stored else None)
        if deaths < MAX_DEATHS:
            outcome = self._workshop.separate(source, task["number"])
        else:
            told = f"{source.path}: its worker died {deaths} times, perhaps for lack of memory"
            outcome = failed(source.path, HTDemucsError(told))
        return asdict(Row(task["row"], outcome, self._name, self._workshop.device, deaths))


def _threads(workers: Workers) -> int | None:
    """A worker's share of those that `htdemucs separate` would compute with; None on a GPU.

    Ray counts what the system calls processors, torch only the cores.
    """
    if workers.gpus:
        return None
    a_processor = torch.get_num_threads() / (os.cpu_count() or 1)
    return max(1, round(workers.cpus * min(1.0, a_processor)))


def _unpacked(text: str) -> Row:
    row = json.loads(text)
    if "problem" in row:
        raise ClusterError(row["problem"])
    return Row(**{**row, "outcome": Outcome(**row["outcome"])})


@contextmanager
def _mute() -> Iterator[None]:
    """Keep from standard error what Ray's C++ writes there, that it was told to be silent."""
    sys.stderr.flush()
    kept = os.dup(STANDARD_ERROR)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)


def _quiet() -> None:
    """Leave what Ray Data has to say to its log files."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.CRITICAL)
