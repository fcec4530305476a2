"""Layout on every screen, touch, keyboard, accessibility and languages."""

import re

import pytest

from htdemucs import errors
from htdemucs.serve.jobs import WORKER_DIED
from page.server import PAGE

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL = """() => [...document.querySelectorAll("button, a[href], input, select, [role=slider]")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !each.matches(".skip-link, [type=checkbox], [type=radio]"))
  .map((each) => [each.outerHTML.slice(0, 90), each.getBoundingClientRect()])
  .filter(([, box]) => box.height < 43.5 || box.width < 43.5)
  .map(([html, box]) => `${html}: ${box.width} x ${box.height}`)"""


def fill(server):
    song = server.add("Solar.flac", 20, artist="Miles Davis", album="Walkin'")
    working = server.add("Oleo.mp3", 20, state="queued")
    server.separate(working, 6.0)
    server.add("Airegin.mp3", 20, state="queued")
    server.add("Noise.bin", 2, state="failed", error="This file holds no sound.")
    return song


def dialogs(page):
    """Open each dialog in turn."""
    yield page.locator("[data-pick-model]").first, "#model-dialog"
    yield page.locator("#shortcuts-open"), "#shortcuts-dialog"
    yield page.locator("#settings-open"), "#settings-dialog"
    yield page.locator(".track-header .primary").filter(visible=True), "#download-dialog"


@pytest.mark.parametrize("place", ["empty", "list", "track"])
def test_nothing_overflows_and_every_touch_target_has_44_pixels(open_page, server, place):
    song = fill(server) if place != "empty" else None
    page = open_page(f"#{song.id}" if place == "track" else "", **PHONE)
    if song:
        page.wait_for_function("() => app.tracks.size > 0")
    for width, height in ((390, 844), (844, 390), (820, 1180)):  # upright, on its side, a tablet
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(SMALL) == []


def test_six_stems_have_six_lanes_on_every_screen(open_page, server):
    stems = ("drums", "bass", "other", "vocals", "guitar", "piano")
    song = server.add("Six.flac", 6, stems=stems, model="htdemucs_6s")
    page = open_page(f"#{song.id}")
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        boxes = [lane.bounding_box() for lane in page.locator(".wave.stem").all()]
        assert len(boxes) == 6
        assert min(box["height"] for box in boxes) >= 60
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.keyboard.press("6")
    assert page.evaluate("app.player.mix.piano.mute")
    page.keyboard.press("Space")
    page.wait_for_function("() => app.player.mixer?.level(4) > 0.01")  # guitar
    assert page.evaluate("app.player.mixer.channels") == 14


def test_the_transport_bar_stays_at_the_bottom_and_covers_no_lane(open_page, server):
    song = fill(server)
    page = open_page(f"#{song.id}")
    edges = """(name) => {
      const { top, bottom } = [...document.querySelectorAll(name)].at(-1).getBoundingClientRect();
      return [Math.round(top), Math.round(bottom)];
    }"""
    for width, height in ((1280, 2000), (1280, 800), (1280, 420), (390, 844), (844, 390)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 0)")
        assert page.evaluate(edges, ".transport")[1] == height
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        top, bottom = page.evaluate(edges, ".transport")
        assert bottom == height
        assert page.evaluate(edges, ".lane")[1] <= top
        assert bottom - top <= page.evaluate(
            "parseInt(getComputedStyle(document.documentElement).scrollPaddingBottom)"
        )


def test_on_a_phone_the_list_and_the_track_are_separate_pages(open_page, server):
    fill(server)
    page = open_page(**PHONE)
    page.locator(".row", has_text="Solar").tap()
    page.locator("#title", has_text="Solar").wait_for()
    assert not page.locator(".sidebar").is_visible()
    page.get_by_role("link", name="Back to the list").tap()
    page.locator(".row", has_text="Solar").wait_for()
    assert not page.locator("#title").is_visible()


def test_a_tap_seeks(open_page, server):
    song = fill(server)
    page = open_page(f"#{song.id}", **PHONE)
    lane = page.locator(".wave.stem").first
    lane.scroll_into_view_if_needed()
    box = lane.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 10)
    assert page.evaluate("app.player.position / 44100") == pytest.approx(10, abs=0.1)


def drag(page, start, end):
    """Drag a finger across the screen, which the browser may take for scrolling."""
    finger = page.context.new_cdp_session(page)
    for kind, share in (("Start", 0), ("Move", 0.3), ("Move", 0.7), ("Move", 1), ("End", None)):
        point = share is not None and {
            axis: start[axis] + share * (end[axis] - start[axis]) for axis in ("x", "y")
        }
        points = {"type": f"touch{kind}", "touchPoints": [point] if point else []}
        finger.send("Input.dispatchTouchEvent", points)


def test_a_finger_selects_a_loop_on_the_ruler_and_moves_its_handles(open_page, server):
    song = fill(server)
    page = open_page(f"#{song.id}", **PHONE)
    page.locator(".ruler").scroll_into_view_if_needed()
    box = page.locator(".ruler").bounding_box()
    left, width, y = box["x"], box["width"], box["y"] + 20
    drag(page, {"x": left + 0.5 * width, "y": y}, {"x": left + 0.75 * width, "y": y + 4})
    page.wait_for_function("() => app.player.loop?.on")
    loop = page.evaluate("app.player.loop")
    assert [loop["from"] / 44_100, loop["to"] / 44_100] == pytest.approx([10, 15], abs=0.3)
    assert page.evaluate(SMALL) == []
    handle = page.get_by_role("slider", name="Loop end").bounding_box()
    start = {"x": handle["x"] + 20, "y": handle["y"] + 20}
    drag(page, start, start | {"x": start["x"] - 0.1 * width})
    page.wait_for_function("() => app.player.loop.to < 14 * 44100")
    assert page.evaluate("app.player.loop.to / 44100") == pytest.approx(13, abs=0.3)
    page.get_by_role("slider", name="Loop start").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("app.player.loop.from") == loop["from"] - 2 * 44_100
    position = page.evaluate("app.player.position")
    before = page.evaluate("scrollY")
    drag(page, {"x": 200, "y": y + 10}, {"x": 200, "y": y - 190})  # upwards, which scrolls
    page.wait_for_function("(before) => scrollY > before + 20", arg=before)
    assert page.evaluate("[app.player.position, app.player.loop.from]") == [
        position,
        loop["from"] - 2 * 44_100,
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["empty", "list", "track"])
def test_axe_reports_no_violations(open_page, server, place, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    song = fill(server) if place != "empty" else None
    options = {"color_scheme": scheme, "reduced_motion": "reduce"}  # no colour in transition
    page = open_page(f"#{song.id}" if place == "track" else "", **options)
    if song:
        page.wait_for_function("() => app.tracks.size > 0")
    if place == "track":
        page.evaluate("app.player.setLoop({ from: 44100, to: 88200, on: true })")
    results = [axe.Axe().run(page)]
    if place == "track":
        for button, dialog in dialogs(page):
            button.click()
            results.append(axe.Axe().run(page))
            page.keyboard.press("Escape")
            page.locator(dialog).wait_for(state="hidden")
    violations = [violation for result in results for violation in result.response["violations"]]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in violations] == []


def test_the_keyboard_alone_is_enough(open_page, server):
    song = fill(server)
    page = open_page()
    page.locator(".row", has_text="Solar").wait_for()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.row-link')"):
            break
    for _ in range(20):
        if page.evaluate("document.activeElement.getAttribute('href')") == f"#{song.id}":
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#title", has_text="Solar").wait_for()
    state = "() => app.player.state"
    page.keyboard.press("Space")
    page.wait_for_function("() => app.player.state === 'playing'")
    page.keyboard.press("Space")
    assert page.evaluate(state) == "paused"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("i")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("o")
    assert page.evaluate("app.player.loop") == {"from": 220_500, "to": 264_600, "on": True}
    page.keyboard.press("l")
    assert not page.evaluate("app.player.loop.on")
    page.keyboard.press("2")
    page.keyboard.press("Shift+4")
    mix = page.evaluate("app.player.mix")
    assert (mix["bass"]["mute"], mix["vocals"]["solo"]) == (True, True)
    page.keyboard.press("b")
    assert page.evaluate("app.player.original")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("slider", name="Position").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("app.player.position") == 10 * 44_100  # the new loop began at 5 s


def test_space_plays_after_a_dialog_that_was_opened_by_mouse(open_page, server):
    """A closed dialog returns the focus to its button, which Space would press again."""
    song = fill(server)
    page = open_page(f"#{song.id}")
    for button, dialog in dialogs(page):
        button.click()
        page.locator(dialog).wait_for()
        page.keyboard.press("Escape")
        page.locator(dialog).wait_for(state="hidden")
        page.wait_for_timeout(150)  # the focus moves meanwhile
        page.keyboard.press("Space")
        page.wait_for_function("() => app.player.state === 'playing'")
        page.keyboard.press("Space")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page_works_without_scripts(browser, start_server, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    server = start_server(token="open sesame")
    page = browser.new_page(color_scheme=scheme, locale="en-GB")
    page.goto(server.url)
    assert axe.Axe().run(page).response["violations"] == []
    page.close()
    page = browser.new_page(java_script_enabled=False, locale="en-GB")
    page.goto(f"{server.url}#t1")
    page.get_by_label("Token").fill("simsalabim")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("This is not the server's token").wait_for()
    page.get_by_label("Token").fill("open sesame")
    page.get_by_role("button", name="Open").click()
    page.locator("#welcome").wait_for(state="attached")
    assert page.url == f"{server.url}#t1"  # without the token
    page.close()


def test_typing_in_the_search_runs_no_shortcuts(open_page, server):
    song = fill(server)
    page = open_page(f"#{song.id}")
    page.get_by_label("Search").fill("")
    page.get_by_label("Search").press_sequentially("l 1?")
    assert page.get_by_label("Search").input_value() == "l 1?"
    assert page.evaluate("[app.player.state, app.player.loop, app.player.mix]") == [
        "paused",
        None,
        {},
    ]


def test_sliders_have_readable_values(open_page, server):
    song = fill(server)
    page = open_page(f"#{song.id}")
    words = {
        "Bass volume": "0.0 dB",
        "Bass pan": "centre",
        "Tempo": "100%",
        "Pitch": "0",
    }
    for name, value in words.items():
        slider = page.get_by_role("slider", name=name)
        assert slider.get_attribute("aria-valuetext") == value
    position = page.get_by_role("slider", name="Position")
    assert position.get_attribute("aria-valuetext") == "0:00 of 0:20"


ENGLISH = re.compile(r"[A-Za-z]{4,}")


def test_chinese_follows_the_browser_s_language_and_the_button(open_page, server):
    song = fill(server)
    page = open_page(f"#{song.id}", locale="zh-CN")
    page.get_by_role("button", name="独奏：人声").wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    shown = page.evaluate("""() => {
      const labels = [...document.querySelectorAll("[aria-label]")].map((e) => e.ariaLabel);
      return [...labels, ...document.body.innerText.split("\\n")];
    }""")
    names = (
        "htdemucs|English|Solar|Oleo|Airegin|Noise|Miles Davis|Walkin'|This file holds no sound."
    )
    left = [text for text in shown if ENGLISH.search(re.sub(names, "", text))]
    assert left == []
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Solo Vocals").wait_for()
    page.reload()
    page.get_by_role("button", name="Solo Vocals").wait_for()


def test_server_errors_are_shown_in_the_page_s_language(open_page, server):
    song = server.add("A.bin", 2, state="failed", error="a.bin is damaged.", code="no-audio")
    other = server.add("B.bin", 2, state="failed", error="Something strange.")
    page = open_page(locale="zh-CN")
    page.locator(".row", has_text="无法读取该文件的音频").wait_for()
    page.locator(".row", has_text="这首歌分离失败。 Something strange.").wait_for()
    server.remove(song)
    server.remove(other)
    server.limit_uploads(0)
    page.set_input_files(
        "#files-input", {"name": "Long.mp3", "mimeType": "audio/mpeg", "buffer": b"x"}
    )
    page.locator(".row", has_text="文件大小超过服务器的上限").wait_for()


def test_every_error_code_is_translated():
    chinese = (PAGE / "i18n" / "zh.js").read_text(encoding="utf-8").partition("errors = {")[2]
    assert set(re.findall(r'^  "?([a-z-]+)"?:', chinese, re.MULTILINE)) == {
        *(error.code for error in vars(errors).values() if isinstance(error, type) and error.code),
        WORKER_DIED,
    }


def test_both_languages_have_the_same_messages_and_placeholders(open_page):
    keys = open_page().evaluate("""async () => {
      const english = (await import("/page/i18n/en.js")).messages;
      const chinese = (await import("/page/i18n/zh.js")).messages;
      const placeholders = (text) => (text.match(/\\{\\w+\\}/g) ?? []).sort().join();
      const list = (messages) =>
        Object.keys(messages).sort().map((key) => [key, placeholders(messages[key])]);
      return [list(english), list(chinese)];
    }""")
    assert keys[0] == keys[1]


def test_the_layout_does_not_shift_while_a_track_is_separated(open_page, server):
    song = server.add("Oleo.mp3", 20, state="queued")
    page = open_page(f"#{song.id}")
    page.locator(".status", has_text="Queued").wait_for()
    tops = """() => [".workspace", ".lanes", ".transport", ".overview"].map(
      (each) => Math.round(document.querySelector(each).getBoundingClientRect().top))"""
    before = page.evaluate(tops)
    server.separate(song, 5.0)
    page.locator(".status", has_text="25%").wait_for()
    assert page.evaluate(tops) == before
    server.change(song, state="finished", done=20.0)
    page.locator(".status", has_text="All stems are ready.").wait_for()
    assert page.evaluate(tops) == before


def test_waveforms_are_drawn_where_separated_and_hatched_elsewhere(open_page, server):
    song = server.add("Oleo.mp3", 20, state="queued")
    page = open_page(f"#{song.id}")
    server.separate(song, 10.0)
    filled = """() => {
      const canvas = document.querySelector(".wave.stem canvas");
      const { width, height } = canvas;
      const data = canvas.getContext("2d").getImageData(0, height / 2, width, 1).data;
      const spread = (pixel) => Math.max(...pixel) - Math.min(...pixel);
      const strong = (x) => // a colour, not grey
        data[4 * x + 3] === 255 && spread([...data.slice(4 * x, 4 * x + 3)]) > 60;
      const count = (a, b) => Array.from({ length: b - a }, (_, i) => a + i).filter(strong).length;
      const half = Math.floor(width / 2);
      return [count(0, half - 5) / half, count(half + 5, width) / half];
    }"""
    page.wait_for_function(f"() => {{ const [a, b] = ({filled})(); return a > 0.9 && b === 0; }}")
    page.get_by_role("button", name="Spectrogram").click()
    page.wait_for_function(f"() => ({filled})()[0] < 0.5")


def test_a_lane_shows_that_its_spectrogram_is_loading(open_page, server):
    page = open_page(f"#{server.add('Solar.flac', 20).id}")
    waiting = []
    page.route("**/spectrogram*", lambda route: waiting.append(route))  # noqa: PLW0108
    with page.expect_request("**/spectrogram*"):
        page.get_by_role("button", name="Spectrogram").click()
    assert page.locator(".wave[aria-busy]").count() == 4
    page.route("**/spectrogram*", lambda route: route.abort())
    waiting[0].abort()
    page.wait_for_function("() => document.querySelectorAll('.wave[aria-busy]').length === 0")
    requests = len(server.requests)
    page.wait_for_timeout(200)
    assert len(server.requests) == requests  # failed ones are not repeated


def test_the_page_requests_nothing_from_other_servers(open_page, server):
    requested = []
    song = fill(server)
    page = open_page()
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{server.url}#{song.id}")
    page.reload()
    page.locator("#title", has_text="Solar").wait_for()
    assert requested
    assert all(url.startswith(server.url) for url in requested)


def test_every_module_is_preloaded_and_no_script_or_style_is_inline():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*\ssrc=)", html)
    preloaded = re.findall(r'(?:modulepreload" href|module" src)="page/([\w./-]+)"', html)
    modules = {path.relative_to(PAGE).as_posix(): path for path in PAGE.rglob("*.js")}
    assert sorted([*preloaded, "service-worker.js"]) == sorted(modules)
    for name, path in modules.items():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("/**"), f"{name} does not begin with a description"
        assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|https?://(?!www\.w3)", text)
