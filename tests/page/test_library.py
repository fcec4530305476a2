"""The list of a large library: scrolling, sorting, groups, and actions on several songs."""

from dataclasses import replace

import pytest

from htdemucs.serve.settings import Limits
from page.server import RATE

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def row(page, title):
    return page.locator(".row").filter(has=page.locator(".title", has_text=title))


def titles(page):
    """The titles of the rows in the document, from top to bottom."""
    return page.locator(".row .title").all_inner_texts()


def focused(page):
    return page.evaluate(
        "document.activeElement.closest('.row')?.querySelector('.title').innerText"
    )


@pytest.mark.parametrize("options", [{}, PHONE], ids=["wide", "phone"])
def test_only_the_visible_part_of_5000_songs_is_in_the_document(open_page, server, options):
    server.add_many(5000)
    page = open_page(**options)
    page.locator("#sort").select_option("title")
    row(page, "Song 0").wait_for()
    assert titles(page)[0] == "Song 0"
    assert 10 < page.locator(".row").count() < 60
    assert row(page, "Song 0").first.get_attribute("aria-setsize") == "5000"
    page.evaluate("document.querySelector('.lists').scrollTop = 1e6; scrollTo(0, 1e6)")
    last = row(page, "Song 4999")
    last.wait_for()
    assert last.get_attribute("aria-posinset") == "5000"
    assert page.locator(".row").count() < 60
    assert row(page, "Song 4998").is_visible()
    page.get_by_label("Search").fill("artist 82")
    page.get_by_label("Search").fill("artist 82 song 4979")
    page.wait_for_function("() => document.querySelectorAll('.row').length === 1")
    assert titles(page) == ["Song 4979"]


def test_arrow_keys_move_through_the_list_and_tab_leaves_it(open_page, server):
    server.add_many(300)
    page = open_page()
    page.locator("#sort").select_option("title")
    row(page, "Song 0").wait_for()
    page.get_by_role("button", name="Select songs").focus()
    page.keyboard.press("Tab")
    assert focused(page) == "Song 0"
    for key, title in [("ArrowDown", "Song 1"), ("End", "Song 299"), ("PageUp", "Song 289")]:
        page.keyboard.press(key)
        assert focused(page) == title
        assert row(page, title).first.is_visible()
    box = row(page, "Song 289").bounding_box()
    assert 0 < box["y"] < 800
    page.evaluate("document.querySelector('.lists').scrollTop = 0")  # the focus stays
    page.wait_for_function("() => document.querySelector('.row .title').innerText === 'Song 0'")
    assert focused(page) == "Song 289"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("PageUp")  # to the first song, although a heading is above it
    assert focused(page) == "Song 0"
    page.keyboard.press("Enter")
    page.locator("#title", has_text="Song 0").wait_for()
    page.get_by_role("link", name="Song 0").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused(page) is None


def test_songs_are_sorted_and_grouped_and_the_choice_is_stored(open_page, server):
    add = server.add
    add("b.mp3", 3, title="Blue", artist="Zoot", album="Two", folder="X/Two")
    add("a.mp3", 2, title="green", artist="Art", album="One", folder="X/One")
    add("c.mp3", 4, title="Äther")
    page = open_page()
    row(page, "Blue").wait_for()
    orders = {
        "added": ["Äther", "green", "Blue"],
        "title": ["Äther", "Blue", "green"],
        "artist": ["green", "Blue", "Äther"],
        "length": ["green", "Blue", "Äther"],
    }
    for sort, expected in orders.items():
        page.locator("#sort").select_option(sort)
        assert titles(page) == expected
    assert "Zoot" in row(page, "Blue").inner_text()
    page.locator("#sort").select_option("title")
    page.locator("#group").select_option("folder")
    page.reload()
    row(page, "Blue").wait_for()
    headings = page.locator(".list-heading h2").all_inner_texts()
    assert headings == ["X/One", "X/Two", "Without folder"]
    assert titles(page) == ["green", "Blue", "Äther"]
    page.locator("#group").select_option("album")
    assert page.locator(".list-heading h2").first.inner_text() == "One"
    server.change(next(iter(server.songs.values())), title="Zebra")
    row(page, "Zebra").wait_for()


def test_every_row_has_its_artist(open_page, server):
    states = ["unseparated", "queued", "finished", "failed", "cancelled"]
    for state in states:
        server.add(f"{state}.mp3", 2, state=state, artist=f"Artist of {state}")
    page = open_page()
    for state in states:
        row(page, state).get_by_text(f"Artist of {state}").wait_for()


def test_an_album_is_separated_as_far_as_the_queue_has_room(open_page, server):
    settings = server.state.settings
    server.state.settings = replace(settings, limits=Limits(free_bytes=0, jobs=5))
    server.add_many(24)
    page = open_page()
    page.locator("#group").select_option("album")
    page.get_by_role("button", name="Separate all: Album 1").click()
    page.locator(
        "#toast-text", has_text="5 songs were added to the queue, which is full"
    ).wait_for()
    page.locator(".row", has_text="Queued, position 5").wait_for()
    queued = [song.values for song in server.songs.values() if song.values["state"] == "queued"]
    assert {song["album"] for song in queued} == {"Album 1"}
    assert {song["model"] for song in queued} == {"htdemucs"}


def test_a_range_is_chosen_separated_and_deleted(open_page, server):
    server.add_many(12)
    page = open_page()
    page.locator("#sort").select_option("title")
    bar = page.locator(".selection-bar")
    row(page, "Song 3").locator("a").click(modifiers=["Control"])
    row(page, "Song 6").locator("a").click(modifiers=["Shift"])
    bar.get_by_text("4 selected").wait_for()
    page.get_by_role("checkbox", name="Song 5").click()
    bar.get_by_text("3 selected").wait_for()
    assert page.locator("body").get_attribute("data-view") == "list"
    bar.get_by_role("button", name="Separate").click()
    page.locator(".row", has_text="Queued, position 1").wait_for()
    bar.wait_for(state="hidden")
    states = {song.values["title"]: song.values["state"] for song in server.songs.values()}
    assert [title for title in states if states[title] == "queued"] == ["Song 4"]
    page.get_by_role("button", name="Select songs").click()
    row(page, "Song 0").locator("a").click()
    bar.get_by_role("button", name="Select all").click()
    bar.get_by_text("12 selected").wait_for()
    page.keyboard.press("Escape")
    bar.wait_for(state="hidden")
    row(page, "Song 7").locator("a").focus()
    page.keyboard.press("Control+a")
    bar.get_by_role("button", name="Delete").click()
    page.get_by_text("12 songs were deleted.").wait_for()
    assert page.locator(".row").count() == 0
    page.get_by_role("button", name="Undo").click()
    row(page, "Song 7").wait_for()
    assert len(server.songs) == 12


def test_chosen_songs_are_put_into_an_album_of_any_folders(open_page, server):
    songs = [server.add(f"{name}.mp3", 2, album="Old", folder=name) for name in "abc"]
    page = open_page()
    page.locator("#group").select_option("album")
    row(page, "a").click(modifiers=["Control"])
    row(page, "b").click(modifiers=["Control"])
    page.get_by_role("button", name="Album…").click()
    assert page.get_by_label("Album", exact=True).input_value() == "Old"
    page.get_by_label("Album", exact=True).fill("  Saturday's set ")
    page.keyboard.press("Enter")
    page.locator(".selection-bar").wait_for(state="hidden")
    headings = page.locator(".list-heading h2")
    page.wait_for_function("() => document.querySelectorAll('.list-heading h2').length === 2")
    assert headings.all_inner_texts() == ["Old", "Saturday's set"]
    assert [song.values["album"] for song in songs] == ["Saturday's set"] * 2 + ["Old"]


def test_chosen_songs_are_downloaded_in_one_file(open_page, server):
    songs = [server.add(name, 2) for name in ("One.mp3", "Two.mp3")]
    server.add_unseparated("Three.mp3", 2)
    page = open_page()
    row(page, "One").locator("a").click(modifiers=["Control"])
    page.get_by_role("button", name="Select all").click()
    bodies = []
    page.on("request", lambda r: r.url.endswith("/exports") and bodies.append(r.post_data_json))
    page.locator(".selection-bar").get_by_role("button", name="Download").click()
    page.get_by_text("The stems of 2 songs in one ZIP file").wait_for()
    with page.expect_download() as download:
        page.locator("#download-start").click()
    assert download.value.suggested_filename == "2 tracks.zip"
    assert [sorted(body["tracks"]) for body in bodies] == [sorted(song.id for song in songs)]
    page.locator(".selection-bar").get_by_role("button", name="Download").click()
    page.get_by_label("Format").select_option("mp3")
    with page.expect_download():
        page.locator("#download-start").click()
    assert (bodies[1]["format"], bodies[1]["bitrate"]) == ("mp3", 320)


def test_a_deletion_is_undone_or_sent_after_ten_seconds(open_page, server):
    song, other = server.add("A.mp3", 5), server.add("B.mp3", 5)
    page = open_page(f"#{song.id}")
    page.clock.install()
    page.locator(".track").get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("“A” was deleted. In ten seconds its files").wait_for()
    page.get_by_role("heading", name="Drop a song here").wait_for()
    page.clock.run_for(9000)
    assert len(server.songs) == 2
    page.get_by_role("button", name="Undo").click()
    page.locator("#title", has_text="A").wait_for()
    page.clock.run_for(20_000)
    page.get_by_role("button", name="Delete B").click()
    page.get_by_role("button", name="Delete A").click()
    page.get_by_text("2 songs were deleted.").wait_for()
    page.keyboard.press("Control+z")
    row(page, "B").wait_for()
    page.get_by_role("button", name="Delete B").click()
    with page.expect_response("**/delete"):
        page.clock.run_for(10_000)
    page.get_by_text("“B” was deleted.").wait_for(state="hidden")
    assert list(server.songs) == [song.id]
    assert not (server.state.settings.uploads / other.id).exists()


def test_a_closed_page_sends_its_deletions(open_page, server):
    song = server.add("A.mp3", 5)
    page = open_page()
    page.get_by_role("button", name="Delete A").click()
    page.get_by_role("button", name="Undo").wait_for()
    page.goto("about:blank")
    for _ in range(1000):
        if song.id not in server.songs:
            break
        page.wait_for_timeout(10)
    assert server.songs == {}


def test_a_refused_deletion_shows_the_song_again(open_page, server):
    server.add("A.mp3", 5)
    page = open_page()
    page.clock.install()
    page.route(
        "**/api/tracks/delete", lambda route: route.fulfill(status=503, json={"error": "no"})
    )
    page.get_by_role("button", name="Delete A").click()
    row(page, "A").wait_for(state="detached")
    page.clock.run_for(10_000)
    row(page, "A").wait_for()
    page.get_by_role("alert").filter(has_text="no").wait_for()


def test_a_song_without_stems_plays_as_it_is(open_page, server):
    song = server.add_unseparated("Found.flac")
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => app.player.state === 'playing' && app.player.position > 4410")
    assert page.evaluate("app.player.mixer.channels") == 2
    assert page.locator(".lane .wave.stem").count() == 1
    assert page.locator(".channel-strip").all_inner_texts() == ["Original"]
    assert page.get_by_label("Preset of the mix").is_hidden()
    assert song.values["frames"] == 10 * RATE
    page.get_by_role("button", name="Separate", exact=True).click()
    page.locator("#model-dialog").get_by_role("button", name="Separate").click()
    page.locator(".status", has_text="Queued").wait_for()
    page.wait_for_function("() => app.player.state === 'waiting'")
    server.change(song, stems=["drums", "bass", "other", "vocals"], frames=None)
    server.separate(song, 8.0)
    page.locator(".channel-strip").nth(3).wait_for()
    page.wait_for_function("() => app.player.state === 'playing'")
    assert page.evaluate("app.player.mixer.channels") == 10


def test_a_song_that_cannot_be_decoded_says_so(open_page, server):
    song = server.add_unseparated("Noise.flac")
    source = server.state.settings.uploads / song.id / "source.wav"
    source.unlink()  # a link to what other tests use
    source.write_bytes(b"noise")
    page = open_page(f"#{song.id}")
    page.locator(".track-state.alone .status", has_text="source.wav").wait_for()
    assert page.locator(".transport").is_hidden()


def test_title_and_artist_are_edited_with_the_keyboard(open_page, server):
    song = server.add("01 track.mp3", 5, artist="Unknown", album="Best of")
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Edit title, artist and album").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("So What")
    page.keyboard.press("Tab")
    page.keyboard.type("Miles Davis")
    page.keyboard.press("Enter")
    page.locator("#title", has_text="So What").wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit title, artist and album"
    row(page, "So What").get_by_text("Miles Davis").wait_for()
    shown = {name: song.values[name] for name in ("title", "artist", "album")}
    assert shown == {"title": "So What", "artist": "Miles Davis", "album": "Best of"}
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")
    page.keyboard.press("Escape")
    assert page.locator("#title").inner_text() == "So What"
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    page.locator("#title", has_text="01 track").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_reports_no_violations(open_page, server, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    server.add_many(40)
    song = server.add_unseparated("Found.flac", 5, artist="Chet Baker")
    page = open_page(f"#{song.id}", color_scheme=scheme, reduced_motion="reduce")
    page.locator("#group").select_option("album")
    page.locator(".track").get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Undo").wait_for()
    results = [axe.Axe().run(page)]
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Edit title, artist and album").click()
    row(page, "Song 3").first.locator("a").click(modifiers=["Control"])
    results.append(axe.Axe().run(page))
    page.get_by_role("button", name="Select all").click()
    page.locator(".selection-bar").get_by_role("button", name="Download").click()
    page.locator("#download-dialog").wait_for()
    results.append(axe.Axe().run(page))
    violations = [violation for result in results for violation in result.response["violations"]]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in violations] == []


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_nothing_overflows_while_songs_are_chosen_or_edited(open_page, server, language):
    server.add_many(40)
    song = server.add_unseparated("Found.flac", 5, artist="Chet Baker")
    page = open_page(locale=language, **PHONE)
    page.locator("#list-tools button").click()
    row(page, "Found").locator("a").click()
    for width, height in ((390, 844), (768, 1024), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        box = page.locator(".selection-bar").bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("(id) => { location.hash = id; }", song.id)
    page.locator(".heading-line button").click()
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        edges = page.locator(".track-edit :is(input, button)").all()
        assert max(e.bounding_box()["x"] + e.bounding_box()["width"] for e in edges) <= width
