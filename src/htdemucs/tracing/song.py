"""One segment of a song inside the network: figures and pictures of the data at every stage."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from htdemucs.audio import AudioFile
from htdemucs.errors import SeparationError
from htdemucs.images import heat_map
from htdemucs.model import Network
from htdemucs.model.htdemucs import HTDemucs
from htdemucs.model.spectrogram import Spectrogram
from htdemucs.model.transformer import Attention, CrossAttentionLayer
from htdemucs.separation.normalization import Normalization, RunningStats
from htdemucs.tracing.run import run
from htdemucs.tracing.stages import Branch, Stage
from htdemucs.tracing.walk import stages_of

COLUMNS, ROWS = 640, 192  # of a picture, at most
HOPS_PER_SECOND = 10  # places at which the loudest segment may begin
RANGE = 80.0  # dB between the brightest and the darkest colour of a spectrogram
CLOSED = 0.01  # a gate that lets less through is closed


@dataclass(frozen=True)
class Statistics:
    """Figures of a tensor.

    Attributes:
        mean, std, low, high: of its values.
        zeros: share of values that are 0.
        closed: share of the gates of its GLU that let less than 1 % through; None without a GLU.
        bytes: its size.
    """

    mean: float
    std: float
    low: float
    high: float
    zeros: float
    bytes: int
    closed: float | None = None

    @classmethod
    def of(cls, tensor: Tensor, closed: float | None = None) -> "Statistics":
        """Return the figures of a tensor."""
        std = float(tensor.std()) if tensor.numel() > 1 else 0.0
        low, high = tensor.aminmax()
        zeros = float((tensor == 0).float().mean())
        size = tensor.numel() * tensor.element_size()
        return cls(float(tensor.mean()), std, float(low), float(high), zeros, size, closed)


@dataclass(frozen=True)
class AttentionMaps:
    """What the queries of one cross-attention layer look at, as pictures; means over all heads.

    Attributes:
        branch: of the queries.
        layer: the number of the layer.
        moments: a row for each moment of the queries, a column for each moment of the keys.
        bins: a row for each frequency bin, of the branch that has them; columns are moments of the
            other branch.
    """

    branch: Branch
    layer: int
    moments: str
    bins: str


@dataclass
class SongTrace:
    """A segment of a song, inside a network.

    Attributes:
        track: the file.
        start: seconds of the song before the segment.
        channel: the one that pictures show; None for the mean of all.
        stages: of depth 2, without tensors.
        statistics: by the number of the stage.
        pictures: by the number of the stage; those of depth 1 only.
        mixture: the segment (C, L).
        stems: by name (C, L).
        spectrograms: pictures of the mixture ("") and of the stems.
        masks: for each stem, which share of the magnitude at each moment and frequency is its own.
        attention: of the cross-attention layers.
    """

    track: str
    start: float
    stages: list[Stage]
    mixture: Tensor
    stems: dict[str, Tensor]
    channel: int | None = None
    statistics: dict[str, Statistics] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    spectrograms: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    attention: list[AttentionMaps] = field(default_factory=list)


def trace_song(
    network: Network,
    track: Path,
    *,
    samples: int | None = None,
    at: float | None = None,
    channel: int | None = None,
    pictures: bool = True,
) -> SongTrace:
    """Run a network on one segment of a song, normalised like the whole song.

    Args:
        network: the network.
        track: the file.
        samples: the length of the segment; by default the network's. A shorter song is used whole.
        at: seconds at which the segment begins; by default the loudest one is taken.
        channel: draw this channel, counted from 0, instead of the mean magnitude of all.
        pictures: whether to draw at all.

    Raises:
        AudioError: the song cannot be read.
        SeparationError: the song ends before `at`, or no stage has the channel.
    """
    channels = max(stage.shape[1] for stage in stages_of(network, 1) if len(stage.shape) > 2)
    if channel is not None and channel >= channels:
        raise SeparationError(f"no stage has a channel {channel}; the widest has {channels}")
    mixture, normalization, start = read_segment(network, track, samples, at)
    result = SongTrace(str(track), start, [], mixture, {}, channel)
    draw = _draw_channel(channel)
    gates: dict[str, float] = {}
    spectra: dict[str, Tensor] = {}

    def see(stage: Stage, tensor: Tensor) -> Tensor | None:
        whole = stage.number.partition(".")[0]
        if stage.key.startswith("rewrite"):
            half = tensor[:, tensor.shape[1] // 2 :]
            gates[whole] = float((half.sigmoid() < CLOSED).float().mean())
        closed = gates.get(whole) if stage.key == "glu" or stage.depth == 1 else None
        result.statistics[stage.number] = Statistics.of(tensor, closed)
        if pictures and stage.depth == 1:
            result.pictures[stage.number] = draw(stage, tensor)
        if stage.key in ("output", "sources"):
            spectra["output"] = tensor
        return None

    maps: list[tuple[Branch, int, Tensor]] = []
    hooks = _attention_hooks(network, maps) if pictures else []
    try:
        result.stages = run(network, normalization.apply(mixture), 2, see)
    finally:
        for hook in hooks:
            hook.remove()
    stems = normalization.undo(spectra["output"][0]).cpu()
    result.stems = dict(zip(network.sources, stems, strict=True))
    if pictures:
        _draw_spectra(network, result)
        shapes = {stage.key: stage.shape for stage in result.stages}
        result.attention = [_attention_maps(*item, shapes) for item in maps]
    return result


def read_segment(
    network: Network, track: Path, samples: int | None, at: float | None
) -> tuple[Tensor, Normalization, float]:
    """Return a segment (C, L), the song's normalisation, and the second at which it begins."""
    rate, channels = network.sample_rate, network.audio_channels
    length = samples or network.config.segment_length
    statistics, hop = RunningStats(), rate // HOPS_PER_SECOND
    energies: list[float] = []
    rest = torch.zeros(channels, 0)
    total = 0
    for block in AudioFile(track, sample_rate=rate, channels=channels):
        statistics.update(block)
        total += block.shape[-1]
        joined = torch.cat([rest, block], dim=-1)
        count = joined.shape[-1] // hop
        hops = joined[:, : count * hop].reshape(channels, count, hop)
        energies += hops.square().sum((0, 2)).tolist()
        rest = joined[:, count * hop :]
    if at is None:
        first = hop * _loudest(energies, max(1, length // hop))
        first = max(0, min(first, total - length))
    else:
        first = round(at * rate)
        if not 0 <= first < total:
            raise SeparationError(f"{track} lasts {total / rate:.1f} s; choose a moment in it")
    segment = _read(track, network, first, min(length, total - first))
    return segment, statistics.normalization(), first / rate


def _loudest(energies: Sequence[float], count: int) -> int:
    """Return where the `count` neighbours with the largest sum begin; the first of equal ones."""
    sums = torch.tensor([0.0, *energies], dtype=torch.float64).cumsum(0)
    windows = sums[count:] - sums[:-count]
    return int(windows.argmax()) if len(windows) else 0


def _read(track: Path, network: Network, first: int, length: int) -> Tensor:
    """Return the samples (C, length) from `first` on."""
    parts, position = [], 0
    for block in AudioFile(track, sample_rate=network.sample_rate, channels=network.audio_channels):
        start, end = max(0, first - position), first + length - position
        parts.append(block[:, start : max(start, end)])
        position += block.shape[-1]
        if position >= first + length:
            break
    return torch.cat(parts, dim=-1)


def _draw_channel(channel: int | None) -> Callable[[Stage, Tensor], str]:
    def draw(stage: Stage, tensor: Tensor) -> str:
        axes = [size.axis for size in stage.sizes]
        image = tensor[0].float().cpu()
        if axes[-1] == "sample":  # waveforms, whatever their channels
            return waveform_picture(image.flatten(0, -2).mean(0))
        if channel is not None:
            if channel >= image.shape[0]:
                return ""
            image = image[channel]
            return waveform_picture(image) if image.dim() == 1 else activation_picture(image.abs())
        return activation_picture(image.abs().mean(0) if "bin" in axes else image.abs())

    return draw


def activation_picture(image: Tensor) -> str:
    """Return (rows, columns) of magnitudes as a picture.

    The darkest and the brightest colour are for what 1 % of the values are below and 0.5 % above.
    """
    image = _shrunk(image)
    low, high = torch.quantile(image.flatten(), torch.tensor([0.01, 0.995])).tolist()
    return _picture(((image - low) / max(high - low, 1e-20)).clamp_min(0).sqrt())


def waveform_picture(waveform: Tensor) -> str:
    """Return (L,) as the picture of its envelope."""
    columns, rows = min(COLUMNS, waveform.shape[-1]), 64
    high = F.adaptive_max_pool1d(waveform[None], columns)[0]
    low = -F.adaptive_max_pool1d(-waveform[None], columns)[0]
    peak = max(float(waveform.abs().max()), 1e-9)
    y = torch.linspace(-1.05, 1.05, rows)[:, None]
    step = 1.05 / rows
    inside = (y >= low / peak - step) & (y <= high / peak + step)
    return _picture(inside.float() * 0.7)


def spectrogram_picture(power: Tensor, loudest: float) -> str:
    """Return (bins, frames) of power as a picture, in dB below `loudest`."""
    decibels = 10 * torch.log10(_shrunk(power) / max(loudest, 1e-20) + 1e-20)
    return _picture(decibels / RANGE + 1)


def _shrunk(image: Tensor) -> Tensor:
    """Return (rows, columns) with no more of them than a picture has."""
    size = min(ROWS, image.shape[0]), min(COLUMNS, image.shape[1])
    return F.adaptive_avg_pool2d(image[None], size)[0]


def _picture(image: Tensor) -> str:
    """Return values from 0 to 1 as a picture, in which small ones are enlarged."""
    repeat = max(1, math.ceil(64 / image.shape[0])), max(1, math.ceil(160 / image.shape[1]))
    levels = (image.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    levels = levels.repeat_interleave(repeat[0], 0).repeat_interleave(repeat[1], 1)
    return heat_map(levels.numpy())


def _draw_spectra(network: Network, result: SongTrace) -> None:
    """Draw the spectrograms of mixture and stems, and the masks of the stems."""
    stft = getattr(network, "spectrogram", None) or Spectrogram(4096)

    def power(waveform: Tensor) -> Tensor:
        return stft(waveform[None].to(stft.window.device))[0].square().sum(0).cpu()

    mixture = power(result.mixture)
    loudest = float(mixture.max())
    powers = {name: power(stem) for name, stem in result.stems.items()}
    magnitudes = {name: p.sqrt() for name, p in powers.items()}
    total = torch.stack(list(magnitudes.values())).sum(0).clamp_min(1e-9)
    half = mixture.shape[0] // 2  # what is above is mostly empty
    result.spectrograms[""] = spectrogram_picture(mixture[:half], loudest)
    for name, p in powers.items():
        result.spectrograms[name] = spectrogram_picture(p[:half], loudest)
        result.masks[name] = _picture(_shrunk((magnitudes[name] / total)[:half]))


def _attention_hooks(
    network: Network, maps: list[tuple[Branch, int, Tensor]]
) -> list[RemovableHandle]:
    """Let the cross-attention layers append (branch, layer, weights) to a list."""
    if not isinstance(network, HTDemucs) or network.transformer is None:
        return []

    def hook_of(branch: Branch, number: int) -> Any:
        def hook(module: Attention, inputs: tuple[Tensor, Tensor]) -> None:
            maps.append((branch, number, attention_weights(module, *inputs)))

        return hook

    stacks: dict[Branch, nn.ModuleList] = {
        "spectral": network.transformer.spectral_layers,
        "time": network.transformer.time_layers,
    }
    return [
        layer.attention.register_forward_pre_hook(hook_of(branch, number))
        for branch, layers in stacks.items()
        for number, layer in enumerate(layers, 1)
        if isinstance(layer, CrossAttentionLayer)
    ]


def attention_weights(attention: Attention, x: Tensor, context: Tensor) -> Tensor:
    """(1, N, C), (1, M, C) -> (N, M): what each query attends to, the mean over the heads."""
    width, heads = x.shape[-1], attention.heads
    weight, bias = attention.projection.weight, attention.projection.bias
    queries = F.linear(x[0], weight[:width], bias[:width]).unflatten(-1, (heads, -1))
    keys = F.linear(context[0], weight[width : 2 * width], bias[width : 2 * width])
    keys = keys.unflatten(-1, (heads, -1))
    mean = torch.zeros(x.shape[1], context.shape[1], device=x.device)
    for head in range(heads):  # one at a time: all scores together may not fit into memory
        scores = queries[:, head] @ keys[:, head].mT / math.sqrt(width // heads)
        mean += scores.softmax(-1) / heads
    return mean.cpu()


def _attention_maps(
    branch: Branch, layer: int, weights: Tensor, shapes: Mapping[str, tuple[int, ...]]
) -> AttentionMaps:
    """Return the pictures of (queries, keys); spectral tokens are in order of their frames."""
    bins, frames = shapes["spectral_transformer"][2:]
    if branch == "spectral":
        by_bin = weights.unflatten(0, (frames, bins))
        moments, per_bin = by_bin.mean(1), by_bin.mean(0)
    else:
        by_bin = weights.unflatten(1, (frames, bins))
        moments, per_bin = by_bin.sum(2), by_bin.sum(1).mT
    return AttentionMaps(branch, layer, activation_picture(moments), activation_picture(per_bin))
