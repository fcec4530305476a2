"""One browser for the tests of a file, and a new server and page for each test.

The browser does not outlive the file, because Playwright's event loop, which runs as long as its
browser, would be in the way of other tests' loops.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest

from page.server import PageServer

CHROMIUM = [
    Path("/usr/bin/chromium"),
    Path("/usr/bin/chromium-browser"),
    Path("/usr/bin/google-chrome"),
]
ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
WAIT = 20_000  # milliseconds until a wait fails


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next((path for path in CHROMIUM if path.exists()), None)
    if path is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """The folder of the files that servers share."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture
def start_server(tmp_path_factory, recordings):
    """Return a function that starts a server, which the test's end stops."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            PageServer(tmp_path_factory.mktemp("data"), recordings, **options)
        )


@pytest.fixture
def server(start_server):
    return start_server()


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens the page; errors on its console fail the test."""
    contexts, errors = [], []

    def open_page(hash="", url=None, **options):
        options = {"service_workers": "block", "locale": "en-GB", **options}
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and errors.append(line.text))
        page.goto((url or server.url) + hash)
        page.wait_for_selector("body[data-ready]")
        page.evaluate(
            "async () => { window.app = await import(new URL('page/main.js', document.baseURI)); }"
        )
        if hash:  # the track comes with the first event
            page.wait_for_function("() => app.tracks.version !== null")
        return page

    yield open_page
    for context in contexts:
        context.close()
    expected = "Failed to load resource"  # which the browser logs for every refused request
    assert [text for text in errors if expected not in text] == []
