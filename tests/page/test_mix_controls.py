"""The mixer's sliders, the master volume, the presets of the mix and the waveforms' height."""

import pytest

pytestmark = pytest.mark.browser

PEAK = """(stem) => {
  const canvas = document.querySelector(`.lane[data-stem=${stem}] .wave canvas`);
  const { width, height } = canvas;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const rows = Array.from({ length: height }, (_, y) => y);
  const isWave = (y) => { // the hatching before it is grey
    const i = 4 * (y * width + Math.floor(width / 100));
    const [red, , blue, alpha] = data.slice(i, i + 4);
    return alpha === 255 && Math.abs(red - blue) > 40;
  };
  return rows.filter(isWave).length / height;
}"""


@pytest.fixture
def page(open_page, server):
    """The page of a finished song."""
    song = server.add("Solar.flac", 20)
    page = open_page(f"#{song.id}")
    page.wait_for_function(f"() => ({PEAK})('drums') > 0.1")
    return page


def drag_to(page, slider, value):
    """Drag a slider's thumb with the mouse, and return the label that is shown meanwhile."""
    box = slider.bounding_box()
    lowest, highest, now = (
        float(slider.evaluate(f"(node) => node.{name}")) for name in ("min", "max", "value")
    )
    x = lambda at: box["x"] + 8 + (box["width"] - 16) * (at - lowest) / (highest - lowest)  # noqa: E731
    y = box["y"] + box["height"] / 2
    page.mouse.move(x(now), y)
    page.mouse.down()
    page.mouse.move(x(value), y, steps=4)
    label = slider.locator("xpath=following-sibling::span")
    assert label.is_visible()
    shown = label.inner_text()
    page.mouse.up()
    label.wait_for(state="hidden")
    return shown


def test_volume_and_pan_show_their_value_and_snap_to_their_default(page):
    volume = page.get_by_role("slider", name="Bass volume")
    pan = page.get_by_role("slider", name="Bass pan")
    assert drag_to(page, volume, 40) == "-12.0 dB"
    assert drag_to(page, volume, 82) == "0.0 dB"
    assert page.evaluate("app.player.mix.bass.gain") == 1
    assert drag_to(page, pan, -50).endswith("left")
    assert drag_to(page, pan, 3) == "centre"
    volume.focus()
    page.keyboard.press("ArrowRight")  # the keys do not snap
    assert volume.get_attribute("aria-valuetext") == "+0.2 dB"
    assert page.locator(".fader-value").filter(visible=True).all_inner_texts() == ["+0.2 dB"]
    volume.dblclick()
    pan.dblclick()
    assert page.evaluate("[app.player.mix.bass.gain, app.player.mix.bass.pan]") == [1, 0]


def test_waveforms_are_as_high_as_the_stem_is_loud(page):
    before = page.evaluate(PEAK, "drums")
    page.get_by_role("slider", name="Drums volume").fill("40")
    page.wait_for_function(f"(before) => ({PEAK})('drums') < 0.6 * before", arg=before)
    page.get_by_role("slider", name="Drums volume").dblclick()
    page.wait_for_function(f"(before) => ({PEAK})('drums') === before", arg=before)


def test_the_master_volume_scales_what_is_heard_and_belongs_to_the_browser(page):
    volume = page.get_by_role("slider", name="Volume", exact=True)
    page.keyboard.press("Space")
    page.wait_for_function("() => app.player.state === 'playing'")
    volume.fill("35")
    page.wait_for_function("() => Math.abs(app.player.mixer.output.gain.value - 0.25) < 0.001")
    volume.fill("99")
    assert volume.get_attribute("aria-valuetext") == "+6.0 dB"
    page.reload()
    page.locator("#title", has_text="Solar").wait_for()
    assert volume.get_attribute("aria-valuetext") == "+6.0 dB"
    volume.dblclick()
    assert volume.get_attribute("aria-valuetext") == "0.0 dB"


def test_presets_set_the_mix_are_stored_and_follow_it(page):
    menu = page.get_by_label("Preset of the mix")
    reset = page.get_by_role("button", name="Reset mix")
    audible = """() => [...document.querySelectorAll(".channel-strip:not(.inaudible)")]
      .map((strip) => strip.ariaLabel)"""
    assert (menu.input_value(), reset.is_disabled()) == ("full", True)
    for preset, stems in (
        ("Karaoke", ["Drums", "Bass", "Other"]),
        ("A cappella", ["Vocals"]),
        ("Without drums", ["Bass", "Other", "Vocals"]),
        ("Only bass loud", ["Drums", "Bass", "Other", "Vocals"]),
    ):
        menu.select_option(preset)
        assert page.evaluate(audible) == stems
    assert page.evaluate("['bass', 'drums'].map((stem) => app.player.mix[stem].gain)") == [1, 0.25]
    page.get_by_role("slider", name="Bass volume").fill("60")
    assert menu.input_value() == "custom"
    reset.click()
    assert (menu.input_value(), reset.is_disabled()) == ("full", True)
    page.get_by_role("button", name="Solo Vocals").click()  # by hand what the preset does
    assert menu.input_value() == "acappella"
    menu.select_option("Karaoke")
    page.wait_for_timeout(200)  # longer than the delay of the storage
    page.reload()
    page.locator("#title", has_text="Solar").wait_for()
    assert menu.input_value() == "karaoke"


def test_presets_need_their_stem(open_page, server):
    song = server.add("Duo.flac", 6, stems=("vocals", "no_vocals"))
    page = open_page(f"#{song.id}")
    options = page.get_by_label("Preset of the mix").locator("option").all_inner_texts()
    assert options == ["All stems", "Karaoke", "A cappella", "My mix"]
