"""The page that `htdemucs trace SONG -o FILE` writes, in Chromium."""

import pytest
from click.testing import CliRunner

from helpers import noise_song
from htdemucs.cli.main import cli

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trace")
    song, path = noise_song(folder / "song.wav"), folder / "song.html"
    result = CliRunner().invoke(cli, ["trace", str(song), "-n", "mini", "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path.as_uri()


@pytest.fixture
def open_trace(browser, address):
    """Return a function that opens the page; requests and errors fail the test."""
    contexts, problems = [], []

    def open_trace(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: _is_outside(request) and problems.append(request.url))
        page.goto(address)
        return page

    yield open_trace
    for context in contexts:
        context.close()
    assert problems == []


def _is_outside(request):
    return not request.url.startswith(("file:", "data:"))


def test_a_box_leads_to_its_stage_by_mouse_and_keyboard(open_trace):
    page = open_trace()
    page.click("#figure [lang=en] a[href='#stage-10'] rect")
    article = page.locator("#stage-10")
    assert article.is_visible()
    assert "spectral encoder 3" in article.inner_text()
    assert article.locator("img").evaluate("image => image.naturalWidth") > 0
    assert page.evaluate("document.querySelector('#stage-10').getBoundingClientRect().top") < 200
    page.focus("#figure [lang=en] a[href='#stage-12']")
    page.keyboard.press("Enter")
    assert page.url.endswith("#stage-12")
    page.locator("#stage-12 summary").first.click()
    assert "12.5" in page.locator("#stage-12 table").last.inner_text()


def test_both_languages(open_trace):
    page = open_trace()
    assert page.locator("text=时域第1个编码层输出").first.is_hidden()
    page.click("#language")
    assert page.locator("#stage-5").inner_text().startswith("5 时域第1个编码层输出")
    ends = page.locator("#figure [lang=zh] path[marker-end]")
    markers = {end.get_attribute("marker-end") for end in ends.all()}
    assert [page.locator(f"#figure [lang=zh] {m[4:-1]}").count() for m in markers] == [1]
    assert page.evaluate("document.documentElement.lang") == "zh"


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_nothing_is_wider_than_the_screen(open_trace, width):
    page = open_trace(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_no_text_leaves_its_box(open_trace):
    """The layout only estimates the width of a text."""
    page = open_trace()
    for language in ("en", "zh"):
        outside = page.evaluate("""language => {
            const texts = document.querySelectorAll(`#figure [lang=${language}] a text`);
            return [...texts].filter((text) => {
                const a = text.getBBox(), b = text.closest("a").querySelector("rect").getBBox();
                return a.x < b.x || a.x + a.width > b.x + b.width
                    || a.y < b.y || a.y + a.height > b.y + b.height;
            }).map((text) => text.textContent);
        }""", language)  # fmt: skip
        assert outside == []
        page.click("#language")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_reports_no_violations(open_trace, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page = open_trace(color_scheme=scheme)
    result = axe.Axe().run(page)
    assert result.violations_count == 0, result.generate_report()
