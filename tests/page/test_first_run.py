"""The first visit: the example song, the choice of a model, and downloads of models."""

from pathlib import Path

import pytest

from page.server import PAGE

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("ready", "model"), [(True, "htdemucs"), (False, "mini")])
def test_the_example_song_is_sent_with_a_model_that_works_at_once(open_page, server, ready, model):
    page = open_page()

    def change_info(route):
        info = route.fetch().json()
        for each in info["models"]:
            each["ready"] = ready or each["name"] == "mini"
        route.fulfill(json=info)

    page.route("**/api/info", change_info)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    page.get_by_role("button", name="Try the example song").click()
    page.locator("#title", has_text="Example song").wait_for()
    [upload] = server.uploads
    assert upload.get("shifts", "1") == "1"
    assert (upload["name"], upload["model"]) == ("Example song.opus", model)
    [song] = server.songs.values()
    path = Path(server.state.tracks.row(song.id)["path"])
    assert path.read_bytes() == (PAGE / "example.opus").read_bytes()


def test_older_models_are_folded_away_unless_one_is_selected(open_page):
    page = open_page()
    button = page.locator(".welcome [data-pick-model]")
    button.click()
    for name in ("mini", "htdemucs", "htdemucs_ft", "htdemucs_6s"):
        assert page.get_by_label(name, exact=False).first.is_visible()
    assert not page.get_by_label("hdemucs_mmi").is_visible()
    page.get_by_text("licence MIT").wait_for()
    assert page.get_by_text("no licence stated").first.is_visible()
    assert page.get_by_text("means that no source states a licence").is_visible()
    page.get_by_text("Older models").click()
    page.get_by_label("hdemucs_mmi").check()
    page.get_by_role("button", name="Done").click()
    button.click()
    assert page.get_by_label("hdemucs_mmi").is_visible()
