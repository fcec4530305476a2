"""The settings dialog: the stems' format, the use of the disk, and deleting previews."""

import pytest

pytestmark = pytest.mark.browser


def open_settings(page):
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_text("Disk space").wait_for()
    return page.locator("#settings-dialog")


def test_the_stems_format_is_shown_and_set(open_page, server):
    page = open_page()
    dialog = open_settings(page)
    assert dialog.get_by_role("radio", name="WAV").is_checked()
    dialog.get_by_role("radio", name="WAV").focus()
    with page.expect_response("**/api/storage") as response:
        page.keyboard.press("ArrowRight")  # the keyboard stays in the group
    assert response.value.status == 200
    assert server.state.storage.stem_format() == "flac"
    assert page.evaluate("document.activeElement.value") == "flac"
    page.reload()
    assert open_settings(page).get_by_role("radio", name="FLAC").is_checked()


def test_a_format_of_the_command_line_cannot_be_changed(open_page, start_server):
    page = open_page(url=start_server(format="flac").url)
    dialog = open_settings(page)
    dialog.get_by_text("Set by --format").wait_for()
    assert dialog.get_by_role("radio", name="FLAC").is_checked()
    assert dialog.get_by_role("radio", name="WAV").is_disabled()


def test_a_refusal_is_shown_and_the_choice_is_undone(open_page, server):
    page = open_page()
    dialog = open_settings(page)
    page.route("**/api/storage", lambda route: route.abort())
    dialog.get_by_role("radio", name="FLAC").click()
    dialog.get_by_role("alert").filter(has_text="The server cannot be reached.").wait_for()
    assert dialog.get_by_role("radio", name="WAV").is_checked()
    assert server.state.storage.stem_format() == "wav"


def test_deleted_previews_are_built_again_for_the_open_song(open_page, server):
    song, other = server.add("Solar.flac", 20), server.add("Oleo.flac", 20)
    page = open_page(f"#{song.id}")
    dialog = open_settings(page)
    sizes = dialog.locator("dd").all_inner_texts()
    assert sizes[0] == "0 kB"
    assert sizes[2] == "18 MB"  # 20 s of five lanes in 16 bits and stereo; the songs share files
    dialog.get_by_role("button", name="Delete previews").click()
    page.get_by_text("The previews were deleted.").wait_for(state="attached")
    assert other.values["ranges"] == []
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.evaluate(
        """(id) => {
      const stale = { ...app.tracks.get(id), ranges: [[0, 882000]] }; // before the event arrives
      app.player.update(stale);
      app.player.play();
    }""",
        song.id,
    )
    page.wait_for_function("() => app.player.mixer?.level(3) > 0.01")
    page.wait_for_function("(id) => app.tracks.get(id).ranges[0]?.[1] === 882000", arg=song.id)
    assert other.values["ranges"] == []
