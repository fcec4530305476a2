"""The engine: waveform blocks in, stem blocks out, in memory that does not grow with the track."""

import copy
import hashlib
import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from htdemucs.audio import Resampler, pad_or_trim
from htdemucs.devices import check_torch_defaults, choose_device
from htdemucs.environment import CheckpointFiles
from htdemucs.errors import ConfigError, SegmentTooLongError, SeparationError
from htdemucs.model import Bag, Model
from htdemucs.model.architectures import describe_module
from htdemucs.model.bag import as_bag, networks, segment_samples
from htdemucs.separation.chunking import GridOptions, Segment, ShiftPass, middle, segments_of
from htdemucs.separation.normalization import Normalization, Running, measure
from htdemucs.separation.runner import Pending, Runner
from htdemucs.settings import EngineSettings, whole_number
from htdemucs.weights import load_model
from htdemucs.weights.load import is_unchanged

MAX_SHIFT = 0.5  # seconds; no random lead-in is longer
FORKED = (
    "a separator does not work in a forked process, whose parent has its threads; "
    'start processes by multiprocessing\'s "spawn" or "forkserver"'
)
Stems = dict[str, Tensor]
Waveform = TypeVar("Waveform", Tensor, NDArray[Any])


class OutputCache(Protocol):
    """The network's outputs for the segments of one track, by the segments' starts in samples."""

    def get(self, start: int) -> Tensor | None:
        """Return the output (S, C, L) for the segment that starts there; None if not cached."""

    def put(self, start: int, output: Tensor) -> None:
        """Store the output for a segment."""


@dataclass(frozen=True)
class Batch:
    """Segments that are separated together.

    Attributes:
        segments: in the order of the track.
        pending: the network's outputs, or a tensor (B, S, C, W) that is known already.
        cache: stores the outputs.
    """

    segments: Sequence[Segment]
    pending: Pending | Tensor
    cache: OutputCache | None = None

    def outputs(self) -> Tensor:
        """() -> (B, S, C, W); wait for the network."""
        if isinstance(self.pending, Tensor):
            return self.pending
        outputs = self.pending.result()
        if self.cache is not None:
            for segment, output in zip(self.segments, outputs, strict=True):
                self.cache.put(segment.start, output)
        return outputs

    def add_to(self, passes: Sequence[ShiftPass]) -> None:
        """Add each segment's output to the pass that it is from."""
        for segment, output in zip(self.segments, self.outputs(), strict=True):
            passes[segment.shift].add(segment, output)


class Separator:
    """Separates waveforms with one model.

    Several threads may use one separator; they take turns. Pickle sends one to another process.

    Args:
        model: a network or a bag, or any name or path that `load_model` takes. A network or bag is
            copied: it is not changed, and later changes to it have no effect here.
        settings: an `EngineSettings`; by default one with its defaults.
        stems: only these sources, in this order; members of a bag they do not need are not run.
        device: the device to run on. By default the model's own device or, if `model` is a name or
            path, a GPU if there is one, else the CPU.
        **changes: replace fields of the settings, as in `Separator("mini", shifts=0)`.

    Attributes:
        precision: of the network's matrix products: fp32, bf16 or fp16. If the device lacks the
            memory and the CPU takes over, the CPU may use another one, with a warning.

    Raises:
        SeparationError: a setting is out of range, a stem is unknown, or `model` is not a model.
        ModelNotFoundError, DownloadError, CheckpointError: the named model cannot be loaded.
        ConfigError: this machine lacks the device, the device lacks the precision, or torch's
            default dtype or device is not float32 or the CPU.
        SegmentTooLongError: the segment is longer than the model's own.
    """

    def __init__(
        self,
        model: Model | str | Path,
        settings: EngineSettings | None = None,
        *,
        stems: str | Sequence[str] | None = None,
        device: str | torch.device | None = None,
        **changes: Any,
    ) -> None:
        check_torch_defaults()
        settings = replace(settings or EngineSettings(), **changes)
        self._settings, self._process = settings, _main_process()
        self.shifts, self.seed = settings.shifts, int(settings.seed)
        self.split, self.compiled = settings.split, settings.compiled
        if isinstance(stems, str):
            stems = (stems,)
        if isinstance(model, str | Path):
            model = load_model(model, device=device, stems=stems)
        self._model = _private_copy(model, stems, device)
        self.device = next(self._model.parameters()).device
        self.sample_rate = self._model.sample_rate
        self.audio_channels = self._model.audio_channels
        self.sources = networks(self._model)[0].sources
        self.stems = self._model.sources
        self.segment_length = segment_samples(self._model, settings.segment)
        self.stride = max(1, int((1 - settings.overlap) * self.segment_length))
        self._runner = Runner(
            self._model,
            settings.precision,
            settings.batch_size,
            self.segment_length,
            self.compiled,
        )
        self.precision = self._runner.precision
        self._live_batch_size = settings.batch_size or 1
        for parameter in self._model.parameters():
            parameter.data = parameter.data.clone()  # until here the caller's memory

    @property
    def batch_size(self) -> int:
        """Segments in a batch."""
        return self._runner.batch_size

    @property
    def window_length(self) -> int:
        """Samples of the network's input for a segment, which lies in their middle."""
        return self._runner.windows.longest(self.segment_length)

    @cached_property
    def origin(self) -> CheckpointFiles | None:
        """The files that the networks were read from; None if one is from no file, or was changed.

        Changes are those of parameters, buffers, configuration, layers and their attributes and
        methods, and hooks; see `weights_sha256` for a bag's weights.
        """
        return self._model.origin

    @cached_property
    def model(self) -> Model:
        """The network or bag, whole, in evaluation mode: a copy that the separator does not use.

        Raises:
            CheckpointError: it must be read again, and its file is gone or has changed.
        """
        bag = copy.deepcopy(self._runner.complete_model()).to(self.device)
        return bag if isinstance(self._model, Bag) else bag.members[0]

    @cached_property
    def weights_sha256(self) -> dict[str, str]:
        """Hashes of everything in the model that stems depend on.

        Those of the files that it was read from and, for a bag, of its weights; without an `origin`
        one of all tensors, and of classes, attributes and hooks of all modules.
        """
        if self.origin is not None:
            if not isinstance(self._model, Bag) or len(self._model.members) == 1:
                return self.origin.sha256
            weights = hashlib.sha256(_bytes_of(self._model.weights)).hexdigest()
            return self.origin.sha256 | {"weights": weights}
        digest, bag = hashlib.sha256(), self._runner.complete_model()
        for name, module in bag.named_modules():
            digest.update(f"{name}: {describe_module(module)}".encode())
        for tensor in (*bag.parameters(), *bag.buffers()):
            digest.update(_bytes_of(tensor))
        return {"parameters": digest.hexdigest()}

    def _check_use(self) -> None:
        """Check that PyTorch works in this process as when the separator was made.

        Raises:
            SeparationError: it is a fork, in which PyTorch would hang.
            ConfigError: torch's defaults are others now.
        """
        check_torch_defaults()
        if os.getpid() != self._process:
            raise SeparationError(FORKED)

    def __getattr__(self, name: str) -> Any:
        # Only a separator that was unpickled in a fork lacks attributes.
        if not name.startswith("__") and os.getpid() != self.__dict__.get("_process", os.getpid()):
            raise SeparationError(FORKED)
        raise AttributeError(f"a Separator has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (pickle.dumps(self.model), self._settings)

    def __repr__(self) -> str:
        name = f"{self.origin.name} " if self.origin else ""
        return f"<Separator {name}on {self.device}, {self.precision}: {', '.join(self.stems)}>"

    def settings(self) -> dict[str, Any]:
        """Return everything that stems depend on, except the track, the model and the device."""
        return {
            "segment_length": self.segment_length,
            "stride": self.stride,
            "shifts": self.shifts,
            "seed": self.seed,
            "stems": list(self.stems),
            "precision": self.precision,
            "compiled": self.compiled,
            "split": self.split,
        }

    @torch.no_grad()
    def separate(self, waveform: Waveform, sample_rate: float) -> dict[str, Waveform]:
        """(C, L) or (L,) at any sample rate -> the stems, each (C, L) at the same rate.

        Stems are tensors or, for a NumPy array, NumPy arrays. A mono waveform is copied to all of
        the model's channels; stems have the model's channels.

        Raises:
            SeparationError: the waveform is empty, is not finite or has too many channels, or the
                sample rate is not a whole number of Hz.
        """
        self._check_use()
        samples = self._checked_waveform(waveform)
        sample_rate = whole_number("sample_rate", sample_rate, 1)
        resample = Resampler(sample_rate, self.sample_rate, self.audio_channels)
        blocks = [resample.push(samples.cpu()), resample.flush()]
        pieces: dict[str, list[Tensor]] = {name: [] for name in self.stems}
        resample_back = {
            name: Resampler(self.sample_rate, sample_rate, self.audio_channels) for name in pieces
        }
        for stems in self.stream(blocks):
            for name, stem in stems.items():
                pieces[name].append(resample_back[name].push(stem.cpu()))
        for name in pieces:
            pieces[name].append(resample_back[name].flush())
        result = {
            name: pad_or_trim(torch.cat(stem, dim=-1), samples.shape[-1]).to(samples.device)
            for name, stem in pieces.items()
        }
        if isinstance(waveform, Tensor):
            return result
        return cast("dict[str, Waveform]", {name: stem.numpy() for name, stem in result.items()})

    @torch.no_grad()
    def stream(
        self,
        blocks: Iterable[Tensor],
        normalization: Normalization | Running | None = None,
        *,
        skip: int = 0,
        cache: OutputCache | None = None,
    ) -> Iterator[Stems]:
        """Blocks (C, L) of any lengths at the model's rate -> blocks of stems as they finish.

        The blocks of stems have other lengths than the blocks of the input; together they are
        aligned with the track to the sample.

        Args:
            blocks: the track. Without `normalization` they are read twice, first to `measure` the
                track: pass a list, an `AudioFile`, or another iterable that can be read twice. With
                a normalization they may come from a generator, and may be endless.
            normalization: of the track; "running" normalises each segment by the statistics of the
                track up to its end, in batches of one unless the settings have a batch size.
            skip: leave out this many samples at the start, and do not compute segments that only
                they need. The other samples are the same to the bit (on a GPU, as long as its
                memory suffices).
            cache: outputs of earlier runs over the same track.

        Raises:
            SeparationError: the blocks can be read only once, and there is no `normalization`.
            SegmentTooLongError: the track is longer than a segment, and `split` is False.
        """
        self._check_use()
        if normalization is None:
            if iter(blocks) is blocks:
                raise SeparationError(
                    "these blocks can be read only once; pass a list, or a normalization, "
                    'which may be "running"'
                )
            normalization = measure(blocks)
        if normalization != "running":
            self.check_length(normalization.length)
        yield from self._stream_from(blocks, normalization, skip, cache)

    def _stream_from(
        self,
        blocks: Iterable[Tensor],
        normalization: Normalization | Running,
        skip: int,
        cache: OutputCache | None,
    ) -> Iterator[Stems]:
        """Yield blocks of stems from sample `skip` on."""
        running = normalization == "running"
        # Statistics need the whole past, and other batches would change the last bits.
        can_jump = not running and self._runner.batch_size == 1
        whole_track = Normalization(0.0, 1.0) if normalization == "running" else normalization
        max_in_flight = 1 if running else self._runner.max_in_flight  # a live track must not wait
        windows = self._runner.windows
        grid = GridOptions(self.segment_length, self.stride, windows.longest, windows.margin)
        passes = [
            ShiftPass(grid, start, shift, running, skip)
            for shift, start in enumerate(self._first_starts(skip if can_jump else 0))
        ]

        in_flight: deque[Batch] = deque()
        segments = segments_of((whole_track.apply(block.cpu()) for block in blocks), passes)
        for batch in self._runner.batches(segments, self._live_batch_size if running else None):
            in_flight.append(self._submit(batch, skip, cache))
            if len(in_flight) == max_in_flight:
                in_flight.popleft().add_to(passes)
                yield from self._finished_stems(passes, whole_track)
        while in_flight:
            in_flight.popleft().add_to(passes)
            yield from self._finished_stems(passes, whole_track)
        for shift_pass in passes:
            shift_pass.finish()
        yield from self._finished_stems(passes, whole_track)

    def _finished_stems(
        self, passes: Sequence[ShiftPass], normalization: Normalization
    ) -> Iterator[Stems]:
        """Yield the mean of the passes, for the samples that all of them have finished."""
        count = min(shift_pass.finished for shift_pass in passes)
        if count:
            zero = torch.zeros((), device=self.device)
            total = sum((shift_pass.pop(count) for shift_pass in passes), zero)
            stems = normalization.undo(total / len(passes))
            yield dict(zip(self.stems, stems, strict=True))

    def _submit(self, segments: Sequence[Segment], skip: int, cache: OutputCache | None) -> Batch:
        """Return a batch with zeros if it ends before `skip`, cached outputs, or the network's."""
        windows = torch.stack([segment.window for segment in segments])
        if all(segment.end <= skip for segment in segments):
            shape = (len(windows), len(self.stems), *windows.shape[1:])
            return Batch(segments, torch.zeros(shape, device=self.device))
        if cache is not None:
            cached = [cache.get(segment.start) for segment in segments]
            known = [output for output in cached if output is not None]
            if len(known) == len(segments):
                return Batch(segments, torch.stack(known).to(self.device))
        return Batch(segments, self._runner.submit(windows, segments[0].length), cache)

    def _first_starts(self, skip: int = 0) -> list[int]:
        """Return where each pass has its first segment that ends after sample `skip`.

        A pass begins `MAX_SHIFT - offset` before the track.
        """
        longest = int(MAX_SHIFT * self.sample_rate)
        starts = [offset - longest for offset in self.shift_offsets()] or [0]
        ends = (start + self.segment_length for start in starts)
        skipped = (max(0, (skip - end) // self.stride + 1) for end in ends)
        return [start + n * self.stride for start, n in zip(starts, skipped, strict=True)]

    def shift_offsets(self) -> list[int]:
        """Return the random lead-ins in samples: the same for every track."""
        return shift_offsets(self.shifts, self.seed, self.sample_rate)

    @torch.no_grad()
    def run_network(self, window: Tensor) -> Tensor:
        """(C, window_length) -> (S, C, segment_length), without normalisation or overlap-add"""
        self._check_use()
        outputs = self._runner.submit(window[None], self.segment_length).result()
        output = outputs[0].to(window.device)
        return middle(output, self.segment_length, self.segment_length)

    def check_length(self, length: int) -> None:
        """Raise SegmentTooLongError if `length` samples must be split and `split` is False."""
        if not self.split and length > self.segment_length:
            raise SegmentTooLongError(
                f"the track lasts {length / self.sample_rate:.1f} s, longer than one segment of "
                f"{self.segment_length / self.sample_rate:.1f} s; allow splitting"
            )

    def _checked_waveform(self, samples: Tensor | NDArray[Any]) -> Tensor:
        try:
            waveform = torch.as_tensor(samples)
        except (TypeError, ValueError, RuntimeError) as error:
            name = type(samples).__name__
            raise SeparationError(f"a waveform must be a tensor or array, not {name}") from error
        if waveform.dim() == 1:
            waveform = waveform[None]
        if waveform.dim() != 2 or not waveform.shape[-1]:
            raise SeparationError(f"a waveform must be (C, L), not {list(waveform.shape)}")
        if not waveform.is_floating_point():
            kind = str(waveform.dtype).removeprefix("torch.")
            hint = "; divide by 32768" if kind == "int16" else ""
            raise SeparationError(f"a waveform must hold floats, not {kind}{hint}")
        if not waveform.isfinite().all():
            raise SeparationError("a waveform must hold finite samples, not NaN or infinity")
        waveform = waveform.float()
        if waveform.shape[0] == 1:
            return waveform.expand(self.audio_channels, -1)
        if waveform.shape[0] == 2 and self.audio_channels == 1:
            return waveform.mean(0, keepdim=True)
        if waveform.shape[0] != self.audio_channels:
            hint = "; transpose it to (C, L)" if waveform.shape[-1] <= 2 else ""
            raise SeparationError(
                f"a waveform must have 1 or 2 channels, not {waveform.shape[0]}{hint}"
            )
        return waveform


def shift_offsets(shifts: int, seed: int, sample_rate: int) -> list[int]:
    """Return a random lead-in in samples for each of the shifts."""
    generator = torch.Generator().manual_seed(seed)
    longest = int(MAX_SHIFT * sample_rate)
    return torch.randint(0, longest + 1, (shifts,), generator=generator).tolist()


@cache
def _main_process() -> int:
    """Return the process of the first separator; its forks return the same."""
    return os.getpid()


def _unpickled(pickled_model: bytes, settings: EngineSettings) -> Separator:
    """Return the separator of a model; in a fork, where PyTorch would hang, one that says so.

    An error here would end a worker of `multiprocessing.Pool` without a word, and hang the pool.
    """
    if os.getpid() == _main_process():
        return Separator(pickle.loads(pickled_model), settings)
    separator = Separator.__new__(Separator)
    separator._process = _main_process()
    return separator


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def _private_copy(
    model: Any, stems: Sequence[str] | None, device: str | torch.device | None
) -> Model:
    """Return a copy of the needed members of a model, ready to run, perhaps in the same memory.

    Networks that were changed after they were read lose their `origin`.
    """
    if not isinstance(model, Model):
        name = type(model).__name__
        raise SeparationError(f"the model must be a name, a path, a network or a bag, not {name}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SeparationError("the model's parameters have no values; load it again")
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    try:
        private: Model = copy.deepcopy(model, shared)
    except (RuntimeError, TypeError) as error:
        raise SeparationError(f"the model cannot be copied: {error}") from error
    if stems is not None:
        try:
            private = as_bag(private).select_sources(stems)
        except ConfigError as error:
            raise SeparationError(str(error)) from error
    for network in networks(private):
        network.origin = network.origin if is_unchanged(network) else None
    target = choose_device(device) if device else next(private.parameters()).device
    return private.to(target, torch.float32).eval()
