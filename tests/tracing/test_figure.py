"""Nothing in the figure overlaps, and it says what the stages say."""

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htdemucs import DemucsConfig, HDemucsConfig, HTDemucsConfig
from htdemucs.model.architectures import network_class
from htdemucs.tracing import stages_of
from htdemucs.tracing.figure import HEIGHT, figure, layout, rectangles

LANGUAGES = ["en", "zh"]
CONFIGS = st.one_of(
    st.builds(
        lambda depth, sources, layers: HTDemucsConfig(
            depth=depth, channels=8, t_layers=layers, bottom_channels=16 if layers else 0,
            t_heads=4, sources=[f"source {i}" for i in range(sources)],
        ),
        st.integers(1, 4), st.integers(2, 8), st.integers(0, 5),
    ),
    st.builds(
        lambda depth, sources, bands: HDemucsConfig(
            depth=depth, channels=8, sources=[f"source {i}" for i in range(sources)],
            multi_freqs=bands,
        ),
        st.integers(5, 8), st.integers(2, 8), st.sampled_from([(), (0.3, 0.6)]),
    ),
    st.builds(lambda depth: DemucsConfig(depth=depth, channels=8), st.integers(1, 6)),
)  # fmt: skip
SAMPLES = st.sampled_from([1, 258_602, 343_980, 26_460_000]) | st.integers(1, 10**8)


def stages(config, samples):
    return stages_of(network_class(config).empty(config), samples, 2)


@given(CONFIGS, SAMPLES, st.sampled_from(LANGUAGES))
@settings(max_examples=20)
def test_nothing_overlaps(config, samples, language):
    drawing = layout(stages(config, samples), "a title " * 10, language)
    found = list(rectangles(drawing))
    for first, second in combinations(found, 2):
        apart = (
            first[2] <= second[0] or second[2] <= first[0]
            or first[3] <= second[1] or second[3] <= first[1]
        )  # fmt: skip
        assert apart, (first, second)
    assert all(r[0] >= 0 and r[2] <= drawing.width and r[3] <= drawing.height for r in found)
    for box in drawing.boxes:
        assert len(box.lines) <= 3
        for line in box.lines:
            assert box.x < line.left
            assert line.left + line.width < box.x + box.width
            assert box.y < line.y - 0.8 * line.size
            assert line.y + 0.2 * line.size < box.y + HEIGHT


@given(CONFIGS, SAMPLES)
@settings(max_examples=20)
def test_lines_cross_neither_boxes_nor_shapes_nor_each_other(config, samples):
    drawing = layout(stages(config, samples), "title")
    pieces = []
    for n, line in enumerate(drawing.lines):
        pieces += [(n, a, b) for a, b in zip(line.points, line.points[1:], strict=False)]
    for _, (x1, y1), (x2, y2) in pieces:
        left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        for box_left, box_top, box_right, box_bottom, name in rectangles(drawing):
            outside = (
                right <= box_left or box_right <= left or bottom <= box_top or box_bottom <= top
            )
            assert outside, (name, (x1, y1), (x2, y2))
    for (n, a1, a2), (m, b1, b2) in combinations(pieces, 2):
        if n == m or (a1[0] == a2[0]) == (b1[0] == b2[0]):
            continue
        (x, _), (_, y) = (a1, b1) if a1[0] == a2[0] else (b1, a1)
        down, across = ((a1, a2), (b1, b2)) if a1[0] == a2[0] else ((b1, b2), (a1, a2))
        inside = min(across[0][0], across[1][0]) < x < max(across[0][0], across[1][0])
        assert not (inside and min(down[0][1], down[1][1]) < y < max(down[0][1], down[1][1]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_figure_has_every_stage_and_shape(language):
    table = stages(HTDemucsConfig(), 258_602)
    svg = figure(table, "htdemucs", language, links=True)
    root = ElementTree.fromstring(svg)
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    links = re.findall(r'href="#stage-(\d+)"', svg)
    whole = [stage for stage in table if stage.depth == 1]
    assert sorted(links, key=int) == [stage.number for stage in whole]
    for stage in whole:
        assert f"{stage.number}  {stage.label(language)}" in texts
        if stage.key != "output":
            assert ", ".join(map(str, stage.shape)) in texts
    assert "Conv2d 8×1, stride 4×1, 4 → 48" in texts
    assert "href" not in figure(table, "htdemucs", language)
