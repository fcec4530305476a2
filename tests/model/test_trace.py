import pytest
import torch

from helpers import TINY
from htdemucs import ConfigError, HTDemucs, HTDemucsConfig
from htdemucs.model.trace import trace

FOUNDING_TABLE = [
    ("算法输入", (1, 2, 258602)),
    ("频域输入(STFT输出)", (1, 4, 2048, 253)),
    ("频域输入(归一化)", (1, 4, 2048, 253)),
    ("时域输入(归一化)", (1, 2, 258602)),
    ("时域第1个编码层输出", (1, 48, 64651)),
    ("频域第1个编码层输出", (1, 48, 512, 253)),
    ("时域第2个编码层输出", (1, 96, 16163)),
    ("频域第2个编码层输出", (1, 96, 128, 253)),
    ("时域第3个编码层输出", (1, 192, 4041)),
    ("频域第3个编码层输出", (1, 192, 32, 253)),
    ("时域第4个编码层输出", (1, 384, 1011)),
    ("频域第4个编码层输出", (1, 384, 8, 253)),
    ("crosstransformer输出频域", (1, 384, 8, 253)),
    ("crosstransformer输出时域", (1, 384, 1011)),
    ("频域第1个解码层输出", (1, 192, 32, 253)),
    ("时域第1个解码层输出", (1, 192, 4041)),
    ("频域第2个解码层输出", (1, 96, 128, 253)),
    ("时域第2个解码层输出", (1, 96, 16163)),
    ("频域第3个解码层输出", (1, 48, 512, 253)),
    ("时域第3个解码层输出", (1, 48, 64651)),
    ("频域第4个解码层输出", (1, 16, 2048, 253)),
    ("时域第4个解码层输出", (1, 8, 258602)),
    ("频域输出(STFT输出)", (1, 4, 2, 258602)),
    ("时域输出(归一化)", (1, 4, 2, 258602)),
    ("算法输出(时域输出+频域输出)", (1, 4, 2, 258602)),
]


def test_stages_are_those_of_the_founding_table():
    stages = trace(HTDemucsConfig(), 258_602, "zh")
    assert [(stage.label, stage.shape) for stage in stages] == FOUNDING_TABLE


def test_every_parameter_belongs_to_one_stage():
    stages = trace(HTDemucsConfig(), 1000)
    assert sum(stage.parameters for stage in stages) == 41_984_456


def test_arithmetic_of_one_segment_is_the_published_figure():
    flop = sum(stage.flop for stage in trace(HTDemucsConfig(), 343_980))
    assert flop == pytest.approx(335e9, rel=0.01)


def test_shapes_are_those_of_a_real_run():
    config = HTDemucsConfig(**TINY)
    model = HTDemucs(config).eval()
    mixture = torch.randn(1, 2, 3001)
    with torch.no_grad():
        time, spectral = model.core(mixture, model.spectrogram(mixture))
    shapes = {stage.label: stage.shape for stage in trace(config, 3001)}
    assert shapes["time output, de-normalised"] == tuple(time.shape)
    assert shapes["spectral decoder 2"][1:] == (spectral.shape[1] * 4, 256, spectral.shape[-1])


def test_without_a_transformer_there_are_no_transformer_rows():
    config = HTDemucsConfig(**TINY | {"t_layers": 0, "bottom_channels": 0})
    assert not any("transformer" in stage.label for stage in trace(config, 100))


def test_a_length_of_zero_is_refused():
    with pytest.raises(ConfigError, match="samples"):
        trace(HTDemucsConfig(), 0)
