"""The installed page: its offline shell, notifications, and files that are dragged out of it."""

import json

import pytest

from page.server import PAGE

pytestmark = pytest.mark.browser


def test_the_page_opens_without_a_connection_after_one_visit(browser, start_server):
    server = start_server()
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(server.url)
    page.evaluate("navigator.serviceWorker.ready")
    files = set(
        page.evaluate("""async () => {
      const cache = await caches.open("page");
      return (await cache.keys()).map(({ url }) => new URL(url).pathname);
    }""")
    )
    assert {"/", "/page/main.js", "/page/style.css", "/page/i18n/zh.js"} <= files
    assert not any(path.startswith("/api") for path in files)
    server.__exit__()
    page.reload()
    page.locator(".offline", has_text="Connection lost").wait_for()
    page.get_by_role("heading", name="Drop a song here").wait_for()
    context.close()


def test_the_manifest_names_files_that_exist(open_page, server):
    page = open_page()
    response = page.request.get(f"{server.url}manifest.webmanifest")
    assert response.headers["content-type"] == "application/manifest+json"
    icons = json.loads(response.text())["icons"]
    assert all((PAGE.parent / icon["src"]).is_file() for icon in icons)
    problems = page.context.new_cdp_session(page).send("Page.getAppManifest")["errors"]
    assert problems == []


NOTIFICATIONS = """() => {
  window.shown = [];
  window.Notification = class {
    static permission = "default";
    static requestPermission = async () => (Notification.permission = "granted");
    constructor(text) { shown.push(text); }
  };
}"""


def test_a_notification_is_offered_once_and_shown_while_the_page_is_hidden(open_page, server):
    songs = [server.add(f"{name}.mp3", 20, state="queued") for name in ("Solar", "Oleo")]
    page = open_page(f"#{songs[0].id}")
    page.evaluate(NOTIFICATIONS)
    offer = page.get_by_role("button", name="Notify me when it is ready")
    server.separate(songs[0], 2.0)
    server.change(songs[0], speed=1.0)
    page.locator(".status", has_text="0:18 left").wait_for()
    assert not offer.is_visible()  # it does not take long
    server.change(songs[0], speed=0.1)
    offer.click()
    offer.wait_for(state="hidden")
    hide = """(hidden) =>
      Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true })"""
    page.evaluate(hide, True)
    server.change(songs[0], state="finished", done=20.0)
    page.wait_for_function("() => shown.length > 0")
    assert page.evaluate("shown") == ["Solar is ready."]
    page.evaluate(hide, False)
    page.evaluate("Notification.permission = 'default'")
    server.separate(songs[1], 2.0)
    server.change(songs[1], speed=0.1)
    page.evaluate(f"location.hash = '{songs[1].id}'")
    page.locator(".status", has_text="3:00 left").wait_for()
    assert not offer.is_visible()


def test_a_stem_s_file_can_be_dragged_out_of_the_page(open_page, server):
    song = server.add("Solar.flac", 2)
    page = open_page(f"#{song.id}")
    link = page.get_by_role("link", name="Download Bass")
    data = link.evaluate("""(link) => {
      const event = new DragEvent("dragstart", { dataTransfer: new DataTransfer(), bubbles: true });
      link.dispatchEvent(event);
      return event.dataTransfer.getData("DownloadURL");
    }""")
    kind, name, url = data.split(":", 2)
    assert (kind, name) == ("application/octet-stream", "bass.wav")
    assert page.request.get(url).headers["content-disposition"].startswith("attachment")
