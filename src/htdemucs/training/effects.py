"""Studio effects (FFmpeg's filters and a reverb) and round trips through lossy formats.

All settings are drawn from the given generator: the same generator state gives the same samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from htdemucs.audio import AudioEncoding, AudioFile, AudioWriter
from htdemucs.training.config import EFFECTS

EFFECT_PROBABILITY = 0.35  # that an effect is in a chain, by default
LONGEST_REVERB = 2.5  # seconds until a reverb is 60 dB down
_FAST_FFT = 8192  # FFTs whose length is a multiple of this are five times as fast as others
_PAIR = 2  # channels that FFmpeg processes at once
_BITRATES = (96, 128, 160, 192, 256, 320)  # kbit/s
_FORMATS = ("mp3", "m4a", "opus")

Filter = tuple[str, str]  # FFmpeg's name of a filter, and its options


def effect_chain(
    waveform: Tensor,
    sample_rate: int,
    draw: np.random.Generator,
    probabilities: Mapping[str, float] | None = None,
) -> Tensor:
    """(C, L) -> (C, L) through a random chain of effects, as loud as before.

    The effects of `EFFECTS`, in this order, are each in the chain with their probability, or with
    `EFFECT_PROBABILITY`.
    """
    named = probabilities or {}
    *of_filters, of_reverb = (float(named.get(name, EFFECT_PROBABILITY)) for name in EFFECTS)
    chain = _random_chain(sample_rate, draw, of_filters)
    has_reverb, seconds, wet, seed = draw.random(4)
    processed = _apply_filters(waveform, sample_rate, chain) if chain else waveform
    if has_reverb < of_reverb:
        decay = 0.2 + seconds * (LONGEST_REVERB - 0.2)
        processed = reverb(processed, sample_rate, decay, 0.6 * wet, int(seed * 2**32))
    energy = processed.square().mean().clamp(min=1e-12)
    return processed * (waveform.square().mean() / energy).sqrt()


def reverb(waveform: Tensor, sample_rate: int, seconds: float, wet: float, seed: int) -> Tensor:
    """(C, L) -> (C, L), with a tail of noise that falls by 60 dB in `seconds`.

    `wet` is the tail's share of the loudness of a long sound. Each channel has a separate tail.
    """
    length = round(seconds * sample_rate)
    decay = torch.exp(torch.arange(length) * (-3 * math.log(10) / length))
    generator = torch.Generator().manual_seed(seed)
    tail = torch.randn(waveform.shape[0], length, generator=generator) * decay
    tail = tail / tail.square().sum(-1, keepdim=True).sqrt()
    size = -(-(waveform.shape[-1] + length) // _FAST_FFT) * _FAST_FFT
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(tail, size)
    echo = torch.fft.irfft(spectrum, size)[:, : waveform.shape[-1]]
    return (1 - wet) * waveform + wet * echo


def codec_round_trip(waveform: Tensor, sample_rate: int, draw: np.random.Generator) -> Tensor:
    """(C, L) -> (C, L) through MP3, AAC or Opus at 96 to 320 kbit/s and back, aligned exactly."""
    chosen = AudioEncoding(
        format=_FORMATS[draw.integers(len(_FORMATS))],
        bitrate=_BITRATES[draw.integers(len(_BITRATES))],
        mp3_preset=7,  # a third of the time of the best one
    )
    pairs = [_encode_and_decode(pair, sample_rate, chosen) for pair in waveform.split(_PAIR)]
    return torch.cat(pairs)


def _encode_and_decode(waveform: Tensor, sample_rate: int, encoding: AudioEncoding) -> Tensor:
    bitrates = encoding.audio_format.bitrates_for(waveform.shape[0])
    encoding = replace(encoding, bitrate=min(encoding.bitrate or 0, bitrates[-1]))
    with TemporaryDirectory(prefix="htdemucs-") as folder:
        path = Path(folder) / f"excerpt.{encoding.extension}"
        with AudioWriter(path, sample_rate, waveform.shape[0], encoding) as writer:
            writer.write(waveform)
        blocks = list(AudioFile(path, sample_rate=sample_rate))
    length = waveform.shape[-1]
    decoded = torch.cat(blocks, dim=-1)[:, :length]
    return F.pad(decoded, (0, length - decoded.shape[-1]))


def _random_chain(
    sample_rate: int, draw: np.random.Generator, probabilities: Sequence[float]
) -> list[Filter]:
    chosen = draw.random(6) < np.array(probabilities)
    # All settings are drawn, whichever effects are chosen.
    stages = [
        [_bell(sample_rate, draw), _bell(sample_rate, draw)],
        [_compressor(draw)],
        [("asoftclip", f"type=tanh:threshold={draw.uniform(0.05, 0.5):.4f}")],
        [_modulation(draw)],
        [("aecho", f"1:1:{draw.uniform(80, 500):.2f}:{draw.uniform(0.1, 0.5):.4f}")],
        [("extrastereo", f"m={draw.uniform(0.3, 1.8):.4f}:c=0")],
    ]
    return [f for wanted, stage in zip(chosen, stages, strict=True) if wanted for f in stage]


def _bell(sample_rate: int, draw: np.random.Generator) -> Filter:
    highest = min(12_000.0, 0.4 * sample_rate)
    frequency = 60 * (highest / 60) ** draw.uniform(0, 1)
    return (
        "equalizer",
        f"f={frequency:.2f}:t=q:w={draw.uniform(0.5, 2):.4f}:g={draw.uniform(-9, 9):.4f}",
    )


def _compressor(draw: np.random.Generator) -> Filter:
    return "acompressor", (
        f"threshold={10 ** draw.uniform(-1.7, -0.7):.5f}:ratio={draw.uniform(2, 8):.3f}"
        f":attack={draw.uniform(1, 30):.3f}:release={draw.uniform(50, 400):.3f}"
    )


def _modulation(draw: np.random.Generator) -> Filter:
    speed = draw.uniform(0.1, 1.5)
    kinds = (
        ("chorus", f"0.7:0.9:{draw.uniform(20, 60):.2f}:0.5:{speed:.4f}:{draw.uniform(1, 4):.4f}"),
        (
            "aphaser",
            f"in_gain=0.6:out_gain=0.9:decay={draw.uniform(0.2, 0.6):.4f}:speed={speed:.4f}",
        ),
        (
            "flanger",
            f"depth={draw.uniform(1, 4):.4f}:regen={draw.uniform(-40, 40):.3f}:speed={speed:.4f}",
        ),
    )
    return kinds[draw.integers(len(kinds))]


def _apply_filters(waveform: Tensor, sample_rate: int, chain: list[Filter]) -> Tensor:
    """(C, L) -> (C, L) through FFmpeg's filters, a pair of channels at a time."""
    return torch.cat([_filter_pair(pair, sample_rate, chain) for pair in waveform.split(_PAIR)])


def _filter_pair(waveform: Tensor, sample_rate: int, chain: list[Filter]) -> Tensor:
    """(1 or 2, L) -> (1 or 2, L) through FFmpeg's filters, without the tail they add."""
    import av
    from av.filter import Graph

    channels, length = waveform.shape
    layout = "mono" if channels == 1 else "stereo"
    if channels == 1:  # extrastereo needs two channels
        chain = [effect for effect in chain if effect[0] != "extrastereo"]
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(waveform.numpy()), format="fltp", layout=layout
    )
    frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
    graph = Graph()
    node = graph.add_abuffer(
        format="fltp", sample_rate=sample_rate, layout=layout, time_base=frame.time_base
    )
    for name, options in [*chain, ("aformat", f"sample_fmts=fltp:channel_layouts={layout}")]:
        following = graph.add(name, options)
        node.link_to(following)
        node = following
    node.link_to(graph.add("abuffersink"))
    graph.configure()
    graph.push(frame)
    graph.push(None)
    pieces: list[Tensor] = []
    while True:
        try:
            output = graph.pull()
        except (av.EOFError, av.BlockingIOError):
            break
        assert isinstance(output, av.AudioFrame)
        pieces.append(torch.from_numpy(output.to_ndarray()))
    filtered = torch.cat(pieces, dim=-1)[:, :length]
    return F.pad(filtered, (0, length - filtered.shape[-1]))
