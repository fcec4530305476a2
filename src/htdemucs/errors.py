"""The errors that this package raises. A message is one line: what is wrong, and what to do."""


class HTDemucsError(Exception):
    """Base of all errors of this package: catch it to catch them all."""


class ConfigError(HTDemucsError):
    """A configuration is impossible, or this machine cannot satisfy it."""


class CheckpointError(HTDemucsError):
    """A checkpoint is damaged or unsafe, is of another network, or cannot be written."""


class ModelNotFoundError(HTDemucsError):
    """No model has this name or path."""


class DownloadError(HTDemucsError):
    """Weights could not be downloaded, or arrived damaged."""


class UploadError(HTDemucsError):
    """A model could not be uploaded."""


class AudioError(HTDemucsError):
    """An audio file cannot be read or written."""


class SeparationError(HTDemucsError):
    """Options or waveforms are impossible for the separation engine."""


class SegmentTooLongError(SeparationError):
    """A segment is longer than the model's, or a track is longer than the segment."""


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
    """A request names what is not there."""


class BadRequestError(ServerError):
    """A request makes no sense."""


class UnsupportedError(BadRequestError):
    """A request's body has a type or an encoding that the server does not support."""


class TooLargeError(ServerError):
    """What a request brings is more than the server takes."""


class DiskFullError(TooLargeError):
    """What a request brings has no room on the disk."""


class TooManyError(ServerError):
    """There are more requests of a kind than the server takes."""


class ConflictError(ServerError):
    """A request does not fit the state of what it names."""


class ClusterError(HTDemucsError):
    """Ray is not installed, does not answer, or failed."""
