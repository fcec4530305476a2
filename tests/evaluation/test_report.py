import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import av
import pytest
import torch

from evaluation_data import LENGTHS, STEMS, noise, write, write_track
from htdemucs.evaluation import EvaluationOptions, evaluate, plots, to_html, write_report
from htdemucs.evaluation.band_spectrogram import BANDS, BandSpectrogram


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
    )  # four columns a second, and one for the rest


def test_a_box_plot_of_odd_values():
    svg = plots.box_plot({"bass": {"model": {"one": 1.0, "<two>": 2.0}, "oracle": {}}})
    ElementTree.fromstring(svg)
    assert svg.count("<circle") == 2
    assert "<title>&lt;two&gt;: 2.00</title>" in svg
    ElementTree.fromstring(plots.box_plot({"<>": {"model": {}}}))


def test_a_box_is_where_its_numbers_are():
    """Quartiles 2 and 4 of 1 to 5: the box covers half of the axis from 1 to 5."""
    points = {str(value): float(value) for value in range(1, 6)}
    root = ElementTree.fromstring(plots.box_plot({"bass": {"model": points}}))
    [box] = root.iter("rect")
    heights = [float(circle.get("cy")) for circle in root.iter("circle")]
    assert float(box.get("y")) == heights[3]
    assert float(box.get("y")) + float(box.get("height")) == pytest.approx(heights[1], abs=0.11)
    assert heights == sorted(heights, reverse=True)


def test_silent_stems_leave_no_point_and_are_counted(data, estimates):
    write(data / "one" / "drums.wav", torch.zeros(2, 100))
    page = to_html(evaluate(data, EvaluationOptions("x", estimates=estimates)))
    assert page.count("<circle") == 2 * 4 * 3 * 3 - 3 * 3 - 3 * 3  # museval's: of every stem
    assert "left out of its averages: drums in 1" in page
    assert page.count('colspan="3">silent</td>') == 1


def test_pictures_of_a_track_have_the_scale_of_its_loudest_stem(data, estimates):
    """The error of a silent stem is as dark as it is faint, and not scaled by the silence."""
    write(data / "one" / "drums.wav", torch.zeros(2, LENGTHS["one"]))
    write(estimates / "one" / "drums.wav", 1e-3 * noise(7, LENGTHS["one"]))
    page = to_html(evaluate(data, EvaluationOptions("x", estimates=estimates, spectra=True)))
    row = page[page.index("drums<br/>") :]
    assert "<small>silent</small>" in row[: row.index("<img")]
    error = row[row.index('alt="error of drums"') :]
    with av.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", error)[1]))) as file:
        [frame] = file.decode(video=0)
    assert 2 < frame.to_ndarray(format="gray").mean() < 90


def test_undefined_scores_leave_no_point(data, estimates, truth):
    write(estimates / "one" / "bass.wav", truth["one"][0])  # infinite where undisturbed
    page = to_html(evaluate(data, EvaluationOptions("x", estimates=estimates)))
    assert page.count("<circle") == 2 * 4 * 3 * 3 - 2


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-72.8, 33), (5.01, 5.02), (-0.1, 300)])
def test_ticks_are_round_and_surround_the_values(low, high):
    ticks = plots._ticks(low, high)
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
