"""The first pass over a track: decoding it into a cache, and measuring it.

If the process is killed or interrupted later, the next one uses the cache and the measurement.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from htdemucs.audio import AudioFile, SampleCache
from htdemucs.audio.decode_report import DecodeReport
from htdemucs.events import EventCallback, Reading
from htdemucs.fsutil import atomic_write, delete_unused
from htdemucs.separation import Normalization, measure

READING_INTERVAL = 0.5  # seconds between reports


class ResumeKey(NamedTuple):
    """Where the unfinished work on a track is cached, so that its separation can be resumed.

    Attributes:
        cache_file: the cache of finished samples. It is locked against other processes during the
            work. Other files in its folder hold the track's decoded samples and measurement.
        key: identifies everything that the samples depend on. A cache with another key is dropped.
    """

    cache_file: Path
    key: str

    @property
    def mixture_file(self) -> Path:
        """The cache of the track's decoded samples."""
        return self.cache_file.with_suffix(".mixture")

    @property
    def measurement_file(self) -> Path:
        """The measurement of the track, in JSON; exists if all samples are in `mixture_file`."""
        return self.cache_file.with_suffix(".measured")

    def delete_unused(self) -> None:
        """Delete all files, except those that another process is using."""
        self.measurement_file.unlink(missing_ok=True)
        delete_unused(self.mixture_file)
        delete_unused(self.cache_file)


@contextmanager
def first_pass(
    source: AudioFile, folder: Path, resume: ResumeKey | None, on_event: EventCallback, name: str
) -> Iterator[tuple[SampleCache, Normalization]]:
    """Decode a track, unless an earlier process has; yield its samples and its normalisation.

    The samples are those of each block in turn, one channel after another. They are deleted when
    the context ends, except by an interruption.

    Args:
        source: the track. Its length and warnings are those of this pass, or of the earlier one.
        folder: for a temporary cache, if `resume` is None.
        resume: where an earlier process has left its work.
        on_event: called with `Reading` events.
        name: of the track in events.
    """
    if resume is None:
        with SampleCache(folder, channels=1) as mixture:
            yield mixture, measure(_decode(source, mixture, on_event, name))
        return
    record, keep = resume.measurement_file, False
    with SampleCache.open(resume.mixture_file, 1, resume.key) as mixture:
        try:
            normalization = _restore(source, mixture, resume)
            if normalization is None:
                record.unlink(missing_ok=True)
                mixture.clear()
                normalization = measure(_decode(source, mixture, on_event, name))
                values = {"key": resume.key, "samples": mixture.length}
                values |= {"report": asdict(source.report), "normalization": asdict(normalization)}
                with suppress(OSError), atomic_write(record) as partial:
                    partial.write_text(json.dumps(values), encoding="utf-8")
            yield mixture, normalization
        except BaseException as error:  # after an interruption the work will be resumed
            keep = not isinstance(error, Exception) and record.exists()
            raise
        finally:
            if not keep:
                with suppress(OSError):
                    record.unlink(missing_ok=True)
                mixture.clear()


def _restore(source: AudioFile, mixture: SampleCache, resume: ResumeKey) -> Normalization | None:
    """Return the normalisation that an earlier process measured, and set the track's report."""
    try:
        values = json.loads(resume.measurement_file.read_text(encoding="utf-8"))
        if (values["key"], values["samples"]) != (resume.key, mixture.length):
            return None
        report = DecodeReport(**values["report"])
        normalization = Normalization(**values["normalization"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    source.report = report
    return normalization


def _decode(
    source: AudioFile, mixture: SampleCache, on_event: EventCallback, name: str
) -> Iterator[Tensor]:
    """Yield a track's blocks and cache them; report now and then how much was read.

    All blocks but the last have a length of one second.
    """
    done, reported = 0.0, time.monotonic()
    on_event(Reading(name, 0.0, source.duration))
    for block in source:
        mixture.write(block.reshape(1, -1))
        yield block
        done += block.shape[-1] / source.sample_rate
        if time.monotonic() - reported >= READING_INTERVAL:
            total = source.duration and max(source.duration, done)
            on_event(Reading(name, done, total))
            reported = time.monotonic()
