"""Every failure this package expects. Each message is one line that says what to do."""


class HTDemucsError(Exception):
    """Base of every expected failure: catch this one to catch them all."""


class ConfigError(HTDemucsError):
    """A model configuration that is impossible, or that this package refuses by name."""


class CheckpointError(HTDemucsError):
    """A checkpoint that is damaged, unsafe, or not of this network."""


class ModelNotFoundError(HTDemucsError):
    """A model name or path that leads nowhere."""


class DownloadError(HTDemucsError):
    """Weights that could not be fetched, or arrived damaged."""


class AudioError(HTDemucsError):
    """An audio file that cannot be read or written."""


class SeparationError(HTDemucsError):
    """Options or waveforms that the separation engine cannot work with."""


class SegmentTooLongError(SeparationError):
    """A segment longer than the one the model was trained for."""


class EvaluationError(HTDemucsError):
    """Tracks, stems or estimates that cannot be scored."""


class ExportError(HTDemucsError):
    """A model that cannot be written for another runtime."""


class TrainingError(HTDemucsError):
    """A training run that cannot go on."""


class StorageError(HTDemucsError):
    """A list, bucket or folder that cannot be read from or written to."""


class ClusterError(HTDemucsError):
    """Ray is not there, or could not do its work."""
