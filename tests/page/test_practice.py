"""Tempo, pitch, the loop's times and markers, as used to practise."""

from itertools import pairwise
from random import Random

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
    assert (
        page.evaluate("document.activeElement.ariaLabel") == "Loop from Chorus m to the next marker"
    )
    assert flags.all_inner_texts() == ["Marker 2", "Chorus m"]
    reload(page)
    assert flags.all_inner_texts() == ["Marker 2", "Chorus m"]
    page.get_by_text("Markers (2)").click()
    page.get_by_role("button", name="Go to Marker 2, 0:05.0").click()
    assert page.evaluate("app.player.position / 44100") == 5
    loop = "[app.player.loop.from / 44100, app.player.loop.to / 44100]"
    for name, section in (("Marker 2", [5, 12]), ("Chorus m", [12, 20])):
        page.get_by_role("button", name=f"Loop from {name} to the next marker").click()
        assert page.evaluate(loop) == section
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


def fit(page, taps, per_bar=4):
    return page.evaluate(
        "async ([taps, perBar]) => (await import('/page/beat.js')).fitBeat(taps, perBar)",
        [taps, per_bar],
    )


def test_a_beat_is_fitted_to_imprecise_taps(page):
    """A whole number of beats per minute is taken if the taps do not contradict it."""
    random = Random(0)
    beat = 60 / 112
    taps = [0.3 + 8 * beat + k * beat + random.gauss(0, 0.015) for k in range(17) if k != 5]
    fitted = fit(page, taps)
    assert (fitted["bpm"], fitted["perBar"]) == (112, 4)
    assert fitted["first"] == pytest.approx(0.3, abs=0.02)
    long = [k / 3 + random.gauss(0, 0.02) for k in range(128)]
    assert fit(page, long)["bpm"] == 180
    exact = fit(page, [0.01 + 60 / 97.4 * k for k in range(8)], per_bar=3)
    assert exact == {"bpm": 97.4, "first": 0, "perBar": 3}  # near enough to the song's start
    assert fit(page, taps[:3]) is None


def test_tapping_while_it_plays_gives_bars_whose_loop_is_stored(page, server):
    page.get_by_text("Bars", exact=True).click()
    assert page.get_by_label("Loop from bar").is_disabled()
    page.evaluate("""() => {  // as if it played, at the times of the taps
      let position = 0;
      Object.defineProperty(app.player, "position", { get: () => position, configurable: true });
      app.player.state = "playing";
      for (let beat = 8; beat < 14; beat++) {
        position = Math.round((beat * 0.5 + (beat % 2 ? 0.01 : -0.01)) * 44100);
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "t", bubbles: true }));
      }
      delete app.player.position;
      app.player.state = "paused";
    }""")
    page.get_by_text("120 BPM").wait_for()
    assert page.get_by_label("Beats per minute").input_value() == "120"
    page.evaluate("app.player.seek(0.25 * 44100)")
    page.get_by_role("button", name="Bar 1 starts at the playhead").click()
    page.get_by_label("Loop from bar").fill("2")
    page.get_by_label("to bar", exact=True).fill("4")
    page.keyboard.press("Enter")
    loop = "[app.player.loop.from / 44100, app.player.loop.to / 44100]"
    assert page.evaluate(loop) == [2.25, 8.25]
    reload(page)
    page.get_by_text("120 BPM").click()
    fields = [page.get_by_label(name, exact=True) for name in ("Loop from bar", "to bar")]
    assert [field.input_value() for field in fields] == ["2", "4"]
    for wrong in ("0", "1.5", ""):
        fields[0].fill(wrong)
        fields[0].press("Tab")
        assert fields[0].input_value() == "2"
    assert page.evaluate(loop) == [2.25, 8.25]


@pytest.mark.parametrize(("position", "clicks"), [(2.0, [0, 0.5, 1, 1.5]), (2.2, [0, 0.5, 1, 1.5])])
def test_the_count_in_is_a_bar_in_time_with_the_song(page, position, clicks):
    beat = {"bpm": 120, "first": 0, "perBar": 4}
    counted = page.evaluate(
        "async ([beat, position]) => (await import('/page/beat.js')).countIn(beat, position)",
        [beat, position],
    )
    assert [click["time"] for click in counted["clicks"]] == pytest.approx(clicks)
    accented = [i for i, click in enumerate(counted["clicks"]) if click["accent"]]
    starts = {2.0: (0, 2.0), 2.2: (3, 1.7)}  # the accent is on the beat at 2 s
    assert (accented, counted["length"]) == (
        [starts[position][0]],
        pytest.approx(starts[position][1]),
    )


def test_the_music_starts_after_the_count_in_which_a_slower_tempo_stretches(page):
    page.evaluate("""() => {
      window.starts = [];
      for (const { prototype } of [AudioBufferSourceNode, AudioScheduledSourceNode]) {
        const { start } = prototype;
        prototype.start = function (time) {
          starts.push([this.constructor.name, time]);
          start.call(this, time);
        };
      }
    }""")
    page.get_by_label("Tempo in percent").fill("80")
    page.get_by_text("Bars", exact=True).click()
    page.get_by_label("Beats per minute").fill("240")
    page.keyboard.press("Enter")
    page.get_by_label("Count in one bar before playing").check()
    page.locator("body").press("Space")
    page.wait_for_function("() => app.player.position > 0")
    starts = page.evaluate("starts")
    clicks = [time for kind, time in starts if kind == "OscillatorNode"]
    music = min(time for kind, time in starts if kind == "AudioBufferSourceNode")
    beat = 60 / 240 / 0.8
    assert [time - clicks[0] for time in [*clicks, music]] == pytest.approx(
        [k * beat for k in range(5)], abs=0.001
    )
    page.keyboard.press("ArrowRight")  # to seek counts no bar
    count = "starts.filter(([kind]) => kind === 'OscillatorNode').length"
    assert page.evaluate(count) == 4
    page.get_by_label("Click on every beat").check()
    page.wait_for_function(f"() => {count} > 8")
    times = page.evaluate("starts.filter(([kind]) => kind === 'OscillatorNode').map(([, t]) => t)")
    distances = [b - a for a, b in pairwise(times[5:9])]
    assert distances == pytest.approx([beat] * 3, abs=0.001)


def test_the_menu_of_the_beat_closes_by_escape_and_a_click_elsewhere(page):
    panel = page.locator(".beat-panel")
    for close in (lambda: page.keyboard.press("Escape"), page.locator(".track-facts").click):
        page.get_by_text("Bars", exact=True).click()
        panel.wait_for()
        page.get_by_role("button", name="Play", exact=True).click()
        page.get_by_role("button", name="Pause", exact=True).click()
        assert panel.is_visible()
        close()
        panel.wait_for(state="hidden")


def test_a_change_just_before_another_song_is_opened_is_stored_with_its_own_song(page, server):
    other = server.add("Oleo.flac", 20)
    page.evaluate(f"""() => {{
      const id = location.hash.slice(1);
      document.querySelector(".presets select").value = "karaoke";
      document.querySelector(".presets select").dispatchEvent(new Event("change"));
      location.hash = "{other.id}";
      window.first = id;
    }}""")
    page.locator("#title", has_text="Oleo").wait_for()
    page.wait_for_timeout(200)  # longer than the delay of the storage
    mix = "JSON.parse(localStorage.getItem('htdemucs:track:' + first)).mix.vocals.mute"
    assert page.evaluate(mix)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_menu_of_the_beat_is_accessible(open_page, server, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page = open_page(f"#{server.add('Solar.flac', 20).id}", color_scheme=scheme)
    page.get_by_text("Bars", exact=True).click()
    for beat in (False, True):
        if beat:
            page.get_by_label("Beats per minute").fill("90")
            page.keyboard.press("Enter")
        violations = axe.Axe().run(page).response["violations"]
        assert [(each["id"], each["nodes"]) for each in violations] == []


def test_on_a_phone_all_lanes_fit_and_one_shows_its_sliders(open_page, server):
    page = open_page(f"#{server.add('Solar.flac', 20).id}", **PHONE)
    bottoms = [lane.bounding_box() for lane in page.locator(".wave.stem").all()]
    transport = page.locator(".transport").bounding_box()
    assert max(box["y"] + box["height"] for box in bottoms) < transport["y"]
    for name in ("Waveform", "Spectrogram", "Set loop start", "Loop (L)", "Set loop end"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["y"] + box["height"] <= 844
    sliders = [page.get_by_role("slider", name=f"{stem} volume") for stem in ("Bass", "Vocals")]
    for i, stem in enumerate(("Bass", "Vocals")):
        page.get_by_role("button", name=f"{stem}: volume and balance").tap()
        assert [slider.is_visible() for slider in sliders] == [i == 0, i == 1]
    assert page.evaluate(SMALL) == []
    assert not page.get_by_role("slider", name="Tempo").is_visible()
    page.get_by_role("button", name="Tempo, pitch and volume").tap()
    assert page.get_by_role("slider", name="Tempo").is_visible()
    assert page.evaluate(SMALL) == []


@pytest.mark.parametrize(
    ("key", "pitch", "shown"),
    [
        ("Am", 0, "A minor"),
        ("Am", 2, "B minor"),
        ("C", -1, "B major"),
        ("F#m", 12, "F♯ minor"),
        ("Bb", 1.6, "C major"),
        ("Eb", -0.4, "E♭ major"),
    ],
)
def test_the_key_follows_the_pitch(page, server, key, pitch, shown):
    [song] = server.songs.values()
    server.change(song, key=key)
    page.evaluate(f"app.player.setStretch(1, {pitch})")
    page.locator(".track-facts", has_text=f"0:20 · {shown} · htdemucs").wait_for()


def test_the_key_is_shown_in_chinese_and_not_if_it_is_uncertain(open_page, server):
    song = server.add("Solar.flac", 20, key="C#m")
    page = open_page(f"#{song.id}", locale="zh-CN")
    facts = page.locator(".track-facts")
    assert facts.inner_text() == "0:20 · C♯ 小调 · htdemucs · 44.1 kHz"
    server.change(song, key="Ab")
    page.locator(".track-facts", has_text="A♭ 大调").wait_for()
    server.change(song, key=None)
    page.locator(".track-facts", has_text="0:20 · htdemucs").wait_for()
