"""The page that walks through the network says what the trace says."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

import generate
import htdemucs
from htdemucs import HTDemucsConfig, trace
from htdemucs.tracing.document import SEPARATORS, formulas, step_text

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"network.md": "en", "network.zh-CN.md": "zh"}
CONFIG = HTDemucsConfig()
STAGES = trace(CONFIG, samples=generate.FOUNDING_LENGTH, depth=2)
OTHER = {
    "44100", "5.86",  # the rate, and 258602 samples of it
    "1", "2211.08553",  # the figure and the paper
    "2049", "0",  # bins with the Nyquist frequency; the lowest frequency
    "343980",  # a segment
}  # fmt: skip


def read(page):
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "language"), PAGES.items())
def test_the_tables_are_the_trace(page, language):
    rows = re.findall(r"^\| (\d+) \| (.+?) \| ([\d, ]+) \| (.*?) ?\|$", read(page), re.M)
    expected = [
        (
            s.number,
            s.label(language),
            ", ".join(map(str, s.shape)),
            SEPARATORS[language].join(formulas(s, language)),
        )
        for s in STAGES
        if s.depth == 1
    ]
    assert rows == expected


@pytest.mark.parametrize("page", PAGES)
def test_every_number_in_the_text_is_one_of_the_trace(page):
    text = re.sub(r"```.*?```", "", read(page), flags=re.S)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|^\|.*$", "", text, flags=re.M)
    known = OTHER | {str(value) for stage in STAGES for value in stage.shape}
    for stage in STAGES:
        sayings = [stage.number, stage.operation, step_text(stage.resolution)]
        sayings += [size.formula for size in stage.sizes]
        known |= {number for saying in sayings for number in re.findall(r"[\d.]+", saying)}
    numbers = set(re.findall(r"\d+(?:\.\d+)?", text))
    assert numbers - known == set()
    assert {"253", "2756", "10.77", "23.2", "5.8", "4044", "2024", "16"} <= numbers


@pytest.mark.parametrize("page", PAGES)
def test_the_code_is_that_of_the_model(page):
    folder = Path(htdemucs.__file__).parent / "model"
    source = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    lines = {line.strip() for line in source.splitlines()}
    blocks = re.findall(r"```python\n(.*?)```", read(page), re.S)[:-1]  # the last is an example
    assert len(blocks) == 5
    for block in blocks:
        for line in block.splitlines():
            assert line.strip() in lines, line


@pytest.mark.parametrize("figure", generate.FIGURES)
def test_the_figures_are_drawn_from_the_trace(figure):
    assert read(figure) == generate.network_figure(generate.FIGURES[figure]), (
        "run: python docs/generate.py"
    )


def test_both_languages_have_the_same_code_and_numbers():
    english, chinese = (read(page) for page in PAGES)
    assert [len(re.findall(r"^## ", text, re.M)) for text in (english, chinese)] == [6, 6]
    for first, second in pairwise([english, chinese]):
        blocks = [re.findall(r"```python\n(.*?)```", text, re.S)[:-1] for text in (first, second)]
        assert blocks[0] == blocks[1]
        bold = [set(re.findall(r"\d{3,}", text)) for text in (first, second)]
        assert bold[0] == bold[1]
