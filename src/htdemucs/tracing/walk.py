"""The stages of a network for a mixture of any length, from its modules, without running it.

Each function follows the `forward` of one kind of module. Tests compare the sizes and operations
with those of real runs.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

from torch import nn

from htdemucs.errors import ConfigError
from htdemucs.model import Network
from htdemucs.model.config import STRIDE
from htdemucs.model.demucs import OVERSAMPLING, Demucs
from htdemucs.model.hdemucs import BandedDecoderLayer, BandedEncoderLayer, HDemucs
from htdemucs.model.htdemucs import HTDemucs
from htdemucs.model.hybrid import HybridNetwork
from htdemucs.model.layers import SpectralDConv
from htdemucs.model.lstm_attention import CHUNK, ChunkedLSTM, LocalAttention
from htdemucs.model.transformer import CrossAttentionLayer
from htdemucs.tracing.stages import Branch, Resolution, Size, Source, Stage

Sizes = tuple[Size, ...]


@dataclass(frozen=True)
class Flow:
    """The data between two operations, and what one step of it is.

    Attributes:
        branch: the branch of the network.
        sizes: the axes.
        jump: samples of the mixture from one step to the next along time.
        reach: samples of the mixture that convolutions let one step see; None for all.
        bin_hertz: from one frequency bin to the next; None in the time branch.
        reach_hertz: Hz that one bin sees; None for all, and in the time branch.
    """

    branch: Branch
    sizes: Sizes
    jump: float = 1.0
    reach: float | None = 1.0
    bin_hertz: float | None = None
    reach_hertz: float | None = None

    def size(self, axis: int) -> int:
        """Return the length of an axis."""
        return self.sizes[axis].value

    def with_sizes(self, **sizes: Size | int) -> "Flow":
        """Return the data with some axes replaced, by name; all others are those of before."""
        kept = []
        for size in self.sizes:
            new = sizes.get(size.axis, size.value)
            kept.append(new if isinstance(new, Size) else Size(size.axis, new))
        return replace(self, sizes=tuple(kept))

    @property
    def time_axis(self) -> str:
        """The name of the last axis."""
        return self.sizes[-1].axis

    def strided(self, axis: str, factor: float) -> "Flow":
        """Return the data with steps that are `factor` times as far apart along an axis."""
        if axis != "bin":
            return replace(self, jump=self.jump * factor)
        return replace(self, bin_hertz=self.bin_hertz and self.bin_hertz * factor)

    def widen(self, taps: int, axis: str | None = None, spread: int = 1) -> "Flow":
        """Return the data after a kernel of so many taps, `spread` steps apart."""
        if axis == "bin":
            if self.reach_hertz is None or self.bin_hertz is None:
                return self
            return replace(self, reach_hertz=self.reach_hertz + (taps - 1) * self.bin_hertz)
        if self.reach is None:
            return self
        return replace(self, reach=self.reach + (taps - 1) * spread * self.jump)


def stages_of(model: Network, samples: int, depth: int = 1) -> list[Stage]:
    """Return the stages of a mixture (1, C, samples), in the order in which they are computed.

    Raises:
        ConfigError: the mixture has no sample.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, not {samples}")
    walk = _Walk(model, samples)
    if isinstance(model, HybridNetwork):
        walk.hybrid(model)
    else:
        walk.demucs(cast(Demucs, model))
    return [stage for stage in walk.stages if stage.depth <= depth]


class _Walk:
    """Collects stages. Methods take the data before an operation, and return that after it."""

    def __init__(self, model: Network, samples: int) -> None:
        self.model, self.samples = model, samples
        self.stages: list[Stage] = []
        self._parts: list[Stage] = []
        self._count = 0
        self._skips: dict[Branch, list[str]] = {"spectral": [], "time": [], "both": []}

    # Recording

    def stage(
        self, key: str, flow: Flow, source: Source | None, *, layer: int | None = None,
        module: str = "", operation: str = "", flop: float = 0.0, skip: str = "",
    ) -> Stage:  # fmt: skip
        """Record a stage of depth 1, with the parts that were recorded since the one before."""
        self._count += 1
        parts = [
            replace(part, number=f"{self._count}.{i}") for i, part in enumerate(self._parts, 1)
        ]
        self._parts = []
        stage = Stage(
            number=f"{self._count}",
            key=key,
            branch=flow.branch,
            sizes=flow.sizes,
            layer=layer,
            module=module,
            operation=operation,
            resolution=self._resolution(flow),
            parameters=sum(part.parameters for part in parts),
            flop=flop + sum(part.flop for part in parts),
            skip=skip,
            source=source,
        )
        self.stages += [stage, *parts]
        return stage

    def part(
        self, key: str, flow: Flow, source: Source, *, operation: str = "", flop: float = 0.0,
        layer: int | None = None, module: str = "", skip: str = "",
    ) -> None:  # fmt: skip
        """Record a part of the next stage."""
        parameters = self._parameters(module) if module else 0
        self._parts.append(
            Stage("", key, flow.branch, flow.sizes, layer, module, operation,
                  self._resolution(flow), parameters, flop, skip, source)
        )  # fmt: skip

    def _parameters(self, module: str) -> int:
        return sum(p.numel() for p in self.model.get_submodule(module).parameters())

    def _resolution(self, flow: Flow) -> Resolution:
        rate = self.model.sample_rate
        reach = None if flow.reach is None or flow.reach >= self.samples else flow.reach / rate
        half = rate / 2
        is_whole = flow.reach_hertz is None or flow.reach_hertz >= half
        hertz = None if flow.bin_hertz is None or is_whole else flow.reach_hertz
        return Resolution(flow.jump / rate, flow.bin_hertz, reach, hertz)

    def module(self, path: str) -> Any:
        """Return a module of the network."""
        return self.model.get_submodule(path)

    # Layers

    def conv(self, path: str, flow: Flow, key: str = "conv", *, pads: bool = False) -> Flow:
        """A convolution. `pads`: its input is padded to a whole number of strides."""
        conv = self.module(path)
        sizes = {"channel": _channels(flow, conv.out_channels)}
        for i, (name, total) in enumerate([(x.axis, x.value) for x in flow.sizes[2:]]):
            kernel, stride = conv.kernel_size[i], conv.stride[i]
            rest = kernel - stride - 2 * conv.padding[i]
            flow = flow.widen(kernel, "bin" if name == "bin" else None)
            if stride == 1 and not rest:
                continue
            sizes[name] = _strided(name, total, stride, rest, pads)
            flow = flow.strided(name, stride)
        flow = flow.with_sizes(**sizes)
        if flow.time_axis == "sample":  # of the mixture; from here on they are steps
            flow = replace(flow, sizes=(*flow.sizes[:-1], replace(flow.sizes[-1], axis="step")))
        positions = math.prod(size.value for size in flow.sizes[2:])
        self.part(
            key, flow, Source(path), module=path, operation=_conv_text(conv),
            flop=2.0 * conv.weight.numel() * positions,
        )  # fmt: skip
        return flow

    def conv_transpose(self, path: str, flow: Flow, key: str = "conv_transpose") -> Flow:
        """A transposed convolution."""
        conv = self.module(path)
        sizes = {"channel": _channels(flow, conv.out_channels)}
        positions = math.prod(size.value for size in flow.sizes[2:])
        for i, size in enumerate(flow.sizes[2:]):
            kernel, stride = conv.kernel_size[i], conv.stride[i]
            rest = kernel - stride - 2 * conv.padding[i]
            if stride == 1 and not rest:
                continue
            sizes[size.axis] = Size(
                size.axis, stride * size.value + rest, _times(stride, size.value, rest),
                "transposed",
            )  # fmt: skip
            flow = flow.widen(math.ceil(kernel / stride), "bin" if size.axis == "bin" else None)
            flow = flow.strided(size.axis, 1 / stride)
        flow = flow.with_sizes(**sizes)
        self.part(
            key, flow, Source(path), module=path, operation=_conv_text(conv),
            flop=2.0 * conv.weight.numel() * positions,
        )  # fmt: skip
        return flow

    def norm(self, path: str, flow: Flow) -> Flow:
        """A group norm, if there is one."""
        norm = self.module(path)
        if not isinstance(norm, nn.Identity):
            flow = _unchanged(flow)
            operation = f"GroupNorm {norm.num_groups}"
            self.part("norm", flow, Source(path), module=path, operation=operation)
        return flow

    def dconv(self, path: str, flow: Flow) -> Flow:
        """The residual layers of a DConv."""
        dconv = self.module(path)
        rows, frames, channels = 1, flow.size(-1), flow.size(1)
        shown = _unchanged(flow)
        if isinstance(dconv, SpectralDConv):
            rows = flow.size(2)
            batch = Size("batch", rows, f"1 × {rows}", "per_bin")
            shown = replace(flow, sizes=(batch, *_unchanged(flow).sizes[1:2], flow.sizes[-1]))
        for i, layer in enumerate(dconv):
            squeeze, expand = layer.squeeze, layer.expand
            dilation, hidden = squeeze.dilation[0], squeeze.out_channels
            flow, shown = (x.widen(squeeze.kernel_size[0], spread=dilation) for x in (flow, shown))
            weights = squeeze.weight.numel() + expand.weight.numel()
            flop = rows * (2.0 * weights * frames + _context_flop(layer.context, frames))
            operation = f"{channels} → {hidden} → {channels}, dilation {dilation}"
            for context in layer.context.children():
                operation += ", LSTM" if isinstance(context, ChunkedLSTM) else ", attention"
                flow, shown = replace(flow, reach=None), replace(shown, reach=None)
            self.part(
                "dconv", shown, Source(f"{path}.{i}"), layer=i + 1, module=f"{path}.{i}",
                operation=operation, flop=flop,
            )  # fmt: skip
            shown = _unchanged(shown)
        return _unchanged(flow)

    def after_conv(self, path: str, flow: Flow, key: str) -> Flow:
        """A nonlinearity before a DConv, found at the input of what follows it."""
        follows = self._first_of(path, "dconv", "rewrite")
        flow = _unchanged(flow)
        self.part(key, flow, Source(follows, is_input=True), operation="GELU")
        return flow

    def _first_of(self, path: str, dconv: str, otherwise: str) -> str:
        """Return the path of the DConv or, if it has no layers, of the module after it."""
        return f"{path}.{dconv if len(self.module(f'{path}.{dconv}')) else otherwise}"

    def glu(self, flow: Flow, source: Source) -> Flow:
        """The gates that halve the channels."""
        doubled = flow.size(1)
        half = Size("channel", doubled // 2, f"{doubled} / 2", "glu")
        flow = _unchanged(flow).with_sizes(channel=half)
        self.part("glu", flow, source, operation=f"GLU, {doubled} → {doubled // 2}")
        return flow

    def encoder(self, path: str, flow: Flow) -> Flow:
        """An encoder layer: convolution, GELU, DConv, 1×1 convolution, GLU."""
        layer = self.module(path)
        is_time = flow.branch != "spectral"
        flow = self.conv(f"{path}.conv", flow, pads=is_time)
        if hasattr(layer, "norm"):
            flow = self.norm(f"{path}.norm", flow)
        flow = self.after_conv(path, flow, "gelu")
        flow = self.dconv(f"{path}.dconv", flow)
        return self.rewrite_and_gate(path, flow, Source(path))

    def rewrite_and_gate(self, path: str, flow: Flow, source: Source) -> Flow:
        """The convolution to twice the channels, its norm, and the gates."""
        size = self.module(f"{path}.rewrite").kernel_size
        key = "rewrite" if max(size) == 1 else "rewrite_wide"
        flow = self.conv(f"{path}.rewrite", flow, key)
        if hasattr(self.module(path), "rewrite_norm"):
            flow = self.norm(f"{path}.rewrite_norm", flow)
        return self.glu(flow, source)

    def decoder(self, path: str, flow: Flow, skip: str, length: int | None = None) -> Flow:
        """A decoder layer: skip, convolution, GLU, DConv, transposed convolution, GELU.

        `length` is that of the encoder layer's input, to which the time branch is cut.
        """
        layer = self.module(path)
        flow = self.skip_and_gate(path, _unchanged(flow), skip)
        flow = self.conv_transpose(f"{path}.conv_transpose", flow)
        if hasattr(layer, "norm"):
            flow = self.norm(f"{path}.norm", flow)
        is_last = isinstance(layer.activation, nn.Identity)
        if length is not None:
            flow = self.cut(flow, length, Source(path), is_last=is_last)
        elif not is_last:
            flow = _unchanged(flow)
            self.part("gelu", flow, Source(path), operation="GELU")
        return flow

    def skip_and_gate(self, path: str, flow: Flow, skip: str) -> Flow:
        """What a decoder does before its transposed convolution."""
        source = Source(f"{path}.rewrite", is_input=True)
        self.part("skip", flow, source, operation="+", skip=skip)
        gated = Source(self._first_of(path, "dconv", "conv_transpose"), is_input=True)
        flow = self.rewrite_and_gate(path, _unchanged(flow), gated)
        return self.dconv(f"{path}.dconv", flow)

    def cut(self, flow: Flow, length: int, source: Source, *, is_last: bool) -> Flow:
        """The length of the encoder's input, and a GELU unless the layer is the last."""
        total = flow.size(-1)
        flow = _unchanged(flow)
        if total != length:
            cut = Size(flow.time_axis, length, f"{total} − {total - length}", "cut")
            flow = flow.with_sizes(**{flow.time_axis: cut})
        if total != length or not is_last:
            key = ("cut" if is_last else "cut_gelu") if total != length else "gelu"
            self.part(key, flow, source, operation="" if is_last else "GELU")
        return flow

    def bands(self, path: str, flow: Flow) -> Flow:
        """The layers of the frequency bands, each with its own parameters, side by side."""
        layer = self.module(path)
        is_encoder = isinstance(layer, BandedEncoderLayer)
        inner = _Walk(self.model, self.samples)
        after = flow
        for i, (first, last) in enumerate(pairwise(layer.rows)):
            band = f"{path}.layers.{i}"
            if is_encoder:
                bins = STRIDE * (last - first) + STRIDE  # with the overlap of its kernels
                after = inner.encoder(band, flow.with_sizes(bin=bins))
            else:
                after = inner.decoder(band, flow.with_sizes(bin=last - first), "")
            rows = Size("bin", after.size(2), "", "band")
            after = _unchanged(after).with_sizes(
                bin=rows, channel=Size("channel", after.size(1), "", "conv")
            )
            conv = self.module(f"{band}.{'conv' if is_encoder else 'conv_transpose'}")
            self.part(
                "band", after, Source(band), layer=i + 1, module=band, operation=_conv_text(conv),
                flop=sum(part.flop for part in inner._parts),
            )  # fmt: skip
            inner._parts.clear()
        bins = flow.size(2) // STRIDE if is_encoder else STRIDE * flow.size(2)
        return after.with_sizes(bin=bins)

    # Networks with two branches

    def hybrid(self, model: HybridNetwork) -> None:
        """The stages of a network with an STFT before its core and its inverse after it."""
        spectral, time = self.inputs(model)
        lengths, widths = [], []
        for i in range(len(model.time_encoder)):
            lengths.append(time.size(-1))
            time = self.outer_encoder("time", i, time)
            spectral = self.outer_encoder("spectral", i, spectral)
            widths.append(spectral.size(1))
        joint = 0
        if isinstance(model, HTDemucs):
            spectral, time = self.transformer(model, spectral, time)
        else:
            joint = len(cast(HDemucs, model).joint_encoder) + 1
            spectral, time = self.joint(cast(HDemucs, model), spectral, time)
        depth = len(model.time_decoder)
        for i in range(depth):
            wider = widths[depth - 2 - i] if i < depth - 1 else None
            spectral = self.outer_decoder("spectral", i, joint, spectral, wider)
            time = self.outer_decoder("time", i, joint, time, wider, lengths.pop())
        self.outputs(model, spectral, time)

    def inputs(self, model: HybridNetwork) -> tuple[Flow, Flow]:
        """The mixture, its spectrogram, and both after their normalisation."""
        channels, stft, rate = model.audio_channels, model.spectrogram, model.sample_rate
        mixture = Flow("both", (
            Size("batch", 1),
            Size("channel", channels, "", "audio_channels"),
            Size("sample", self.samples, "", "given"),
        ))  # fmt: skip
        self.stage("input", mixture, None)
        frames = stft.frames(self.samples)
        bin_hertz = rate / stft.n_fft
        spectral = Flow("spectral", (
            Size("batch", 1),
            Size("channel", 2 * channels, f"{channels} × 2", "complex"),
            Size("bin", stft.n_fft // 2, f"{stft.n_fft} / 2", "nyquist"),
            Size("frame", frames, f"⌈{self.samples} / {stft.hop_length}⌉", "hop"),
        ), stft.hop_length, stft.n_fft, bin_hertz, bin_hertz)  # fmt: skip
        operation = f"STFT {stft.n_fft}, hop {stft.hop_length}"
        self.stage("spectrogram", spectral, Source("spectrogram"), module="spectrogram",
                   operation=operation, flop=self.fft_flop(model))  # fmt: skip
        spectral = _unchanged(spectral)
        if isinstance(model, HDemucs) and not model.config.cac:
            magnitudes = Size("channel", channels, f"{2 * channels} / 2", "magnitude")
            spectral = spectral.with_sizes(channel=magnitudes)
        self.stage("spectral_input", spectral, Source("spectral_encoder.0", is_input=True))
        time = replace(_unchanged(mixture), branch="time")
        self.stage("time_input", time, Source("time_encoder.0", is_input=True))
        return spectral, time

    def fft_flop(self, model: HybridNetwork) -> float:
        """Return the operations of the mixture's STFT."""
        n_fft, frames = model.spectrogram.n_fft, model.spectrogram.frames(self.samples)
        return 2.5 * n_fft * math.log2(n_fft) * frames * model.audio_channels

    def outer_encoder(self, branch: Branch, i: int, flow: Flow) -> Flow:
        """Layer `i` of an encoder."""
        path, before = f"{branch}_encoder.{i}", flow
        layer = self.module(path)
        is_banded = isinstance(layer, BandedEncoderLayer)
        flow = self.bands(path, flow) if is_banded else self.encoder(path, flow)
        source = Source(path)
        if branch == "spectral" and i == 0:
            source = Source("frequency_embedding")
            embedding = self.module("frequency_embedding")
            if not isinstance(embedding, nn.Identity):
                rows, width = embedding.table.shape
                flow = _unchanged(flow)
                self.part("frequency_embedding", flow, source, module="frequency_embedding",
                          operation=f"Embedding {rows} × {width}")  # fmt: skip
        flow = self._summary(before, flow, i)
        conv = layer.layers[0].conv if is_banded else layer.conv
        stage = self.stage(
            f"{branch}_encoder", flow, source, layer=i + 1, module=path, operation=_conv_text(conv)
        )
        self._skips[branch].append(stage.number)
        return _unchanged(flow)

    def _summary(self, before: Flow, after: Flow, layer: int) -> Flow:
        """Return an encoder's output with its sizes explained by those of its input."""
        width, channels = after.size(1), before.size(1)
        growth = self.model.config.growth
        sizes = {"channel": Size("channel", width, "", "width")}
        if layer:
            sizes["channel"] = Size("channel", width, f"{growth} × {channels}", "growth")
        if after.branch == "spectral":
            bins = before.size(2)
            sizes["bin"] = Size("bin", after.size(2), _divided(bins, STRIDE), "stride_bins")
        else:
            total = before.size(-1)
            sizes["step"] = _strided("step", total, *self._stride(after, total), pads=True)
        return _unchanged(after).with_sizes(**sizes)

    def _stride(self, after: Flow, total: int) -> tuple[int, int]:
        """Return the stride of the layer that led here, and what its kernel takes off."""
        for stride in (STRIDE, 2):
            rest = (math.ceil(total / stride) - after.size(-1)) * stride
            if 0 <= rest <= STRIDE:
                return stride, rest
        raise AssertionError(f"{total} became {after.size(-1)}")

    def outer_decoder(
        self, branch: Branch, i: int, joint: int, flow: Flow, wider: int | None,
        length: int | None = None,
    ) -> Flow:  # fmt: skip
        """Layer `i` of a decoder; `wider` is the number of channels of the next one's skip."""
        path, before, skip = f"{branch}_decoder.{i}", flow, self._skips[branch].pop()
        layer = self.module(path)
        is_banded = isinstance(layer, BandedDecoderLayer)
        if is_banded:
            self.part("skip", _unchanged(flow), Source(path, is_input=True), skip=skip)
            flow = self.bands(path, flow)
        else:
            flow = self.decoder(path, flow, skip, length)
        sizes = {"channel": self._decoder_channels(branch, flow, before, wider)}
        if branch == "spectral":
            sizes["bin"] = Size("bin", flow.size(2), f"{STRIDE} × {before.size(2)}", "transposed")
        else:
            sizes[flow.time_axis] = _cut(flow.time_axis, before.size(-1), flow.size(-1))
        flow = _unchanged(flow).with_sizes(**sizes)
        conv = layer.layers[0].conv_transpose if is_banded else layer.conv_transpose
        self.stage(
            f"{branch}_decoder", flow, Source(path), layer=joint + i + 1, module=path, skip=skip,
            operation=_conv_text(conv),
        )  # fmt: skip
        return _unchanged(flow)

    def _mirrored(self, before: Flow, width: int) -> Size:
        """Return the channels of a decoder, which are those of the encoder before the last."""
        return Size("channel", width, f"{before.size(1)} / {self.model.config.growth}", "mirror")

    def _decoder_channels(
        self, branch: Branch, flow: Flow, before: Flow, wider: int | None
    ) -> Size:
        width = flow.size(1)
        if wider is not None:
            return self._mirrored(before, width)
        sources, channels = len(self.model.sources), self.model.audio_channels
        formula = f"{sources} × {channels}"
        if branch == "spectral" and width == 2 * sources * channels:
            return Size("channel", width, f"{formula} × 2", "sources_complex")
        return Size("channel", width, formula, "sources")

    def outputs(self, model: HybridNetwork, spectral: Flow, time: Flow) -> None:
        """The waveforms of both branches, and their sum."""
        sources, channels = len(model.sources), model.audio_channels
        stft, frames = model.spectrogram, spectral.size(-1)

        def waveforms(flow: Flow, per_source: str, length: Size) -> Flow:
            sizes = (
                Size("batch", 1),
                Size("source", sources, f"{flow.size(1)} / {flow.size(1) // sources}",
                     "per_source"),
                Size("channel", channels, per_source, "audio_channels"),
                length,
            )  # fmt: skip
            return replace(flow, sizes=sizes, jump=1.0, bin_hertz=None, reach_hertz=None)

        rest = frames * stft.hop_length - self.samples
        formula = f"{frames} × {stft.hop_length}" + (f" − {rest}" if rest else "")
        width = spectral.size(1) // sources
        flow = waveforms(
            spectral, f"{width} / {width // channels}" if width != channels else "",
            Size("sample", self.samples, formula, "inverse"),
        )  # fmt: skip
        self.stage("spectral_output", flow, None, module="spectrogram",
                   operation=f"iSTFT {stft.n_fft}, hop {stft.hop_length}",
                   flop=sources * self.fft_flop(model))  # fmt: skip
        other = waveforms(time, "", Size("sample", self.samples))
        self.stage("time_output", other, None)
        self.stage("output", replace(_unchanged(other), branch="both"), None)

    def transformer(self, model: HTDemucs, spectral: Flow, time: Flow) -> tuple[Flow, Flow]:
        """Both stacks of the transformer; the first with all its layers, then the second."""
        if model.transformer is None:
            return spectral, time
        bins, frames, steps = spectral.size(2), spectral.size(3), time.size(2)
        counts = {"spectral": bins * frames, "time": steps}
        after: list[Flow] = []
        for flow in (replace(spectral, reach=None, reach_hertz=None), replace(time, reach=None)):
            name = flow.branch
            other = counts["time" if name == "spectral" else "spectral"]
            self._stack(model, flow, counts[name], other)
            key = f"{name}_transformer"
            width = model.config.transformer_channels
            operation = f"{model.config.t_layers} layers, {width} channels"
            source = Source("transformer", part=len(after))
            after.append(_unchanged(flow))
            self.stage(key, after[-1], source, module="transformer", operation=operation)
        return after[0], after[1]

    def _stack(self, model: HTDemucs, flow: Flow, tokens: int, others: int) -> None:
        """The layers of one branch. `tokens` are its own, `others` those of the other branch."""
        config, branch, inner = model.config, flow.branch, flow.size(1)
        width, path = config.transformer_channels, "transformer"
        bins = flow.size(2) if branch == "spectral" else 1
        formula = f"{flow.size(3)} × {bins}" if branch == "spectral" else ""
        shown = replace(flow, sizes=(
            Size("batch", 1),
            Size("token", tokens, formula, "one_by_one" if formula else "steps"),
            Size("channel", width, "", "bottom" if width != inner else ""),
        ))  # fmt: skip
        linear = self.module(f"{path}.{branch}_in")
        is_linear = isinstance(linear, nn.Linear)
        self.part(
            "tokens", shown, Source(f"{path}.{branch}_in"), module=f"{path}.{branch}_in",
            operation=f"Linear {inner} → {width}" if is_linear else "",
            flop=2.0 * tokens * inner * width if is_linear else 0.0,
        )  # fmt: skip
        shown = _unchanged(shown)
        norm = f"{path}.{branch}_norm"
        self.part("token_norm", shown, Source(norm), module=norm, operation=f"LayerNorm {width}")
        layers = f"{path}.{branch}_layers"
        self.part("positions", shown, Source(f"{layers}.0", is_input=True),
                  operation="2-D sinusoids" if branch == "spectral" else "sinusoids")  # fmt: skip
        for i, layer in enumerate(self.module(layers)):
            is_cross = isinstance(layer, CrossAttentionLayer)
            keys = others if is_cross else tokens
            hidden = layer.feed_forward.linear1.out_features
            linears = tokens * width * width * 2 + keys * width * width * 2
            attention = 2 * tokens * keys * width
            flop = 2.0 * (linears + attention + 2 * tokens * width * hidden)
            self.part(
                "cross_attention" if is_cross else "self_attention", shown,
                Source(f"{layers}.{i}"), layer=i + 1, module=f"{layers}.{i}", flop=flop,
                operation=f"{config.t_heads} heads, {tokens} queries × {keys} keys; "
                f"{width} → {hidden} → {width}",
            )  # fmt: skip
        out = f"{path}.{branch}_out"
        self.part(
            "channels", _unchanged(flow),
            Source(path, part=0 if branch == "spectral" else 1), module=out,
            operation=f"Linear {width} → {inner}" if is_linear else "",
            flop=2.0 * tokens * inner * width if is_linear else 0.0,
        )  # fmt: skip

    def joint(self, model: HDemucs, spectral: Flow, time: Flow) -> tuple[Flow, Flow]:
        """The layers between the merge of both branches and their split."""
        outer, inner = model.config.outer_depth, len(model.joint_encoder)
        steps = time.size(-1)
        both = self._merge(spectral, time, outer + 1)
        lengths = []
        for i in range(inner):
            lengths.append(both.size(-1))
            path, before = f"joint_encoder.{i}", both
            both = self._summary(before, self.encoder(path, both), outer + 1 + i)
            stage = self.stage(
                "joint_encoder", both, Source(path), layer=outer + 2 + i, module=path,
                operation=_conv_text(self.module(path).conv),
            )  # fmt: skip
            both = _unchanged(both)
            self._skips["both"].append(stage.number)
        for i in range(inner):
            path, before, skip = f"joint_decoder.{i}", both, self._skips["both"].pop()
            both = self.decoder(path, both, skip, lengths.pop())
            both = self._joint_decoder_sizes(before, both)
            self.stage(
                "joint_decoder", both, Source(path), layer=i + 1, module=path, skip=skip,
                operation=_conv_text(self.module(path).conv_transpose),
            )  # fmt: skip
            both = _unchanged(both)
        return self._split(both, spectral, steps, inner + 1)

    def _merge(self, spectral: Flow, time: Flow, layer: int) -> Flow:
        path = "merge_layer"
        merged = self.conv(f"{path}.conv", spectral)
        added = self.conv(f"{path}.time_conv", time, "time_conv", pads=True)
        merged = replace(merged, branch="both", reach=None)
        merged = self.norm(f"{path}.norm", merged)
        merged = self.after_conv(path, merged, "sum_gelu")
        merged = self.dconv(f"{path}.dconv", merged)
        merged = self.rewrite_and_gate(path, merged, Source(path))
        # The source has no axis of bins any more; neither has the stage.
        width = merged.size(1)
        formula = f"{self.model.config.growth} × {spectral.size(1)}"
        sizes = (
            Size("batch", 1),
            Size("channel", width, formula, "growth"),
            replace(added.sizes[-1], axis="step"),
        )
        self._parts[-1] = replace(
            self._parts[-1], sizes=(*self._parts[-1].sizes[:2], Size("step", merged.size(-1)))
        )
        both = Flow("both", sizes, merged.jump, None)
        stage = self.stage("merge", both, Source(path), layer=layer, module=path,
                           operation=_merge_text(self.module(path)))  # fmt: skip
        self._skips["both"].append(stage.number)
        return _unchanged(both)

    def _joint_decoder_sizes(self, before: Flow, after: Flow) -> Flow:
        stride = round(before.jump / after.jump)
        return _unchanged(after).with_sizes(
            channel=self._mirrored(before, after.size(1)),
            step=_cut("step", before.size(-1), after.size(-1), stride),
        )

    def _split(self, both: Flow, before: Flow, steps: int, layer: int) -> tuple[Flow, Flow]:
        """The two outputs of the layer that undoes the merge."""
        path, skip = "split_layer", self._skips["both"].pop()
        frames = both.size(-1)
        rows = replace(before, branch="spectral", reach=None, reach_hertz=None, sizes=(
            Size("batch", 1), Size("channel", both.size(1)), Size("bin", 1, "", "kernel"),
            Size("frame", frames),
        ), bin_hertz=self.model.sample_rate / 2)  # fmt: skip
        rows = self.skip_and_gate(path, rows, skip)
        spectral = self.conv_transpose(f"{path}.conv_transpose", rows)
        spectral = self.norm(f"{path}.norm", spectral)
        spectral = _unchanged(replace(spectral, bin_hertz=before.bin_hertz))
        self.part("gelu", spectral, Source(path, part=0), operation="GELU")
        channel = self._mirrored(both, spectral.size(1))
        bins = Size("bin", spectral.size(2), f"1 × {spectral.size(2)}", "kernel")
        spectral = spectral.with_sizes(channel=channel, bin=bins)
        conv = self.module(f"{path}.conv_transpose")
        self.stage("spectral_split", spectral, Source(path, part=0), layer=layer, module=path,
                   skip=skip, operation=_conv_text(conv))  # fmt: skip

        time = replace(_unchanged(both), branch="time")
        time = self.conv_transpose(f"{path}.time_conv_transpose", time, "time_conv_transpose")
        time = self.norm(f"{path}.time_norm", time)
        time = self.cut(time, steps, Source(path, part=1), is_last=False)
        time = time.with_sizes(channel=channel, step=_cut("step", frames, steps))
        conv = self.module(f"{path}.time_conv_transpose")
        self.stage("time_split", time, Source(path, part=1), layer=layer, module=path, skip=skip,
                   operation=_conv_text(conv))  # fmt: skip
        return _unchanged(spectral), _unchanged(time)

    # Demucs

    def demucs(self, model: Demucs) -> None:
        """The stages of the network on the waveform."""
        channels, sources = model.audio_channels, len(model.sources)
        config = model.config
        flow = Flow("time", (
            Size("batch", 1),
            Size("channel", channels, "", "audio_channels"),
            Size("sample", self.samples, "", "given"),
        ))  # fmt: skip
        self.stage("input", flow, None)
        window = config.window_length(self.samples, self.samples)
        steps = Size("step", OVERSAMPLING * window, f"{OVERSAMPLING} × {window}", "window")
        flow = _unchanged(flow)
        flow = replace(flow, sizes=(*flow.sizes[:-1], steps), jump=1 / OVERSAMPLING)
        self.stage("upsampled", flow, Source("upsample"), module="upsample",
                   operation=f"resample × {OVERSAMPLING}",
                   flop=channels * _resampling_flop(model.upsample, window, 1))  # fmt: skip
        flow, lengths = _unchanged(flow), []
        for i in range(len(model.encoder)):
            lengths.append(flow.size(-1))
            path, before = f"encoder.{i}", flow
            flow = self._summary(before, self.encoder(path, flow), i)
            stage = self.stage(
                "encoder", flow, Source(path), layer=i + 1, module=path,
                operation=_conv_text(self.module(path).conv),
            )  # fmt: skip
            self._skips["time"].append(stage.number)
            flow = _unchanged(flow)
        for i in range(len(model.decoder)):
            path, before, skip = f"decoder.{i}", flow, self._skips["time"].pop()
            flow = self.decoder(path, flow, skip, lengths.pop())
            is_last = i == len(model.decoder) - 1
            channel = (
                Size("channel", flow.size(1), f"{sources} × {channels}", "sources")
                if is_last
                else self._mirrored(before, flow.size(1))
            )
            step = _cut("step", before.size(-1), flow.size(-1))
            flow = _unchanged(flow).with_sizes(channel=channel, step=step)
            self.stage(
                "decoder", flow, Source(path), layer=i + 1, module=path, skip=skip,
                operation=_conv_text(self.module(path).conv_transpose),
            )  # fmt: skip
            flow = _unchanged(flow)
        rest = flow.size(-1) // OVERSAMPLING - self.samples
        formula = f"{flow.size(-1)} / {OVERSAMPLING}" + (f" − {rest}" if rest else "")
        sizes = (
            Size("batch", 1),
            Size("source", sources, f"{flow.size(1)} / {channels}", "per_source"),
            Size("channel", channels, "", "audio_channels"),
            Size("sample", self.samples, formula, "length"),
        )
        flop = sources * channels * _resampling_flop(model.downsample, flow.size(-1), OVERSAMPLING)
        flow = replace(flow, sizes=sizes, jump=1.0)
        self.stage("sources", flow, None, operation=f"resample / {OVERSAMPLING}", flop=flop)


def _unchanged(flow: Flow) -> Flow:
    """Return the data without formulas: its sizes are those of the stage before."""
    return replace(flow, sizes=tuple(Size(size.axis, size.value) for size in flow.sizes))


def _channels(flow: Flow, count: int) -> Size:
    """Return the axis of a convolution's output channels."""
    before = flow.size(1)
    if count == before:
        return Size("channel", count)
    if count == 2 * before:
        return Size("channel", count, f"2 × {before}", "doubled")
    return Size("channel", count, "", "conv")


def _strided(axis: str, total: int, stride: int, rest: int, pads: bool) -> Size:
    """Return the axis after a kernel that takes `stride + rest` steps, without its padding.

    Args:
        axis: its name.
        total: its length before.
        stride: of the kernel.
        rest: the steps of the kernel beyond its stride and its padding.
        pads: whether the input is padded to a whole number of strides.
    """
    if stride == 1:
        return Size(axis, total - rest, f"{total} − {rest}", "kernel")
    less = rest // stride
    steps = math.ceil(total / stride) if pads else (total - rest) // stride + less
    formula = f"⌈{total} / {stride}⌉" if pads else _divided(total, stride)
    if less:
        formula += f" − {less}"
    return Size(axis, steps - less, formula, "stride" if pads else "stride_bins")


def _cut(axis: str, steps: int, total: int, stride: int = STRIDE) -> Size:
    """Return the axis after a transposed convolution and the cut to the encoder's length."""
    return Size(axis, total, _times(stride, steps, total - stride * steps), "cut")


def _divided(total: int, stride: int) -> str:
    return f"⌊{total} / {stride}⌋" if total % stride else f"{total} / {stride}"


def _times(stride: int, steps: int, rest: int) -> str:
    """Return "4 × 1011 − 3", for `stride * steps + rest`."""
    text = f"{stride} × {steps}" if stride != 1 else f"{steps}"
    return text + (f" {'−' if rest < 0 else '+'} {abs(rest)}" if rest else "")


def _conv_text(conv: Any) -> str:
    """Return "Conv2d 8×1, stride 4×1, 4 → 48"."""
    kernel = "×".join(map(str, conv.kernel_size))
    text = f"{type(conv).__name__} {kernel}"
    if max(conv.stride) > 1:
        text += f", stride {'×'.join(map(str, conv.stride))}"
    return f"{text}, {conv.in_channels} → {conv.out_channels}"


def _merge_text(merge: Any) -> str:
    """Return "Conv2d 8×1 + Conv1d 8, stride 4, 384 → 768"."""
    spectral = _conv_text(merge.conv).partition(",")[0]
    return f"{spectral} + {_conv_text(merge.time_conv)}"


def _context_flop(context: nn.Module, steps: int) -> float:
    """Return the operations of the LSTM and the attention between the convolutions of a DConv."""
    total = 0.0
    for module in context.children():
        if isinstance(module, ChunkedLSTM):
            chunks = 1 if steps <= CHUNK else math.ceil(steps / (CHUNK // 2))
            computed = steps if steps <= CHUNK else chunks * CHUNK
            weights = sum(p.numel() for p in module.parameters() if p.dim() == 2)
            total += 2.0 * computed * weights
        elif isinstance(module, LocalAttention):
            channels = module.output.in_channels
            weights = sum(p.numel() for p in module.parameters() if p.dim() == 3)
            total += 2.0 * steps * weights + 4.0 * steps * steps * channels
            total += 2.0 * steps * module.fading.out_channels
    return total


def _resampling_flop(module: Any, samples: int, stride: int) -> float:
    """Return the operations of a resampling filter on one channel."""
    filters, _, taps = module.filters.shape
    positions = (samples + 2 * module.width + stride - taps) // stride + 1
    return 2.0 * filters * taps * positions
