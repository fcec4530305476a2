"""From an audio file to files of stems."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import AudioFile, AudioWriter, Resampler, Spool, copy_tags
from htdemucs.separation.normalization import measure
from htdemucs.separation.options import OutputOptions
from htdemucs.separation.pipeline import Worker, read_ahead

if TYPE_CHECKING:
    from htdemucs.separation.separator import Progress, Separator, Stems

HEADROOM = 1.01  # "rescale" brings a stem's peak to 1 / HEADROOM
CLAMP = 0.99  # where "clamp" cuts
WAITING = 2  # blocks between decoding, the network and encoding
BLOCK_LENGTH = 1 << 18  # samples read back from a spool at a time


def separate_file(
    separator: "Separator",
    path: Path,
    out_dir: Path,
    options: OutputOptions,
    on_progress: "Callable[[Progress], None] | None" = None,
) -> dict[str, Path]:
    """Separate the file at `path`; give the path of each stem written."""
    options.needed_stems(separator.stems)  # refuses a stem that is not there
    audio = AudioFile(path, sample_rate=separator.sample_rate, channels=separator.audio_channels)
    normalization = measure(audio)
    source_length = audio.source_length
    names = _output_names(separator.stems, options)
    targets = {name: options.path(path, name, out_dir) for name in names}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(StemFile(target, name, audio, options))
            for name, target in targets.items()
        }
        workers = {name: stack.enter_context(Worker(WAITING)) for name in files}
        mixture = _Tap(stack.enter_context(closing(read_ahead(audio, WAITING))))
        done = 0
        for separated in separator.stream(mixture, normalization):
            stems = {name: stem.cpu() for name, stem in separated.items()}
            length = next(iter(stems.values())).shape[-1]
            for name, block in _outputs(stems, mixture.take(length), options).items():
                workers[name].submit(files[name].write, block)
            done += length
            if on_progress:
                on_progress(separator.progress(done, normalization.length))
        for name, file in files.items():
            workers[name].submit(file.close, source_length)
        for worker in workers.values():
            worker.wait()
    return targets


class StemFile:
    """One stem on its way to its file: back to the track's sample rate, levelled, encoded.

    Whether a stem must be rescaled is known only at its end. Until then it is encoded as it is,
    and kept aside on disk as well, to be encoded once more in the rare case. As a context manager
    it leaves either the finished file or nothing.
    """

    def __init__(self, path: Path, name: str, source: AudioFile, options: OutputOptions) -> None:
        self._path, self._name, self._source, self._options = path, name, source, options
        self._resampler = Resampler(source.sample_rate, source.source_sample_rate, source.channels)
        self._length = 0  # samples so far, at the track's own rate
        self._writer = self._open()
        self._spool = Spool(path.parent) if options.clip_mode == "rescale" else None

    def __enter__(self) -> "StemFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.abort()
        if self._spool:
            self._spool.close()

    def write(self, block: Tensor) -> None:
        """Append (C, L) at the model's sample rate."""
        self._append(self._resampler.push(block))

    def close(self, length: int) -> None:
        """Finish the file with exactly `length` samples at the track's own rate."""
        tail = self._resampler.flush()
        self._append(F.pad(tail, (0, length - self._length - tail.shape[-1])))
        if self._spool and self._spool.peak * HEADROOM > 1:
            self._writer.abort()
            self._writer = self._open()
            for block in self._spool.blocks(BLOCK_LENGTH):
                self._writer.write(block / (HEADROOM * self._spool.peak))
        self._writer.close()

    def _append(self, block: Tensor) -> None:
        self._length += block.shape[-1]
        if self._options.clip_mode == "clamp":
            block = block.clamp(-CLAMP, CLAMP)
        if self._spool:
            self._spool.write(block)
        self._writer.write(block)

    def _open(self) -> AudioWriter:
        source, options = self._source, self._options
        return AudioWriter(
            self._path,
            source.source_sample_rate,
            source.channels,
            options.encoding,
            finish=self._copy_tags if options.copy_tags else None,
        )

    def _copy_tags(self, encoded: Path) -> None:
        target_format = self._options.encoding.format
        copy_tags(self._source.path, encoded, format=target_format, title_suffix=self._name)


class _Tap:
    """Blocks that can be iterated like the track's, and taken again in other lengths."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self._blocks = blocks
        self._passed: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        for block in self._blocks:
            self._passed.append(block)
            yield block

    def take(self, count: int) -> Tensor:
        """(C, count), the next samples of what has passed."""
        whole = torch.cat(self._passed, dim=-1)
        self._passed = [whole[..., count:].clone()]
        return whole[..., :count]


def _output_names(stems: tuple[str, ...], options: OutputOptions) -> tuple[str, ...]:
    if options.two_stems is None:
        return stems
    rest = {"add": "no_", "minus": "minus_"}.get(options.other_method)
    return (options.two_stems, *([rest + options.two_stems] if rest else []))


def _outputs(stems: "Stems", mixture: Tensor, options: OutputOptions) -> "Stems":
    """The blocks to write, of the blocks separated."""
    wanted = options.two_stems
    if wanted is None:
        return stems
    outputs = {wanted: stems[wanted]}
    if options.other_method == "add":
        others = [stem for name, stem in stems.items() if name != wanted]
        outputs["no_" + wanted] = torch.stack(others).sum(0)
    elif options.other_method == "minus":
        outputs["minus_" + wanted] = mixture - stems[wanted]
    return outputs
