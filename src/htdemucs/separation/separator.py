"""The engine: waveform blocks in, stem blocks out, in memory that does not grow with the track."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from htdemucs.audio import Resampler, pad_or_trim
from htdemucs.devices import choose_device
from htdemucs.environment import CheckpointFiles
from htdemucs.errors import ConfigError, SegmentTooLongError, SeparationError
from htdemucs.model import Bag, Model
from htdemucs.model.bag import as_bag, networks
from htdemucs.model.config import Seconds, exact_seconds, samples
from htdemucs.separation.chunking import Cut, Segment, ShiftPass, segments_of
from htdemucs.separation.levels import Normalization, Running, measure
from htdemucs.separation.runner import Runner, answered
from htdemucs.weights import load_model
from htdemucs.weights.load import is_unchanged

MAX_SHIFT = 0.5  # seconds; no random lead-in is longer
Stems = dict[str, Tensor]


class OutputCache(Protocol):
    """The network's answers to segments of one track, kept by the segments' starts in samples."""

    def get(self, start: int) -> Tensor | None:
        """Return the answer (S, C, L) to the segment that starts there; None if there is none."""

    def put(self, start: int, answer: Tensor) -> None:
        """Hear of an answer."""


class Separator:
    """Separates waveforms with one model.

    Args:
        model: a network or a bag, or any name or path that `load_model` takes. A network or bag is
            copied: it is not changed, and what is done to it later has no effect here.
        overlap: shared fraction of neighbouring segments, from 0 to below 1.
        shifts: average this many runs, each with a random lead-in of up to half a second; 0: one
            run without a lead-in.
        segment: seconds; by default the model's own segment, which is the longest for HTDemucs.
        batch_size: segments in a batch; by default 1 on a CPU and as many as should fit on a GPU.
            When memory runs out, batches become smaller; if a GPU has too little memory for one
            segment, the CPU takes over, with a warning.
        stems: only these sources, in this order; members of a bag they do not need are not run.
        seed: seed of the random lead-ins. The same seed gives the same result.
        device: the device to run on. By default the model's own device or, if `model` is a name or
            path, a GPU if there is one, else the CPU.
        split: False refuses tracks longer than one segment instead of cutting them.
        precision: precision of the network's products: fp32, bf16, fp16, or auto for the fastest
            one that the device supports well.
        compiled: let torch compile the network, for GPUs. The start is slow, the first one most.

    Several threads may use one separator; they take turns.

    Raises:
        SeparationError: an option is out of range, a stem is unknown, or `model` is not a model.
        ModelNotFoundError, DownloadError, CheckpointError: the named model cannot be loaded.
        ConfigError: this machine lacks the device, or the device lacks the precision.
        SegmentTooLongError: the segment is longer than the model's own.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        overlap: float = 0.25,
        shifts: int = 0,
        segment: Seconds | None = None,
        batch_size: int | None = None,
        stems: Sequence[str] | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        split: bool = True,
        precision: str = "auto",
        compiled: bool = False,
    ) -> None:
        if isinstance(model, str | Path):
            model = load_model(model, device=device, stems=stems)
        own = _own(model, stems, device)
        self.device = next(own.parameters()).device
        self.sample_rate = own.sample_rate
        self.audio_channels = own.audio_channels
        self.sources = networks(own)[0].sources
        self.stems = own.sources
        self.shifts = _whole("shifts", shifts, 0)
        self.seed = int(seed)
        self.split = split
        self.segment_length = _segment_length(own, segment)
        if batch_size is not None:
            batch_size = _whole("batch_size", batch_size, 1)
        self.compiled = compiled
        self._model = own
        self._run = Runner(own, precision, batch_size, self.segment_length, compiled)
        for parameter in own.parameters():
            parameter.data = parameter.data.clone()  # until here in the memory of the caller's
        if not 0 <= overlap < 1:
            raise SeparationError(f"overlap must be at least 0 and below 1, not {overlap}")
        self.stride = max(1, int((1 - overlap) * self.segment_length))

    @property
    def precision(self) -> str:
        """Precision of the network's products: fp32, bf16 or fp16."""
        return self._run.precision

    @property
    def batch_size(self) -> int:
        """Segments in a batch."""
        return self._run.batch_size

    @cached_property
    def origin(self) -> CheckpointFiles | None:
        """The files that the model was read from; None if it is from no file, or was changed."""
        return self._model.origin

    @cached_property
    def model(self) -> Model:
        """The network or bag, whole, in evaluation mode: a copy that the separator does not use.

        Raises:
            CheckpointError: it must be read again, and its file is gone or has changed.
        """
        bag = copy.deepcopy(self._run.complete_model(self.device))
        return bag if isinstance(self._model, Bag) else bag.members[0]

    @cached_property
    def weights_sha256(self) -> dict[str, str]:
        """Hash of each file that the model was read from or, without files, of its parameters."""
        if self.origin is not None:
            return self.origin.sha256
        digest = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return {"parameters": digest.hexdigest()}

    def __reduce__(self) -> NoReturn:
        raise SeparationError(
            "a separator cannot be copied or pickled; make one in each process, from a name or path"
        )

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
    def separate(self, waveform: Tensor | NDArray[Any], sample_rate: float) -> Stems:
        """(C, L) or (L,) at any sample rate -> the stems, each (C, L) at the same rate.

        A mono waveform is copied to all of the model's channels; stems have the model's channels.

        Raises:
            SeparationError: the waveform is empty, is not finite or has too many channels, or the
                sample rate is no whole number of Hz.
        """
        waveform = self._checked_waveform(waveform)
        sample_rate = _whole("sample_rate", sample_rate, 1)
        resample = Resampler(sample_rate, self.sample_rate, self.audio_channels)
        blocks = [resample.push(waveform.cpu()), resample.flush()]
        pieces: dict[str, list[Tensor]] = {name: [] for name in self.stems}
        back = {n: Resampler(self.sample_rate, sample_rate, self.audio_channels) for n in pieces}
        for stems in self.stream(blocks):
            for name, stem in stems.items():
                pieces[name].append(back[name].push(stem.cpu()))
        whole = {n: torch.cat([*pieces[n], back[n].flush()], dim=-1) for n in pieces}
        return {
            n: pad_or_trim(stem, waveform.shape[-1]).to(waveform.device)
            for n, stem in whole.items()
        }

    @torch.no_grad()
    def stream(
        self,
        blocks: Iterable[Tensor],
        normalization: Normalization | Running | None = None,
        *,
        skip: int = 0,
        answers: OutputCache | None = None,
    ) -> Iterator[Stems]:
        """Blocks (C, L) of any lengths at the model's rate -> blocks of stems as they finish.

        The blocks of stems have other lengths than the input's, but together they line up with the
        track to the sample. Without `normalization` the blocks are read twice, first to `measure`
        the track: pass a list, an `AudioFile`, or anything else that can be read twice. With one,
        they may come from a generator, and never end. So they may with "running": each segment is
        brought to the level that the track has had until the segment's end.

        The first `skip` samples are left out, and segments that only they need are not computed.
        The other samples are the same to the bit (on a GPU, as long as its memory suffices).
        `answers` remembers what the network said to earlier runs over the same track.

        Raises:
            SeparationError: the blocks can be read only once, and there is no `normalization`.
            SegmentTooLongError: the track is longer than a segment, and `split` is False.
        """
        if normalization is None:
            if iter(blocks) is blocks:
                raise SeparationError(
                    "these blocks can be read only once; pass a list, or a normalization, "
                    'which may be "running"'
                )
            normalization = measure(blocks)
        if normalization != "running":
            self.check_length(normalization.length)
        finished = 0
        for stems in self._separated(blocks, normalization, skip, answers):
            length = next(iter(stems.values())).shape[-1]
            first = max(0, skip - finished)
            finished += length
            if first < length:
                yield {name: stem[..., first:] for name, stem in stems.items()}

    def _separated(
        self,
        blocks: Iterable[Tensor],
        normalization: Normalization | Running,
        skip: int,
        kept: OutputCache | None,
    ) -> Iterator[Stems]:
        """Yield blocks of stems from the track's start on; those before `skip` may be zeros."""
        windows = self._run.windows
        cut = Cut(self.segment_length, self.stride, windows.widest, windows.margin)
        passes = [ShiftPass(cut, start, normalization == "running") for start in self._starts()]
        whole = Normalization(0.0, 1.0) if normalization == "running" else normalization
        segments = segments_of((whole.apply(block.cpu()) for block in blocks), passes)
        ahead = 0 if normalization == "running" else self._run.ahead  # a live track has to wait
        begun = (
            (batch, self._answers([segment for _, segment in batch], skip, kept))
            for batch in self._run.batches(segments, lambda pair: pair[1].length)
        )
        for batch, answers in answered(begun, ahead):
            for (one, segment), answer in zip(batch, answers, strict=True):
                one.add(segment, answer)
            yield from self._finished(passes, whole)
        for one in passes:
            one.finish()
        yield from self._finished(passes, whole)

    def _answers(
        self, segments: list[Segment], skip: int, kept: OutputCache | None
    ) -> Callable[[], Tensor]:
        """Return a function of the network's answers, zeros if all segments end before `skip`."""
        windows = torch.stack([segment.window for segment in segments])
        if all(segment.start + segment.length <= skip for segment in segments):
            shape = (len(windows), len(self.stems), *windows.shape[1:])
            return lambda: torch.zeros(shape, device=self.device)
        if kept is None:
            return self._run(windows, segments[0].length)
        known = [kept.get(segment.start) for segment in segments]
        if all(answer is not None for answer in known):
            there = torch.stack([answer for answer in known if answer is not None])
            return lambda: there.to(self.device)
        return partial(_put, kept, segments, self._run(windows, segments[0].length))

    @property
    def window_length(self) -> int:
        """Samples that the model sees for a segment, which lies in their middle."""
        return self._run.windows.widest(self.segment_length)

    @torch.no_grad()
    def answer(self, window: Tensor) -> Tensor:
        """(C, window_length) -> (S, C, segment_length): the network alone, at the model's level"""
        answer = self._run(window[None], self.segment_length)()[0].to(window.device)
        edge = (answer.shape[-1] - self.segment_length) // 2
        return answer[..., edge : edge + self.segment_length]

    def shift_offsets(self) -> list[int]:
        """Return the random lead-ins in samples: the same for every track."""
        generator = torch.Generator().manual_seed(self.seed)
        longest = int(MAX_SHIFT * self.sample_rate)
        return torch.randint(0, longest + 1, (self.shifts,), generator=generator).tolist()

    def _starts(self) -> list[int]:
        """Return each run's position of the first segment: `longest - offset` before the track."""
        longest = int(MAX_SHIFT * self.sample_rate)
        return [offset - longest for offset in self.shift_offsets()] or [0]

    def _finished(self, passes: list[ShiftPass], normalization: Normalization) -> Iterator[Stems]:
        count = min(one.ready for one in passes)
        if count:
            total = sum((one.take(count) for one in passes), torch.zeros((), device=self.device))
            stems = normalization.undo(total / len(passes))
            yield dict(zip(self.stems, stems, strict=True))

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
            kind = type(samples).__name__
            raise SeparationError(f"a waveform must be a tensor or array, not {kind}") from error
        if waveform.dim() == 1:
            waveform = waveform[None]
        if waveform.dim() != 2 or not waveform.shape[-1]:
            raise SeparationError(f"a waveform must be (C, L), not {list(waveform.shape)}")
        if not waveform.is_floating_point() or not waveform.isfinite().all():
            raise SeparationError("a waveform must hold finite floating-point samples")
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


def _put(kept: OutputCache, segments: list[Segment], coming: Callable[[], Tensor]) -> Tensor:
    answers = coming()
    for segment, answer in zip(segments, answers, strict=True):
        kept.put(segment.start, answer)
    return answers


def _own(model: Any, stems: Sequence[str] | None, device: str | torch.device | None) -> Model:
    """Return what is needed of a model, ready to run; its parameters may be in the same memory.

    Networks that were changed after they were read have no `origin`.
    """
    if not isinstance(model, Model):
        kind = type(model).__name__
        raise SeparationError(f"the model must be a name, a path, a network or a bag, not {kind}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise SeparationError("the model's parameters have no values; load it again")
    same = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in model.parameters()}
    try:
        own: Model = copy.deepcopy(model, same)
    except (RuntimeError, TypeError) as error:
        raise SeparationError(f"the model cannot be copied: {error}") from error
    try:
        own = own if stems is None else as_bag(own).only(stems)
    except ConfigError as error:
        raise SeparationError(str(error)) from error
    for network in networks(own):
        network.origin = network.origin if is_unchanged(network) else None
    place = choose_device(device) if device else next(own.parameters()).device
    return own.to(place, torch.float32).eval()


def _segment_length(model: Model, segment: Seconds | None) -> int:
    """Return the samples in a segment of these seconds; by default in the model's own."""
    try:
        seconds = exact_seconds(model.segment if segment is None else segment)
    except ConfigError as error:
        raise SeparationError(str(error)) from None
    length = samples(seconds, model.sample_rate)
    longest = model.max_segment
    if longest is not None and length > samples(longest, model.sample_rate):
        raise SegmentTooLongError(
            f"segment {float(seconds):g} s is longer than the {float(longest):g} s the model "
            "was trained for; lower the segment"
        )
    if length < 1:
        raise SeparationError(f"a segment of {float(seconds):g} s is shorter than one sample")
    return length


def _whole(name: str, value: Any, minimum: int) -> int:
    """Return a whole number, which may come as a float or as one of NumPy's numbers."""
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        raise SeparationError(f"{name} must be a whole number, not {value!r}") from None
    if whole != value or isinstance(value, str):
        raise SeparationError(f"{name} must be a whole number, not {value!r}")
    if whole < minimum:
        raise SeparationError(f"{name} must be at least {minimum}, not {whole}")
    return whole
