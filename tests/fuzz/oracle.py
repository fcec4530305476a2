"""Separates files in a process of its own, and checks what must hold for any file."""

import multiprocessing
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIMIT = 60.0  # seconds a file may take
MEMORY = 3 << 30  # bytes of address space that the ready process may add
GROWTH = 400 << 20  # bytes of memory that one file may add


class Judge:
    """Tries files in another process, one by one, and starts a new process if a file ends it.

    The process runs `code` first: tests of the oracle let it misbehave.
    """

    def __init__(self, code: str = "") -> None:
        self._code = code

    def __enter__(self) -> "Judge":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def __call__(self, path: Path) -> tuple[str, str]:
        """Return ("separated", message), ("refused", message) or ("VIOLATION", reason)."""
        self._pipe.send(path)
        if not self._pipe.poll(LIMIT):
            self._restart()
            return "VIOLATION", f"it took more than {LIMIT:.0f} s"
        try:
            answer: tuple[str, str] = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._restart()
            return "VIOLATION", f"the process ended with {code}"
        return answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_try_files, args=(theirs, self._code), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # ready

    def _restart(self) -> None:
        self._process.kill()
        self._process.join()
        self._start()


def _try_files(pipe: Connection, code: str) -> None:
    import torch

    from htdemucs import HTDemucs, HTDemucsConfig, OutputOptions, Separator
    from tests.helpers import TINY, awake

    exec(code, {})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    separator = Separator(awake(HTDemucs(HTDemucsConfig(**TINY))))
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, -1))
    pipe.send("ready")
    while True:
        path = pipe.recv()
        try:
            pipe.send(_judged(path, separator, OutputOptions(filename="{title}/{stem}.{ext}")))
        except BaseException as error:  # what a user would see as a traceback
            pipe.send(("VIOLATION", f"{type(error).__name__}: {error}"))


def _judged(path: Path, separator: Any, options: Any) -> tuple[str, str]:
    from htdemucs.batch import Library, Track

    before = _resident()
    with _sandbox() as folder:
        out = folder / "out"
        library = Library(out, options)
        try:
            track = library.assign_output(Track(str(path)))
        except Exception as error:
            return _refusal(error)
        result = library.separate(track, separator)
        growth = _resident() - before
        if growth > GROWTH:
            return "VIOLATION", f"it took {growth >> 20} MiB more memory"
        written = [p for p in folder.rglob("*") if p.is_file()]
        if any(not p.resolve().is_relative_to(out.resolve()) for p in written):
            return "VIOLATION", f"files outside the output folder: {written}"
        if result.status == "failed":
            remains = [p for p in written if not p.name.startswith(".")]
            if remains:
                return "VIOLATION", f"it failed but left {remains}"
            return _checked_reason(result.error or "")
        return _checked_stems({n: Path(p) for n, p in result.files.items()}, written)


def _refusal(error: Exception) -> tuple[str, str]:
    from htdemucs import HTDemucsError

    if not isinstance(error, HTDemucsError):
        return "VIOLATION", f"{type(error).__name__}: {error}"
    return _checked_reason(str(error))


def _checked_reason(reason: str) -> tuple[str, str]:
    if "unexpected" in reason:
        return "VIOLATION", reason
    if not reason or not reason.isprintable():
        return "VIOLATION", f"the message is not one printable line: {reason!r}"
    return "refused", reason


def _checked_stems(files: dict[str, Path], written: list[Path]) -> tuple[str, str]:
    import torch

    from htdemucs import AudioFile

    if len(files) != 4 or len(written) != 5:  # and the manifest
        return "VIOLATION", f"it wrote {written}"
    lengths = set()
    for path in files.values():
        blocks = list(AudioFile(path))
        lengths.add(sum(block.shape[-1] for block in blocks))
        if not all(torch.isfinite(block).all() for block in blocks):
            return "VIOLATION", f"{path.name} is not finite"
    if len(lengths) != 1:
        return "VIOLATION", f"stems of different lengths: {lengths}"
    return "separated", f"{lengths.pop()} samples"


@contextmanager
def _sandbox() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="htdemucs-fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
