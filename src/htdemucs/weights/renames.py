"""The published networks' parameter names."""

import re
from collections.abc import Callable, Iterator

from htdemucs.model import DemucsConfig, HDemucsConfig, NetworkConfig
from htdemucs.model.config import ContextConfig

Rules = tuple[tuple[str, str], ...]  # our names -> the published ones, applied in order

# Layers of the transformer alternate: even ones attend to their own branch, odd ones to the other.
_HTDEMUCS: Rules = (
    (r"^(spectral|time)_(en|de)coder\.", r"\1 \2coder."),
    (r"^spectral ", ""),
    (r"^time ", "t"),
    (r"\.conv_transpose\.", ".conv_tr."),
    (r"^frequency_embedding\.table$", "freq_emb.embedding.weight"),
    (r"^transformer\.spectral_in\.", "channel_upsampler."),
    (r"^transformer\.spectral_out\.", "channel_downsampler."),
    (r"^transformer\.time_in\.", "channel_upsampler_t."),
    (r"^transformer\.time_out\.", "channel_downsampler_t."),
    (r"^transformer\.spectral_norm\.", "crosstransformer.norm_in."),
    (r"^transformer\.time_norm\.", "crosstransformer.norm_in_t."),
    (r"^transformer\.spectral_layers\.", "crosstransformer.layers."),
    (r"^transformer\.time_layers\.", "crosstransformer.layers_t."),
    (r"\.(\d*[02468])\.attention\.", r".\1.self_attn."),
    (r"\.(\d*[13579])\.attention\.", r".\1.cross_attn."),
    (r"_attn\.projection\.", "_attn.in_proj_"),
    (r"_attn\.output\.", "_attn.out_proj."),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.context_norm\.", ".norm2."),
    (r"\.(\d*[02468])\.feed_forward_norm\.", r".\1.norm2."),
    (r"\.(\d*[13579])\.feed_forward_norm\.", r".\1.norm3."),
    (r"\.feed_forward\.", "."),
    (r"\.attention_scale\.", ".gamma_1."),
    (r"\.feed_forward_scale\.", ".gamma_2."),
)


def renaming(config: NetworkConfig) -> Callable[[str], str]:
    """Return the function from a parameter's name to its published name."""
    rules = _HTDEMUCS
    if isinstance(config, HDemucsConfig):
        rules = _hdemucs(config)
    if isinstance(config, DemucsConfig):
        rules = _demucs(config)
    compiled = [(re.compile(ours), theirs) for ours, theirs in (*rules, *_dconv(config))]

    def rename(name: str) -> str:
        for ours, theirs in compiled:
            name = ours.sub(theirs, name)
        return name

    return rename


def _hdemucs(config: HDemucsConfig) -> Rules:
    """Published encoders and decoders go through merge and split; norms have numbers."""
    outer, inner = config.outer_depth, config.depth - config.outer_depth - 1
    return (
        (r"^merge\.time_conv\.", f"tencoder.{outer}.conv."),
        (r"^split\.time_conv_transpose\.", "tdecoder.0.conv_tr."),
        (r"^split\.time_norm\.", "tdecoder.0.norm2."),
        *((rf"^joint_encoder\.{i}\.", f"encoder.{outer + 1 + i}.") for i in range(inner)),
        *((rf"^joint_decoder\.{i}\.", f"decoder.{i}.") for i in range(inner)),
        (r"^merge\.", f"encoder.{outer}."),
        (r"^split\.", f"decoder.{inner}."),
        *((rf"^time_decoder\.{i}\.", f"tdecoder.{i + 1}.") for i in range(outer)),
        *((rf"^spectral_decoder\.{i}\.", f"decoder.{inner + 1 + i}.") for i in range(outer)),
        (r"^spectral_encoder\.", "encoder."),
        (r"^time_encoder\.", "tencoder."),
        (r"^(encoder\.\d+)\.norm\.", r"\1.norm1."),
        (r"^(encoder\.\d+)\.rewrite_norm\.", r"\1.norm2."),
        (r"^(decoder\.\d+)\.rewrite_norm\.", r"\1.norm1."),
        (r"^(decoder\.\d+)\.norm\.", r"\1.norm2."),
        (r"\.conv_transpose\.", ".conv_tr."),
        (r"^frequency_embedding\.table$", "freq_emb.embedding.weight"),
    )


def _demucs(config: DemucsConfig) -> Rules:
    """Published layers are sequences, in which functions have numbers too."""
    after = 4 if config.dconv_mode == 3 else 3
    encoder = {"conv": 0, "norm": 1, "dconv": 3, "rewrite": 4, "rewrite_norm": 5}
    decoder = {
        "rewrite": 0, "rewrite_norm": 1, "dconv": 3, "conv_transpose": after, "norm": after + 1,
    }  # fmt: skip
    return tuple(
        (rf"^({side}\.\d+)\.{ours}\.", rf"\1.{theirs}{'.' if ours != 'dconv' else '.dconv.'}")
        for side, numbers in (("encoder", encoder), ("decoder", decoder))
        for ours, theirs in numbers.items()
    )


def _dconv(config: NetworkConfig) -> Iterator[tuple[str, str]]:
    """Published DConvs are sequences too, longer by an LSTM and attention in inner layers."""
    innermost = {"encoder": 0, "tencoder": 0, "decoder": config.depth - 1}
    innermost["tdecoder"] = config.outer_depth if isinstance(config, HDemucsConfig) else 0
    word = "" if isinstance(config, DemucsConfig) else "dconv."
    for side, last in innermost.items():
        for number in range(config.depth):
            layer = abs(last - number)
            lstm = isinstance(config, ContextConfig) and layer >= config.dconv_lstm
            attention = isinstance(config, ContextConfig) and layer >= config.dconv_attn
            after = 3 + lstm + attention
            positions = {
                "squeeze": 0, "squeeze_norm": 1, "context.lstm": 3, "context.attention": 3 + lstm,
                "expand": after, "expand_norm": after + 1, "layer_scale": after + 3,
            }  # fmt: skip
            for ours, theirs in positions.items():
                pattern = rf"^({side}\.{number}\..*?)dconv\.(\d+)\.{re.escape(ours)}\."
                yield pattern, rf"\1{word}layers.\2.{theirs}."
    yield r"\.fading\.", ".query_decay."
    yield r"\.(\d)\.output\.", r".\1.proj."
