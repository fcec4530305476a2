import base64
import re
import xml.etree.ElementTree as ElementTree

import av
import pytest
import torch

from evaluation_data import STEMS, write_track
from htdemucs.evaluation import EvaluationOptions, evaluate, figures, to_html, write_report
from htdemucs.evaluation.spectra import BANDS, BandSpectrogram


@pytest.fixture
def evaluation(data, estimates):
    write_track(data / "three <b>", 5, 100)  # there are no estimates of it
    return evaluate(data, EvaluationOptions("a <model>", estimates=estimates, spectra=True))


def test_the_page_is_whole_and_needs_nothing_else(evaluation, tmp_path):
    write_report(evaluation, tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text()
    assert page == to_html(evaluation)
    assert "a &lt;model&gt;: evaluation" in page
    assert "three &lt;b&gt;: there is no estimate" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    body = page[page.index("<body>") :].replace("</html>", "")
    body = re.sub(r"(<img [^>]*)>", r"\1/>", body)
    ElementTree.fromstring(body)  # every tag is closed
    assert page.count("<svg") == 3
    assert page.count("<img") == 2 * 2 * len(STEMS)


def test_pictures_are_png_files(evaluation, tmp_path):
    encoded = re.search(r"base64,([^\"]+)", to_html(evaluation))[1]
    (tmp_path / "picture.png").write_bytes(base64.b64decode(encoded))
    with av.open(str(tmp_path / "picture.png")) as container:
        [frame] = container.decode(video=0)
    assert (frame.height, frame.width) == (
        BANDS,
        13,
    )  # four columns a second, and one for what is left


def test_a_box_plot_of_odd_values():
    svg = figures.box_plot({"bass": {"model": [1.0, 2.0, float("nan")], "oracle": []}})
    ElementTree.fromstring(svg)
    assert svg.count("<circle") == 2
    ElementTree.fromstring(figures.box_plot({"<>": {"model": []}}))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-72.8, 33), (5.01, 5.02), (-0.1, 300)])
def test_ticks_are_round_and_surround_the_values(low, high):
    ticks = figures._ticks(low, high)
    assert ticks[0] <= low
    assert high <= ticks[-1]
    assert 2 <= len(ticks) <= 11


@pytest.mark.parametrize("rate", [8000, 44_100])
def test_a_tone_is_where_it_belongs(rate):
    spectrogram = BandSpectrogram(rate)
    time = torch.arange(3 * rate + 100) / rate
    tone = torch.sin(2 * torch.pi * 1000 * time).expand(1, 2, -1)
    for frame in tone.split(rate, dim=-1):
        spectrogram.push(frame)
    powers = spectrogram.powers()
    assert powers.shape == (1, BANDS, 13)
    position = torch.log2(torch.tensor(1000 / 40)) / torch.log2(torch.tensor(rate / 2 / 40))
    assert abs(int(powers[0, :, 5].argmax()) - int(position * BANDS)) <= 1
