"""The errors that this package raises. A message is one line: what is wrong, and what to do.

Only if a model must be fetched by hand, two indented lines follow: from where, and to where.
"""

# Codes of errors after which the server tries again.
DISK_FULL = "disk-full"
BUSY = "busy"


class HTDemucsError(Exception):
    """Base of all errors of this package: catch it to catch them all.

    Attributes:
        status: HTTP status of the server's response.
        code: short name by which clients of the server recognise the error; None if it has none.
        track: what was given as a track, if the error is about that; else empty.
    """

    status: int = 400
    code: str | None = None
    track: str = ""


class ConfigError(HTDemucsError):
    """A configuration is impossible, or this machine cannot satisfy it."""


class CheckpointError(HTDemucsError):
    """A checkpoint is damaged or unsafe, is of another network, or cannot be written."""

    code = "no-model"


class ModelNotFoundError(HTDemucsError):
    """No model has this name or path."""

    code = "no-model"


class DownloadError(HTDemucsError):
    """Weights could not be downloaded, or arrived damaged."""

    code = "no-model"


class FileMissingError(DownloadError):
    """The hub does not have a file, or does not show it to this user."""


class UploadError(HTDemucsError):
    """A model could not be uploaded."""


class AudioError(HTDemucsError):
    """An audio file cannot be read or written."""

    code: str | None = "no-audio"


class TrackBusyError(AudioError):
    """Another process is separating the same track."""

    code = BUSY


class SeparationError(HTDemucsError):
    """Options or waveforms are impossible for the separation engine."""


class SegmentTooLongError(SeparationError):
    """A segment is longer than the model's, or a track is longer than the segment."""


class TrackTooLongError(SeparationError):
    """A track is longer than the server accepts."""

    code = "too-long"


class EvaluationError(HTDemucsError):
    """Tracks, stems or estimates cannot be scored."""


class ExportError(HTDemucsError):
    """A model cannot be written for another runtime."""


class TrainingError(HTDemucsError):
    """A training run cannot start or continue."""


class StorageError(HTDemucsError):
    """A list, bucket or folder cannot be read or written."""


class ServerError(HTDemucsError):
    """The server cannot start, or cannot do what a request asks for."""


class NotFoundError(ServerError):
    """A request names something that does not exist."""

    status, code = 404, "not-found"


class BadRequestError(ServerError):
    """A request is malformed or asks for something impossible."""


class InvalidValueError(BadRequestError):
    """A parameter or a field of a request has an impossible value."""

    status = 422


class UnknownModelError(InvalidValueError):
    """A request names a model that the server does not have."""

    code = "no-model"


class UnsupportedError(BadRequestError):
    """A request's body has a type or an encoding that the server does not support."""

    status = 415


class TooLargeError(ServerError):
    """A request's body is larger than the server accepts."""

    status, code = 413, "too-large"


class DiskFullError(TooLargeError):
    """The server's disk has no space for a request's body."""

    code = DISK_FULL


class TooManyError(ServerError):
    """The server has reached a limit on jobs or streams."""

    status, code = 429, "too-many"


class ConflictError(ServerError):
    """A track's state does not allow what a request asks for."""

    status, code = 409, "conflict"


class ClusterError(HTDemucsError):
    """Ray is not installed, does not answer, or failed."""


def reason(error: BaseException) -> str:
    """Return what went wrong in one line, without the number and the paths in the error's text.

    SQLAlchemy's errors hold the one of the database's driver.
    """
    error = getattr(error, "orig", None) or error
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, PyTorch, oneDNN or the system reports a lack of memory."""
    texts = (
        "out of memory",
        "allocate memory",
        "not enough memory",
        "could not create a primitive",
        "failed to map segment",
    )
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
