"""The words of a trace, in English and Chinese. Stage names are those of the founding table."""

from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
Words = dict[str, tuple[str, str]]  # English, Chinese

STAGES: Words = {
    "input": ("input", "算法输入"),
    "spectrogram": ("spectral input: STFT, complex as channels", "频域输入(STFT输出)"),
    "spectral_input": ("spectral input, normalised", "频域输入(归一化)"),
    "time_input": ("time input, normalised", "时域输入(归一化)"),
    "time_encoder": ("time encoder {}", "时域第{}个编码层输出"),
    "spectral_encoder": ("spectral encoder {}", "频域第{}个编码层输出"),
    "merge": ("merge: encoder {} of both branches", "合并:两个分支的第{}个编码层输出"),
    "joint_encoder": ("joint encoder {}", "共用第{}个编码层输出"),
    "joint_decoder": ("joint decoder {}", "共用第{}个解码层输出"),
    "spectral_split": ("split: spectral decoder {}", "分开:频域第{}个解码层输出"),
    "time_split": ("split: time decoder {}", "分开:时域第{}个解码层输出"),
    "spectral_transformer": ("cross-domain transformer, spectral", "crosstransformer输出频域"),
    "time_transformer": ("cross-domain transformer, time", "crosstransformer输出时域"),
    "spectral_decoder": ("spectral decoder {}", "频域第{}个解码层输出"),
    "time_decoder": ("time decoder {}", "时域第{}个解码层输出"),
    "spectral_output": ("spectral output after the inverse STFT", "频域输出(STFT输出)"),
    "time_output": ("time output, de-normalised", "时域输出(归一化)"),
    "output": ("output: time + spectral", "算法输出(时域输出+频域输出)"),
    "upsampled": ("input at twice the sample rate", "两倍采样率的输入"),
    "encoder": ("encoder {}", "第{}个编码层输出"),
    "decoder": ("decoder {}", "第{}个解码层输出"),
    "sources": ("output", "算法输出"),
    # parts
    "conv": ("convolution", "卷积"),
    "time_conv": ("convolution of the time branch", "时域分支的卷积"),
    "gelu": ("GELU", "GELU"),
    "sum_gelu": ("sum of both branches, GELU", "两个分支相加，GELU"),
    "norm": ("norm", "归一化层"),
    "dconv": ("DConv, residual layer {}", "DConv 第{}个残差层"),
    "rewrite": ("1×1 convolution", "1×1 卷积"),
    "rewrite_wide": ("convolution", "卷积"),
    "glu": ("GLU", "GLU"),
    "frequency_embedding": ("+ frequency embedding", "加上频率嵌入"),
    "skip": ("+ skip connection", "加上跳跃连接"),
    "conv_transpose": ("transposed convolution", "转置卷积"),
    "time_conv_transpose": ("transposed convolution, time branch", "转置卷积（时域分支）"),
    "cut": ("cut to the encoder's length", "截到编码层的长度"),
    "cut_gelu": ("GELU, cut to the encoder's length", "GELU，截到编码层的长度"),
    "band": ("frequency band {}", "第{}个频带"),
    "tokens": ("tokens", "token"),
    "token_norm": ("layer norm", "层归一化"),
    "positions": ("+ positional embedding", "加上位置嵌入"),
    "self_attention": ("layer {}: self-attention, feed-forward", "第{}层：自注意力，前馈"),
    "cross_attention": ("layer {}: cross-attention, feed-forward", "第{}层：交叉注意力，前馈"),
    "channels": ("from tokens to the decoders' shape", "从 token 恢复为解码层的形状"),
}

AXES: Words = {
    "batch": ("batch", "批次"),
    "source": ("source", "音源"),
    "channel": ("channel", "通道"),
    "bin": ("frequency bin", "频点"),
    "frame": ("frame", "帧"),
    "sample": ("sample", "采样点"),
    "step": ("step", "时间步"),
    "token": ("token", "token"),
}

MEANINGS: Words = {
    "audio_channels": ("audio channels", "声道"),
    "given": ("the mixture's length", "混音的长度"),
    "complex": ("channels × (real, imaginary)", "声道 ×（实部，虚部）"),
    "magnitude": ("magnitudes of complex numbers", "复数的模"),
    "nyquist": ("n_fft / 2; the Nyquist bin is dropped", "n_fft / 2，去掉奈奎斯特频点"),
    "hop": ("one frame for each hop", "每个帧移一帧"),
    "width": ("the model's first width", "模型的初始通道数"),
    "growth": ("each layer multiplies the channels", "每层通道数成倍增加"),
    "stride": ("divided by the stride, rounded up", "除以步长，向上取整"),
    "stride_bins": ("divided by the stride", "除以步长"),
    "mirror": ("channels of the encoder at this depth", "同一深度编码层的通道数"),
    "transposed": ("times the stride: a transposed convolution", "乘以步长：转置卷积"),
    "cut": (
        "times the stride: a transposed convolution, cut to the encoder's length",
        "乘以步长：转置卷积，再截到编码层的长度",
    ),
    "sources_complex": (
        "sources × channels × (real, imaginary)", "音源 × 声道 ×（实部，虚部）"
    ),
    "sources": ("sources × channels", "音源 × 声道"),
    "per_source": ("the channels, source by source", "按音源拆分通道"),
    "inverse": ("frames × hop, cut to the mixture", "帧数 × 帧移，截到混音的长度"),
    "kernel": ("the kernel covers all bins", "卷积核覆盖全部频点"),
    "glu": ("a gate for each value", "每个值配一个门"),
    "doubled": ("values and gates", "值和门"),
    "conv": ("output channels", "输出通道数"),
    "per_bin": ("each frequency bin is an item of its own", "每个频点各成一项"),
    "one_by_one": ("frames × bins, frame by frame", "帧 × 频点，逐帧排列"),
    "steps": ("one for each step", "每个时间步一个"),
    "band": ("the bins of this band", "该频带的频点"),
    "bottom": ("the transformer's width", "transformer 的宽度"),
    "window": ("the next length that no layer pads", "各层都无须补零的下一个长度"),
    "upsampled": ("twice the sample rate", "两倍采样率"),
    "length": ("the mixture's length", "混音的长度"),
}  # fmt: skip

FIGURE: Words = {
    "legend": (
        "On arrows: batch, channel, frequency bin, frame or step. Dashed: skip connections.",
        "箭头上：批次，通道，频点，帧或时间步。虚线：跳跃连接。",
    ),
    "shared": ("as in {} up to the transposed convolution", "转置卷积之前与 {} 相同"),
    "self_attention": ("self-attention", "自注意力"),
    "cross_attention": ("cross-attention", "交叉注意力"),
    "skip": ("+ skip", "+ 跳跃连接"),
    "frequency_embedding": ("+ frequency embedding", "+ 频率嵌入"),
}

HEADERS: Words = {
    "number": ("#", "#"),
    "stage": ("stage", "阶段"),
    "shape": ("shape", "形状"),
    "formula": ("derivation", "计算方式"),
    "operation": ("operation", "运算"),
    "step": ("one step", "一步"),
    "reach": ("sees", "感受野"),
    "parameters": ("parameters", "参数"),
    "gflop": ("GFLOP", "GFLOP"),
    "mean": ("mean", "均值"),
    "std": ("std", "标准差"),
    "low": ("lowest", "最小"),
    "high": ("highest", "最大"),
    "zeros": ("zeros", "零值"),
    "closed": ("closed gates", "关闭的门"),
    "ms": ("ms", "毫秒"),
    "mb": ("MB", "MB"),
}

PAGE: Words = {
    "hint": (
        "Choose a box to see how its shape comes about, its parts, its code and its data.",
        "点击方框可查看形状的计算方式、内部各步运算、代码和数据。",
    ),
    "back": ("back to the figure", "回到图"),
    "parts": ("parts", "内部各步运算"),
    "code": ("code", "代码"),
    "skip": ("skip connection from stage", "跳跃连接，来自阶段"),
    "mixture": ("What goes in: the mixture", "输入：混音"),
    "spectrogram": (
        "spectrogram, up to a quarter of the sample rate (dB)",
        "频谱图，显示到采样率的四分之一（dB）",
    ),
    "mask": (
        "mask: this stem's share of all stems' magnitude", "掩码：该音轨在所有音轨幅度中所占的比例"
    ),
    "wave_picture": ("mean of all channels and sources; {0}", "所有通道和音源的平均；{0}"),
    "spectral_picture": (
        "mean magnitude of all channels; to the right {0}, upwards {1}",
        "各通道幅度的平均；横轴 {0}，纵轴 {1}",
    ),
    "spectral_channel": (
        "magnitude of channel {2}; to the right {0}, upwards {1}",
        "通道 {2} 的幅度；横轴 {0}，纵轴 {1}",
    ),
    "time_picture": (
        "magnitude; to the right {0}, a row for each channel", "幅度；横轴 {0}，每行一个通道"
    ),
    "time_channel": ("channel {2}; {0}", "通道 {2}；{0}"),
    "spectral_attention": (
        "Transformer layer {}: what the spectral branch looks at in the time branch",
        "Transformer 第 {} 层：频域分支关注时域分支的哪里",
    ),
    "time_attention": (
        "Transformer layer {}: what the time branch looks at in the spectral branch",
        "Transformer 第 {} 层：时域分支关注频域分支的哪里",
    ),
    "spectral_attention_moments": (
        "upwards: moment of the query; to the right: moment looked at",
        "纵轴：查询的时刻；横轴：被关注的时刻",
    ),
    "spectral_attention_bins": (
        "upwards: frequency of the query; to the right: moment looked at",
        "纵轴：查询的频率；横轴：被关注的时刻",
    ),
    "time_attention_moments": (
        "upwards: moment of the query; to the right: moment looked at",
        "纵轴：查询的时刻；横轴：被关注的时刻",
    ),
    "time_attention_bins": (
        "upwards: frequency looked at; to the right: moment of the query",
        "纵轴：被关注的频率；横轴：查询的时刻",
    ),
}  # fmt: skip

NOTES: Words = {
    "total": ("total", "合计"),
    "colon": (": ", "："),
    "whole": ("the whole segment", "整段"),
    "sample": ("{} sample at {} Hz ({})", "{} 个采样点，采样率 {} Hz（{}）"),
    "samples": ("{} samples at {} Hz ({})", "{} 个采样点，采样率 {} Hz（{}）"),
    "from": (" of {} from {:.1f} s on", "，取自 {} 的第 {:.1f} 秒起"),
    "member": ("network {} of {}", "第 {} 个网络（共 {} 个）"),
    "segments": (
        "{} samples are separated in {} segments of this length: {:,.0f} GFLOP together",
        "{} 个采样点会切成 {} 个这样长的片段分离，共 {:,.0f} GFLOP",
    ),
    "shortened": (
        "{} samples are more than the network separates at a time; a segment is shown",
        "{} 个采样点超过该网络一次能处理的长度，这里显示一个片段",
    ),
    "alike": ("all {} networks of this bag have these shapes", "该模型的 {} 个网络形状都相同"),
    "differ": (
        "networks {1} of this bag's {0} have these shapes; choose another by --member",
        "该模型的 {0} 个网络中，第 {1} 个是这样的形状；用 --member 选择其他网络",
    ),
}


def words(table: Words, key: str, language: Language) -> str:
    """Return a text in a language."""
    return table[key][LANGUAGES.index(language)]


def label_of(key: str, layer: int | None, language: Language) -> str:
    """Return the name of a stage."""
    return words(STAGES, key, language).format(layer)
