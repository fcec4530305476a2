"""The table that the project was founded on, and the published figures."""

import pytest

from htdemucs import HTDemucsConfig, trace

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
    stages = trace(HTDemucsConfig(), samples=258_602)
    assert [(stage.label("zh"), stage.shape) for stage in stages] == FOUNDING_TABLE


def test_parameters_and_operations_are_the_published_figures():
    stages = trace(HTDemucsConfig(), samples=343_980)
    assert sum(stage.parameters for stage in stages) == 41_984_456
    assert sum(stage.flop for stage in stages) == pytest.approx(335e9, rel=0.01)
