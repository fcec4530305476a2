"""Playback while a track is separated, measured at the mixer's output in a real browser."""

import numpy as np
import pytest

from page.server import RATE

pytestmark = pytest.mark.browser

STATE = "(wanted) => app.player.state === wanted"
LOUD = """(loud) => {
  const { player } = app;
  if (!player.mixer) return false;
  if (window.measured !== player.mixer) {
    window.measured = player.mixer;
    window.analyser = new AnalyserNode(player.mixer.output.context, { fftSize: 4096 });
    player.mixer.output.connect(window.analyser);
  }
  const samples = new Float32Array(4096);
  window.analyser.getFloatTimeDomainData(samples);
  const peak = Math.max(...samples.map(Math.abs));
  return loud ? peak > 0.01 : peak < 0.0001;
}"""
POSITION = "() => app.player.position / 44100"
DROP = """(names) => {
  const transfer = new DataTransfer();
  for (const name of names) transfer.items.add(new File(["sound"], name, { type: "audio/mpeg" }));
  for (const type of ["dragover", "drop"]) {
    document.body.dispatchEvent(
      new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


def wait_for(page, script, argument=None):
    page.wait_for_function(script, arg=argument, polling=20)


def wait_until(page, condition):
    """Wait for a condition on the server while the browser runs."""
    for _ in range(2000):
        if condition():
            return
        page.wait_for_timeout(10)
    pytest.fail("the condition did not become true")


def wait_for_position(page, least, most=float("inf")):
    wait_for(
        page,
        "([a, b]) => app.player.position >= a * 44100 && app.player.position <= b * 44100",
        [least, min(most, 1e9)],
    )


def press_play(page):
    page.get_by_role("button", name="Play", exact=True).click()


def test_a_dropped_song_plays_before_it_is_finished(open_page, server):
    page = open_page()
    page.evaluate(DROP, ["Blue Bossa.mp3"])
    page.wait_for_selector("#title:has-text('Blue Bossa')")
    (song,) = server.songs.values()
    press_play(page)
    wait_for(page, STATE, "waiting")
    server.separate(song, 5.0)
    wait_for(page, LOUD, True)
    wait_for(page, STATE, "playing")
    assert song.values["state"] == "separating"
    assert server.uploads == [{"name": "Blue Bossa.mp3", "model": "htdemucs", "shifts": "1"}]


def test_playback_waits_for_the_separation_and_continues(open_page, server):
    song = server.add(state="queued", seconds=12)
    page = open_page(f"#{song.id}")
    server.separate(song, 1.5)
    press_play(page)
    wait_for(page, LOUD, True)
    wait_for(page, STATE, "waiting")
    wait_for(page, LOUD, False)
    assert page.evaluate(POSITION) == pytest.approx(1.5, abs=0.01)
    server.separate(song, 12.0)
    wait_for(page, LOUD, True)
    wait_for_position(page, 2.0)


def test_a_seek_beyond_the_separated_part_is_sent_to_the_server(open_page, server):
    song = server.add(state="queued", seconds=30)
    page = open_page(f"#{song.id}")
    server.separate(song, 3.0)
    wait_for(page, "(id) => app.tracks.get(id).ranges.length > 0", song.id)
    press_play(page)
    wait_for(page, LOUD, True)
    box = page.locator(".wave.stem").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 2 / 3, box["y"] + 20)
    wait_for(page, STATE, "waiting")
    wait_until(page, lambda: song.seek_frame is not None)
    assert song.seek_frame == pytest.approx(20 * RATE, abs=RATE / 4)
    server.change(song, ranges=[[0, 3 * RATE], [19 * RATE, 24 * RATE]])
    wait_for(page, LOUD, True)
    assert 19 < page.evaluate(POSITION) <= 24


def test_solo_and_mute_act_immediately(open_page, server):
    song = server.add()
    page = open_page(f"#{song.id}")
    press_play(page)
    wait_for(page, LOUD, True)
    for stem in ("Drums", "Bass", "Other", "Vocals"):
        page.get_by_role("button", name=f"Mute {stem}").click()
    wait_for(page, LOUD, False)
    page.get_by_role("button", name="Solo Vocals").click()
    wait_for(page, LOUD, True)


def test_a_dragged_loop_jumps_back_and_continues(open_page, server):
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    box = page.locator(".wave.stem").first.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 30, steps=4)
    page.mouse.up()
    loop = page.evaluate("() => app.player.loop")
    assert loop["from"] == pytest.approx(2 * RATE, rel=0.02)
    assert loop["to"] == pytest.approx(3 * RATE, rel=0.02)
    page.evaluate("() => app.player.seek(2.7 * 44100)")
    press_play(page)
    wait_for_position(page, 2.72)
    wait_for_position(page, 0, 2.5)  # jumped back
    wait_for_position(page, 2.72)  # and continued
    assert page.evaluate(POSITION) < 3.01


def test_tempo_and_pitch_are_requested_from_the_server(open_page, server):
    """Requests count frames of the stretched track."""
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    page.evaluate("() => app.player.seek(4 * 44100)")
    page.get_by_role("slider", name="Tempo").fill("50")
    page.get_by_role("slider", name="Pitch").fill("-2")
    press_play(page)
    wait_for(page, LOUD, True)
    assert any(
        "tempo=0.5&pitch=-2" in url and f"from={8 * RATE}&" in url for _, url in server.requests
    )
    wait_for_position(page, 4.2)
    server.requests.clear()
    page.get_by_role("slider", name="Tempo").fill("100")
    page.get_by_role("slider", name="Pitch").fill("0")
    wait_until(
        page, lambda: any("/pcm" in url and "tempo" not in url for _, url in server.requests)
    )
    wait_for(page, LOUD, True)
    assert page.evaluate(POSITION) > 4.2


def test_playing_needs_no_animation_frames(open_page, server):
    """In a hidden tab the browser stops animation frames, but not the music."""
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    page.evaluate("window.requestAnimationFrame = () => 0")
    press_play(page)
    wait_for_position(page, 4.6)  # beyond what is scheduled at first
    wait_for(page, LOUD, True)


def test_media_keys_and_the_lock_screen_control_the_player(open_page, server):
    song = server.add("Solar.mp3", 20, artist="Miles Davis")
    page = open_page(f"#{song.id}")
    page.evaluate("""async () => {
      const { connectMediaSession } = await import("/page/media-session.js");
      window.keys = {};
      navigator.mediaSession.setActionHandler = (name, act) => (window.keys[name] = act);
      connectMediaSession(app.player);
      const { play } = HTMLMediaElement.prototype;
      HTMLMediaElement.prototype.play = function () {
        window.silence = this;
        return play.call(this);
      };
    }""")
    page.evaluate("keys.play()")
    wait_for(page, LOUD, True)
    shown = "[navigator.mediaSession.metadata.title, navigator.mediaSession.metadata.artist]"
    assert page.evaluate(shown) == ["Solar", "Miles Davis"]
    page.evaluate("keys.seekto({ seekTime: 8 })")
    page.evaluate("keys.seekforward({})")
    wait_for_position(page, 18)
    wait_for(page, "() => silence.currentTime > 0")  # browsers assign the keys to media elements
    page.evaluate("keys.pause()")
    wait_for(page, STATE, "paused")
    assert page.evaluate("[silence.paused, navigator.mediaSession.playbackState]") == [
        True,
        "paused",
    ]
    page.evaluate("keys.previoustrack({})")
    assert page.evaluate(POSITION) == 0
    page.evaluate("keys.play()")
    wait_for(page, STATE, "playing")
    wait_for(page, "() => !silence.paused")
    page.evaluate("silence.pause()")  # as the system does when headphones are unplugged
    wait_for(page, STATE, "paused")


def test_the_output_latency_is_not_read_in_firefox_on_linux(open_page, server):
    """Reading it may deadlock the tab."""
    song = server.add(seconds=6)
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
    page = open_page(f"#{song.id}", user_agent=agent)
    page.evaluate("""() => {
      window.reads = 0;
      const get = () => { window.reads += 1; return 0.1; };
      Object.defineProperty(AudioContext.prototype, "outputLatency", { get });
    }""")
    press_play(page)
    wait_for_position(page, 0.2)
    assert page.evaluate("window.reads") == 0


def test_playback_stops_at_the_end_and_restarts_from_the_beginning(open_page, server):
    song = server.add(seconds=6)
    page = open_page(f"#{song.id}")
    page.evaluate("() => app.player.seek(5.7 * 44100)")
    press_play(page)
    wait_for(page, STATE, "paused")
    assert page.evaluate(POSITION) == 6.0
    press_play(page)
    wait_for_position(page, 0.01, 5.9)


def test_the_original_is_as_loud_as_the_mix(open_page, server):
    song = server.add(seconds=8)
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Solo Bass").click()
    press_play(page)
    wait_for(page, LOUD, True)
    gain = page.evaluate(
        "() => app.player.loudness.matchingGain(app.player.mix, app.player.track.stems)"
    )
    page.get_by_role("button", name="Original").click()
    wait_for(page, "() => app.player.original")
    wait_for(page, LOUD, True)
    sound = song.sound.astype(float)
    true = np.sqrt(np.square(sound[:, 1]).sum() / np.square(sound[:, -1]).sum())
    assert gain == pytest.approx(true, rel=0.2)


def test_play_waits_until_the_track_s_format_is_known(open_page, server):
    """Right after an upload, sample rate, stems and length may be unknown."""
    unknown = {"stems": [], "sample_rate": None, "frames": None}
    song = server.add(state="queued", seconds=10)
    known = {name: song.values[name] for name in unknown}
    server.change(song, **unknown)
    page = open_page(f"#{song.id}")
    press_play(page)
    wait_for(page, STATE, "waiting")
    server.change(song, **known)
    server.separate(song, 5.0)
    wait_for(page, LOUD, True)
    assert page.locator(".lane[data-stem]").count() == 4


@pytest.mark.parametrize("state", ["playing", "waiting"])
def test_cancelling_what_playback_waits_for_pauses_it(open_page, server, state):
    song = server.add(state="queued", seconds=12)
    page = open_page(f"#{song.id}")
    server.separate(song, 1.5)
    press_play(page)
    wait_for(page, STATE, "playing")
    wait_for(page, STATE, state)
    page.locator(".track-header").get_by_role("button", name="Cancel").click()
    wait_for(page, STATE, "paused")


def test_a_loop_takes_the_position_in(open_page, server):
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    page.evaluate("app.player.seek(8 * 44100)")
    page.evaluate("app.player.setLoop({ from: 2 * 44100, to: 3 * 44100, on: true })")
    assert page.evaluate(POSITION) == 2
    page.evaluate("app.player.seek(9 * 44100)")  # a click outside
    press_play(page)
    wait_for_position(page, 2, 3)
    page.keyboard.press("Space")
    page.evaluate("app.player.seek(2.7 * 44100)")
    for _ in range(2):
        page.keyboard.press("Home")
        assert page.evaluate(POSITION) == 2
        page.evaluate("app.player.seek(2.7 * 44100)")
    page.get_by_role("button", name="Go to start").click()
    assert page.evaluate(POSITION) == 2
