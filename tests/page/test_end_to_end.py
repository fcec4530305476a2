"""The page with the real server and the model that comes with the package."""

import io
import re
import subprocess
import sys
import wave
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from page.server import RATE, music

pytestmark = pytest.mark.browser

READY = "() => app.tracks.size > 0 && [...app.tracks.sorted('').processing].length === 0"
PLAYING = "() => app.player.state === 'playing'"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The URL of a server that runs for this module."""
    data = tmp_path_factory.mktemp("data")
    command = [sys.executable, "-m", "htdemucs", "serve", "--port", "0", "--name", "mini"]
    with subprocess.Popen(
        [*command, "--data", data], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            printed = server.stdout.readline()
            yield re.search(r"http://\S+", printed)[0]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("music") / "Blue Bossa.flac"
    soundfile.write(path, music(9 * RATE, 4)[:, -1], RATE)
    return path


def upload(page, song):
    with page.expect_file_chooser() as chooser:
        page.locator("[data-add=files]").filter(visible=True).first.click()
    chooser.value.set_files(song)
    page.locator("#title", has_text="Blue Bossa").wait_for()


def test_a_song_is_uploaded_played_looped_downloaded_and_deleted(open_page, address, song):
    page = open_page(url=address)
    upload(page, song)
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(PLAYING)
    page.get_by_role("button", name="Solo Drums").click()
    page.wait_for_function("() => app.player.mixer.level(0) > 0.01", polling=20)
    page.evaluate("app.player.setLoop({ from: 44100, to: 66150, on: true })")
    page.evaluate("app.player.seek(44100)")
    page.wait_for_function(
        "() => app.player.position > 50000 && app.player.position < 66150", polling=20
    )
    page.wait_for_function("() => app.player.position < 50000", polling=20)
    page.locator(".status", has_text="All stems are ready.").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Vocals").click()
    with wave.open(str(download.value.path())) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, 9 * RATE)
    page.reload()
    page.get_by_role("button", name="Solo Drums").wait_for()
    assert page.get_by_role("button", name="Solo Drums").get_attribute("aria-pressed") == "true"
    page.locator(".track").get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Undo").wait_for()
    page.reload()  # sends the deletion
    page.get_by_role("heading", name="Drop a song here").wait_for()


def test_a_later_part_plays_before_the_earlier_parts_are_separated(open_page, address, song):
    page = open_page(url=address)
    upload(page, song)
    page.wait_for_function("() => app.player.track.frames")
    page.evaluate("app.player.seek(7 * 44100)")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(PLAYING)
    assert page.evaluate("app.player.position / 44100") >= 7
    page.wait_for_function(READY)


def test_the_mixer_agrees_with_the_stem_files(open_page, address, song):
    """Compare the mixer, offline and with the API's samples, with the server's files."""
    page = open_page(url=address)
    upload(page, song)
    page.wait_for_function("() => app.player.track.ranges[0]?.[1] === app.player.track.frames")
    mix = {"drums": {"gain": 0.5, "pan": -0.4}, "bass": {"gain": 1.2}, "vocals": {"mute": True}}
    rendered = page.evaluate(
        """async (mix) => {
      const { Mixer, toBuffer } = await import("/page/mixer.js");
      const { pcm } = await import("/page/api.js");
      const { track } = app.player;
      const { frames, samples } = await pcm(track, { from: 44100, frames: 30000 });
      const context = new OfflineAudioContext(2, frames, track.sample_rate);
      const mixer = new Mixer(context, track.stems);
      mixer.set(mix, { smooth: false });
      const buffer = toBuffer(context, samples, mixer.channels, track.sample_rate);
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(mixer.input);
      source.start();
      const sound = await context.startRendering();
      return [0, 1].map((side) => [...sound.getChannelData(side)]);
    }""",
        mix,
    )
    stems = {}
    for stem, file in page.evaluate("Object.entries(app.player.track.files)"):
        with urlopen(address.rstrip("/") + file["url"]) as response:
            stems[stem] = soundfile.read(io.BytesIO(response.read()))[0][44_100:74_100]
    expected = 0.5 * stems["drums"] * [1, 0.6] + 1.2 * stems["bass"] + stems["other"]
    assert np.abs(np.array(rendered).T - expected).max() < 1 / 32768
    assert np.abs(expected).max() > 0.05
