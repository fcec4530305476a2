"""Tempo, pitch, the loop's times and markers, as used to practise."""

import pytest

from page.test_interface import PHONE, SMALL

pytestmark = pytest.mark.browser

STRETCH = "[app.player.tempo, app.player.pitch]"


@pytest.fixture
def page(open_page, server):
    """The page of a finished song of 20 seconds."""
    return open_page(f"#{server.add('Solar.flac', 20).id}")


def reload(page):
    page.wait_for_timeout(200)  # longer than the delay of the storage
    page.reload()
    page.locator("#title", has_text="Solar").wait_for()
    page.evaluate(
        "async () => { window.app = await import(new URL('page/main.js', document.baseURI)); }"
    )


def test_tempo_and_pitch_change_in_small_steps(page, server):
    tempo = page.get_by_role("slider", name="Tempo")
    pitch = page.get_by_role("slider", name="Pitch")
    tempo.press("ArrowLeft")
    pitch.press("ArrowRight")
    for _ in range(3):
        pitch.press("Shift+ArrowRight")
    assert page.evaluate(STRETCH) == [0.99, 1.3]
    assert pitch.get_attribute("aria-valuetext") == "+1.3"
    page.get_by_label("Tempo in percent").fill("83")
    page.get_by_label("Pitch in semitones").fill("-0.25")
    page.keyboard.press("Enter")
    assert page.evaluate(STRETCH) == [0.83, -0.25]
    page.get_by_label("Tempo in percent").fill("1000")
    page.keyboard.press("Tab")
    assert page.evaluate(STRETCH) == [2, -0.25]
    page.get_by_label("Tempo in percent").fill("83")
    page.keyboard.press("Tab")
    page.locator("body").press("Space")
    page.wait_for_function("() => app.player.state === 'playing'")
    assert any("tempo=0.83&pitch=-0.25" in url for _, url in server.requests)
    tempo.dblclick()
    assert page.evaluate(STRETCH) == [1, -0.25]


def test_a_number_that_is_being_typed_survives_changes_of_the_player(page):
    field = page.get_by_label("Tempo in percent")
    field.fill("8")
    page.evaluate("app.player.setLoop({ from: 0, to: 44100, on: true })")
    assert field.input_value() == "8"
    field.press_sequentially("5")
    field.press("Enter")
    assert page.evaluate("app.player.tempo") == 0.85


def test_keys_halve_double_and_reset_the_tempo(page):
    for key, expected in (("[", 0.5), ("[", 0.5), ("]", 1), ("]", 2), ("]", 2), ("\\", 1)):
        page.keyboard.press(key)
        assert page.evaluate("app.player.tempo") == expected
    page.evaluate("app.player.setStretch(0.8, 3)")
    page.keyboard.press("]")
    assert page.evaluate(STRETCH) == [1.6, 3]
    page.keyboard.press("Backspace")
    assert page.evaluate(STRETCH) == [1, 0]
    page.get_by_label("Tempo in percent").press("Backspace")  # which edits the field
    page.get_by_label("Tempo in percent").press("[")
    assert page.evaluate(STRETCH) == [1, 0]


def test_the_loop_s_ends_are_typed_as_times(page):
    start = page.get_by_role("textbox", name="Loop start")
    end = page.get_by_role("textbox", name="Loop end")
    assert (start.input_value(), end.input_value()) == ("", "")
    loop = "[app.player.loop.from / 44100, app.player.loop.to / 44100]"
    start.fill("0:05.5")
    start.press("Enter")
    assert page.evaluate(loop) == [5.5, 20]
    assert end.input_value() == "0:20.0"
    end.fill("9,25")
    end.press("Tab")
    assert page.evaluate(loop) == [5.5, 9.25]
    for wrong in ("soon", "0:02", ""):
        end.fill(wrong)
        end.press("Tab")
        assert end.input_value() == "0:09.3"
    assert page.evaluate(loop) == [5.5, 9.25]
    page.get_by_role("button", name="Clear loop").click()
    assert start.input_value() == ""


def test_markers_are_set_reached_renamed_deleted_and_stored(page):
    page.evaluate("app.player.seek(12 * 44100)")
    page.keyboard.press("m")
    page.evaluate("app.player.seek(5 * 44100)")
    page.get_by_role("button", name="Add marker").click()
    flags = page.locator(".ruler .marker")
    assert flags.all_inner_texts() == ["Marker 2", "Marker 1"]
    ruler, flag = page.locator(".ruler").bounding_box(), flags.last.bounding_box()
    assert flag["x"] == pytest.approx(ruler["x"] + 0.6 * ruler["width"], abs=2)
    flags.last.click()
    assert page.evaluate("[app.player.position / 44100, app.player.loop]") == [12, None]
    page.get_by_text("Markers (2)").press("Enter")
    name = page.get_by_label("Name of the marker at 0:12.0")
    name.fill("Chorus m")
    name.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Delete Chorus m"
    assert flags.all_inner_texts() == ["Marker 2", "Chorus m"]
    reload(page)
    assert flags.all_inner_texts() == ["Marker 2", "Chorus m"]
    page.get_by_text("Markers (2)").click()
    page.get_by_role("button", name="Go to Marker 2, 0:05.0").click()
    assert page.evaluate("app.player.position / 44100") == 5
    page.get_by_role("button", name="Delete Marker 2").click()
    page.keyboard.press("Escape")
    assert not page.locator(".markers ul").is_visible()
    assert flags.all_inner_texts() == ["Chorus m"]
    reload(page)
    assert flags.all_inner_texts() == ["Chorus m"]


def test_markers_have_the_time_at_the_song_s_sample_rate(open_page, server):
    song = server.add("Solar.flac", 20)
    server.change(song, sample_rate=48_000)
    page = open_page(f"#{song.id}")
    page.evaluate("app.player.seek(3 * 48000)")
    page.keyboard.press("m")
    page.get_by_text("Markers (1)").click()
    page.get_by_label("Name of the marker at 0:03.0").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_of_markers_is_accessible(open_page, server, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page = open_page(f"#{server.add('Solar.flac', 20).id}", color_scheme=scheme)
    page.keyboard.press("m")
    page.get_by_text("Markers (1)").click()
    violations = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"]) for each in violations] == []


def test_markers_are_large_enough_for_a_finger(open_page, server):
    page = open_page(f"#{server.add('Solar.flac', 20).id}", **PHONE)
    page.get_by_role("button", name="Add marker").tap()
    page.get_by_text("Markers (1)").tap()
    for width, height in ((390, 844), (844, 390), (820, 1180)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.locator(".markers ul").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(SMALL) == []
