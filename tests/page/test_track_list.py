"""The list of songs: uploads, the queue, the library, downloads and what the browser stores."""

import threading
import time
from pathlib import Path

import pytest

from htdemucs.serve import export_routes
from page.server import RATE
from serve.searches import SEARCHES

pytestmark = pytest.mark.browser

DROP = """(names) => {
  const transfer = new DataTransfer();
  for (const name of names) transfer.items.add(new File(["sound"], name, { type: "audio/mpeg" }));
  document.body.dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def row(page, title):
    return page.locator(".row", has_text=title)


def test_an_empty_list_welcomes_and_dropped_songs_replace_it(open_page, server):
    page = open_page()
    page.get_by_role("heading", name="Drop a song here").wait_for()
    page.evaluate(DROP, ["One.mp3", "Two.mp3", "Three.mp3"])
    row(page, "Three").wait_for()
    page.wait_for_function("() => app.tracks.size === 3")
    assert [upload["name"] for upload in server.uploads] == ["One.mp3", "Two.mp3", "Three.mp3"]
    page.locator("#title", has_text="One").wait_for()


def test_a_song_dropped_before_the_first_response_is_uploaded(browser, server):
    page = browser.new_page()
    waiting = []
    page.route("**/api/info", lambda route: waiting.append(route))  # noqa: PLW0108
    with page.expect_request("**/api/info"):
        page.goto(server.url)
    page.evaluate(DROP, ["Early.mp3"])
    [request] = waiting
    request.continue_()
    page.wait_for_selector("body[data-ready]")
    row(page, "Early").wait_for()
    assert [upload["name"] for upload in server.uploads] == ["Early.mp3"]
    page.close()


def test_chosen_and_pasted_files_are_uploaded(open_page, server, tmp_path):
    song = tmp_path / "Solar.flac"
    song.write_bytes(b"sound")
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose songs").click()
    chooser.value.set_files(song)
    row(page, "Solar").wait_for()
    page.evaluate("""() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File(["sound"], "Pasted.wav"));
      document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
    }""")
    row(page, "Pasted").wait_for()


def test_only_the_media_files_of_a_folder_are_uploaded(open_page, server, tmp_path):
    for name in ("b.mp3", "a.ogg", "cover.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"sound")
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path)
    page.wait_for_function("() => app.tracks.size === 2")
    assert {upload["name"] for upload in server.uploads} == {"a.ogg", "b.mp3"}


def test_a_dropped_folder_is_searched_recursively(open_page):
    """Browsers list a folder in batches; a single file is uploaded whatever its name."""
    names = open_page().evaluate("""async () => {
      const { filesOf } = await import("/page/upload.js");
      const file = (name) => ({ name, isFile: true, file: (give) => give(new File(["x"], name)) });
      const folder = (name, ...entries) => ({
        name,
        isFile: false,
        createReader: () => ({ readEntries: (give) => give(entries.splice(0, 2)) }),
      });
      const disc = folder("disc 2", file("9.ogg"), file("cover.png"));
      const album = folder("album", file("10.mp3"), file("2.mp3"), disc, file("notes.txt"));
      const items = [album, file("raw")].map((entry) => ({ webkitGetAsEntry: () => entry }));
      return (await filesOf({ items, files: [] })).map((each) => each.name);
    }""")
    assert names == ["2.mp3", "10.mp3", "9.ogg", "raw"]


def test_a_refused_upload_shows_why_and_can_be_retried(open_page, server):
    page = open_page()
    server.limit_uploads(0)
    page.evaluate(DROP, ["Long.mp3"])
    row(page, "the file is larger than the 0 MB").wait_for()
    server.limit_uploads(10**9)
    page.get_by_role("button", name="Retry Long.mp3").click()
    page.wait_for_function("() => app.tracks.size === 1")
    page.wait_for_function("() => document.querySelectorAll('.row').length === 1")


def test_an_upload_whose_response_was_lost_is_not_added_twice(open_page, server):
    page = open_page()

    def lose_response(route):
        assert route.fetch().status == 201
        route.abort()

    page.route("**/api/tracks?*", lose_response, times=1)
    page.evaluate(DROP, ["Solar.mp3"])
    row(page, "The server cannot be reached.").wait_for()
    page.get_by_role("button", name="Retry Solar.mp3").click()
    page.locator("#title", has_text="Solar").wait_for()
    assert len(server.uploads) == 2
    assert len(server.songs) == page.locator(".row").count() == 1


def test_the_selected_model_and_stems_are_sent_and_stored(open_page, server):
    page = open_page()
    page.locator(".welcome [data-pick-model]").click()
    page.get_by_label("htdemucs_6s").check()
    for stem in ("Drums", "Bass", "Other", "Piano"):
        page.get_by_role("checkbox", name=stem).uncheck()
    page.get_by_label("Quality").select_option("2")
    page.get_by_role("button", name="Done").click()
    assert page.locator(".welcome .model-selection").inner_text() == "htdemucs_6s · Vocals, Guitar"
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.evaluate(DROP, ["Song.mp3"])
    row(page, "Song").wait_for()
    expected = {"name": "Song.mp3", "model": "htdemucs_6s", "stems": "vocals,guitar", "shifts": "2"}
    assert server.uploads == [expected]


def test_the_queue_shows_progress_speed_and_time_left(open_page, server):
    page = open_page()
    first = server.add("A.mp3", 20, state="queued")
    server.add("B.mp3", 20, state="queued")
    row(page, "Queued, position 2").wait_for()
    server.separate(first, 5.0)
    row(page, "25% · 0:12 left · 1.3× real time").wait_for()
    assert row(page, "25%").locator("progress").evaluate("(bar) => bar.value") == 0.25
    page.get_by_role("button", name="Cancel A").click()
    row(page, "Cancelled").wait_for()
    page.get_by_role("button", name="Retry A").click()
    page.get_by_role("button", name="Cancel A").wait_for()


def test_a_failed_track_is_announced(open_page, server):
    song = server.add("A.mp3", 5, state="queued")
    page = open_page()
    row(page, "A").wait_for()
    server.change(song, state="failed", error="This file holds no sound.")
    page.locator("#announcement", has_text="A could not be separated.").wait_for(state="attached")
    row(page, "This file holds no sound.").wait_for()


def test_a_library_track_is_separated_on_demand(open_page, server):
    song = server.add("Found.flac", 10, state="unseparated", kind="library")
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Separate", exact=True).click()
    page.get_by_role("heading", name="Settings for this song").wait_for()
    page.locator("#model-dialog").get_by_role("button", name="Separate").click()
    page.locator(".status", has_text="Queued").wait_for()
    assert song.values["model"] == "htdemucs"
    assert len(server.songs) == 1


def test_the_search_matches_every_word_in_any_tag(open_page, server):
    server.add("1.mp3", 2, title="Blue in Green", artist="Miles Davis")
    server.add("2.mp3", 2, title="Blue Train", artist="John Coltrane")
    page = open_page()
    page.get_by_label("Search").fill("blue DAVIS")
    row(page, "Train").wait_for(state="detached")
    assert page.locator(".row").count() == 1
    page.get_by_label("Search").fill("Monk")
    page.get_by_text("No matching songs.").wait_for()


def test_names_are_not_parsed_as_html(open_page, server):
    name = '<img src=x onerror="document.title=1">.mp3'
    song = server.add(name, 2)
    page = open_page(f"#{song.id}")
    page.locator("#title", has_text="<img src=x").wait_for()
    assert page.locator(".track img, .sidebar img").count() == 0


def test_a_lost_event_stream_is_resumed(open_page, server):
    song = server.add("A.mp3", 5)
    page = open_page(f"#{song.id}")
    row(page, "A").wait_for()
    page.context.set_offline(True)
    server.cut()
    page.locator("#offline").wait_for()
    server.add("B.mp3", 5)
    server.remove(song)
    page.context.set_offline(False)
    row(page, "B").wait_for()
    assert row(page, "A").count() == 0


def hide(page, hidden):
    """Set the page's visibility, as switching tabs does."""
    page.evaluate(
        """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }""",
        hidden,
    )


def wait_for_streams(page, server, count):
    while server.open_streams != count:
        page.wait_for_timeout(10)


def test_a_hidden_tab_keeps_its_event_stream_only_while_it_plays(open_page, server):
    song = server.add("A.mp3", 20)
    page = open_page(f"#{song.id}")
    wait_for_streams(page, server, 1)
    hide(page, True)
    wait_for_streams(page, server, 0)
    server.add("B.mp3", 5)
    hide(page, False)
    row(page, "B").wait_for()
    page.get_by_role("button", name="Play", exact=True).click()
    hide(page, True)
    server.add("C.mp3", 5)
    page.wait_for_function("() => app.tracks.size === 3")
    page.evaluate("app.player.pause()")
    wait_for_streams(page, server, 0)


def test_more_tabs_can_be_open_than_the_browser_opens_connections(open_page, server):
    page = open_page()
    for _ in range(7):
        hide(page, True)
        page = page.context.new_page()
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")
    page.evaluate(DROP, ["Eighth.mp3"])
    row(page, "Eighth").wait_for()


def test_older_versions_are_ignored(open_page, server):
    song = server.add("A.mp3", 5)
    page = open_page()
    row(page, "A").wait_for()
    stale = {
        "version": 0,
        "tracks": [{**song.values, "state": "failed"}],
        "removed": [song.id],
        "whole": False,
    }
    assert page.evaluate(
        """(message) => {
      app.tracks.apply(message);
      app.tracks.put({ ...message.tracks[0], version: 0 });
      return app.tracks.get(message.tracks[0].id).state;
    }""",
        stale,
    ) == "finished"  # fmt: skip


def test_mix_loop_and_zoom_are_stored_for_each_track(open_page, server):
    song, other = server.add("A.mp3", 20), server.add("B.mp3", 20)
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Solo Bass").click()
    page.get_by_label("Vocals volume").fill("40")
    page.get_by_role("button", name="Zoom in").click()
    page.evaluate("app.player.seek(44100 * 3)")
    page.get_by_role("button", name="Set loop start").click()
    page.get_by_role("slider", name="Tempo").fill("80")
    page.wait_for_function(
        "(id) => JSON.parse(localStorage.getItem(`htdemucs:track:${id}`) ?? '{}').tempo === 0.8",
        arg=song.id,
    )
    page.reload()
    page.evaluate("async () => { window.app = await import('/page/main.js'); }")
    solo = page.get_by_role("button", name="Solo Bass")
    solo.wait_for()
    assert solo.get_attribute("aria-pressed") == "true"
    state = page.evaluate("""() => {
      const { mix, loop, tempo } = app.player;
      return { gain: mix.vocals.gain, from: loop.from, tempo };
    }""")
    assert state == {"gain": 0.25, "from": 44100 * 3, "tempo": 0.8}
    assert page.locator(".overview .viewport").is_visible()
    page.evaluate("(id) => { location.hash = id; }", other.id)
    page.locator("#title", has_text="B").wait_for()
    assert solo.get_attribute("aria-pressed") == "false"


MP3 = {"format": "mp3", "bitrate": 320}
AS_IT_SOUNDS = {"tempo": 1, "pitch": 0, "gains": "drums:1,bass:1,other:1,vocals:0"}
DOWNLOADS = {  # the body of the request, and the name of the file
    "My mix": (MP3 | {"kind": "mix"} | AS_IT_SOUNDS, "Blue Bossa (mix).mp3"),
    "One stem": (MP3 | {"kind": "stem", "stem": "bass"}, "Blue Bossa - bass.mp3"),
    "All stems": (MP3 | {"kind": "zip", "residual": True}, "Blue Bossa.zip"),
    "Stem file": ({"kind": "stem-file"}, "Blue Bossa.stem.mp4"),
}


@pytest.mark.parametrize("what", DOWNLOADS)
def test_every_download_requests_what_was_chosen(open_page, server, what):
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Mute Vocals").click()
    page.locator(".track-header").get_by_role("button", name="Download").click()
    page.get_by_role("radio", name=what).check()
    if what != "Stem file":
        page.get_by_label("Format").select_option("mp3")
    if what == "One stem":
        page.get_by_label("Stem", exact=True).select_option("bass")
    if what == "All stems":
        page.get_by_label("Include the residual").check()
    bodies = requested_exports(page)
    with page.expect_download() as download:
        page.locator("#download-start").click()
    choices, filename = DOWNLOADS[what]
    assert download.value.suggested_filename == filename
    assert bodies == [choices]
    page.locator("#download-dialog").wait_for(state="hidden")


def test_the_loop_and_the_tempo_can_be_downloaded(open_page, server):
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    page.evaluate("app.player.setLoop({ from: 44100, to: 88200, on: true })")
    page.evaluate("app.player.setStretch(0.8, 2)")
    page.locator(".track-header").get_by_role("button", name="Download").click()
    page.get_by_label("Loop only, 0:01.0 to 0:02.0").check()
    bodies = requested_exports(page)
    with page.expect_download():
        page.locator("#download-start").click()
    region = {"from": 1, "to": 2, "tempo": 0.8, "pitch": 2}
    assert bodies[0].items() >= (region | {"kind": "mix"}).items()
    page.locator(".track-header").get_by_role("button", name="Download").click()
    page.get_by_role("radio", name="All stems").check()
    page.get_by_label("Apply tempo 80% and pitch +2").check()
    with page.expect_download():
        page.locator("#download-start").click()
    assert bodies[1].items() >= {"kind": "zip", "tempo": 0.8, "pitch": 2}.items()


def test_the_progress_of_a_download_and_its_refusal_are_shown(open_page, server, monkeypatch):
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    going, make = threading.Event(), export_routes._make_files

    def wait_and_make(track, *rest):
        track.on_frames(5 * RATE)
        assert going.wait(20)
        return make(track, *rest)

    monkeypatch.setattr(export_routes, "_make_files", wait_and_make)
    page.locator(".track-header").get_by_role("button", name="Download").click()
    bodies = requested_exports(page)
    start, status = page.locator("#download-start"), page.locator("#download-status")
    start.click()
    page.wait_for_function("() => document.querySelector('#download-progress').value === 0.25")
    assert "Preparing…" in status.inner_text()
    assert start.is_disabled()
    with page.expect_download():
        going.set()
    assert len(bodies) == 1

    server.change(song, files={})
    page.locator(".track-header").get_by_role("button", name="Download").click()
    server.change(song, state="failed")
    start.click()
    page.get_by_role("alert").filter(has_text="this track is not finished").wait_for()
    assert status.is_hidden()
    assert start.is_enabled()


def test_a_dialog_that_is_closed_cancels_its_download(open_page, server, monkeypatch):
    song = server.add(seconds=10)
    page = open_page(f"#{song.id}")
    cancelled = threading.Event()

    def wait(track, *_):
        while not track.is_cancelled():
            time.sleep(0.01)
        cancelled.set()
        raise export_routes.ConflictError("cancelled")

    monkeypatch.setattr(export_routes, "_make_files", wait)
    page.locator(".track-header").get_by_role("button", name="Download").click()
    page.locator("#download-start").click()
    page.locator("#download-status").wait_for()
    page.keyboard.press("Escape")
    assert cancelled.wait(20)


def requested_exports(page):
    """Return the list of the bodies of requests to prepare a download, as they come."""
    bodies = []
    page.on("request", lambda r: r.url.endswith("/exports") and bodies.append(r.post_data_json))
    return bodies


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_track_that_ended_badly_is_separated_with_another_model(open_page, server, state):
    song = server.add(seconds=10, state=state, error="the hub is unreachable", code="no-model")
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Separate again…").click()
    page.get_by_role("radio", name="mini").check()
    page.locator("#model-done").click()
    page.locator(".status", has_text="Queued").wait_for()
    assert (song.values["state"], song.values["model"]) == ("queued", "mini")
    assert len(server.songs) == 1


def test_a_model_that_is_not_there_yet_is_told_and_mini_is_offered(open_page, server):
    page = open_page()
    note = page.locator("#model-note")
    assert "htdemucs is downloaded with the first song (84 MB)" in note.inner_text()
    note.get_by_role("button", name="use mini instead").click()
    assert note.is_hidden()
    page.evaluate(DROP, ["One.mp3"])
    page.wait_for_function("() => app.tracks.size === 1")
    assert [upload["model"] for upload in server.uploads] == ["mini"]


def test_a_name_is_shown_as_it_was_written(open_page, server):
    page = open_page()
    page.evaluate(DROP, ["what? is: love*.mp3"])
    page.wait_for_selector("#title:has-text('what? is: love*')")
    (song,) = server.songs.values()
    assert Path(server.state.tracks.row(song.id)["path"]).name == "what_ is_ love_.mp3"


def test_only_the_upload_that_is_sent_says_so(open_page, server):
    page = open_page()
    page.evaluate("() => { window.XMLHttpRequest.prototype.send = () => {}; }")
    page.evaluate(DROP, ["one.mp3", "two.mp3"])
    rows = page.locator(".row .detail")
    assert rows.all_inner_texts() == ["Sending… 0%", "Waiting to be sent"]


def test_the_page_works_below_a_path_prefix(open_page, start_server):
    """A reverse proxy may serve the page under a path."""
    server = start_server(prefix="/music")
    song = server.add(seconds=5)
    page = open_page(f"#{song.id}", url=server.url)
    page.get_by_role("button", name="Play", exact=True).click()
    page.locator(".play[data-state=playing]").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Vocals").click()
    assert download.value.url.startswith(f"{server.url}api/")


def test_a_stem_s_file_is_linked_in_its_channel_strip(open_page, server):
    song = server.add(seconds=5)
    page = open_page(f"#{song.id}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download Vocals").click()
    assert download.value.suggested_filename.endswith(" - vocals.wav")


def test_the_page_and_the_server_search_alike(open_page):
    found = open_page().evaluate(
        """async (searches) => {
      const { Tracks } = await import("/page/tracks.js");
      return searches.map(([title, search]) => {
        const tracks = new Tracks();
        const track = { id: "1", name: "", title, state: "unseparated", created: "" };
        tracks.apply({ version: 1, tracks: [track], removed: [], whole: true });
        return tracks.sorted(search).others.length > 0;
      });
    }""",
        [[text, search] for text, search, _ in SEARCHES],
    )
    assert [
        one[:2] for one, is_there in zip(SEARCHES, found, strict=True) if one[2] != is_there
    ] == []
