"""Links to a moment and a mix of a song, and the tab's title."""

import re

import pytest

from page.test_track_list import hide, wait_for_streams

pytestmark = pytest.mark.browser

POSITION = "app.player.position / 44100"


def copy_link(page):
    page.get_by_role("button", name="Copy a link to this moment and mix").click()
    page.get_by_role("button", name="Link copied").wait_for()
    return page.evaluate("navigator.clipboard.readText()")


def test_a_copied_link_opens_at_its_moment_with_its_mix(open_page, server):
    song = server.add("Solar.flac", 20)
    page = open_page(f"#{song.id}", permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("app.player.seek(8.3 * 44100)")
    page.get_by_role("button", name="Mute Vocals").click()
    page.get_by_role("button", name="Solo Drums").click()
    page.get_by_role("slider", name="Bass volume").fill("40")
    page.get_by_role("slider", name="Bass pan").fill("-30")
    link = copy_link(page)
    fragment = f"#{song.id}?t=8.3&mix=drums:1:0:s,bass:0.25:-0.3,vocals:1:0:m"
    assert link == server.url + fragment
    other = open_page(fragment)  # another browser
    other.wait_for_function("() => app.player.position > 0")
    assert other.evaluate(POSITION) == pytest.approx(8.3, abs=0.001)
    assert other.evaluate("app.player.mix") == {
        "drums": {"gain": 1, "pan": 0, "mute": False, "solo": True},
        "bass": {"gain": 0.25, "pan": -0.3, "mute": False, "solo": False},
        "vocals": {"gain": 1, "pan": 0, "mute": True, "solo": False},
    }
    assert other.url == f"{server.url}#{song.id}"


def test_a_link_acts_on_the_open_song_too(open_page, server):
    song = server.add("Solar.flac", 20)
    page = open_page(f"#{song.id}")
    page.get_by_role("button", name="Mute Vocals").click()
    for fragment, position, muted in (
        ("?t=5", 5, True),  # without a mix, which stays
        ("", 5, True),
        ("?t=7.25&mix=", 7.25, None),
        ("?mix=vocals:9:-9:m,constructor:1", 7.25, True),
        ("?t=soon&mix=vocals", 7.25, False),
        ("?t=900", 20, False),
    ):
        page.evaluate("(hash) => { location.hash = hash; }", f"#{song.id}{fragment}")
        page.wait_for_function("() => !location.hash.includes('?')")
        assert page.evaluate(POSITION) == position
        assert page.evaluate("app.player.mix.vocals?.mute ?? null") is muted
    assert page.evaluate("app.player.mix.vocals") == {
        "gain": 1,
        "pan": 0,
        "mute": False,
        "solo": False,
    }


def test_a_link_that_cannot_be_copied_is_shown(open_page, server):
    song = server.add("Solar.flac", 20)
    page = open_page(f"#{song.id}")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }")
    page.get_by_role("button", name="Copy a link").click()
    page.get_by_role("alert").filter(has_text=f"{server.url}#{song.id}?t=0&mix=").wait_for()


def wait_for_title(page, title):
    page.wait_for_function(f"() => /^{re.escape(title)}$/.test(document.title)")


def test_the_tab_s_title_shows_the_progress_while_the_song_is_separated(open_page, server):
    song = server.add("Oleo.mp3", 20, state="queued")
    page = open_page(f"#{song.id}")
    wait_for_title(page, "Oleo – htdemucs")
    server.separate(song, 5.0)
    wait_for_title(page, "25% – Oleo")
    hide(page, True)
    server.separate(song, 10.0)
    wait_for_title(page, "50% – Oleo")
    server.change(song, state="finished", done=20.0)
    wait_for_title(page, "Oleo – htdemucs")
    wait_for_streams(page, server, 0)  # a hidden tab follows no longer than that
    hide(page, False)
    page.evaluate("location.hash = ''")
    wait_for_title(page, "htdemucs")
