"""What went wrong, as a code beside the sentence: pages say it in their own language."""

from htdemucs.errors import (
    AudioError,
    CheckpointError,
    ConflictError,
    DiskFullError,
    DownloadError,
    HTDemucsError,
    ModelNotFoundError,
    NotFoundError,
    SeparationError,
    TooLargeError,
    TooManyError,
)

WORKER_DIED = "worker-died"


class TooLongError(SeparationError):
    """A track lasts longer than the server takes."""


CODES: dict[type[HTDemucsError], str] = {
    NotFoundError: "not-found",
    ConflictError: "conflict",
    DiskFullError: "disk-full",
    TooLargeError: "too-large",
    TooManyError: "too-many",
    AudioError: "no-audio",
    TooLongError: "too-long",
    ModelNotFoundError: "no-model",
    DownloadError: "no-model",
    CheckpointError: "no-model",
}


def code_of(error: Exception | None) -> str | None:
    """Return the code of an error; None if it has none."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), None)
