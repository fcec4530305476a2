"""Hosts, origins, the token, and the headers and errors of responses."""

import pytest

from htdemucs.serve.auth import Access
from htdemucs.serve.server import stored_token

NEEDED = "open the address that the server printed"


def test_every_response_has_the_security_headers(client):
    for path in ("/", "/api/tracks", "/api/nothing", "/page/index.html", "/health"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "", "[::1", "a b"])
def test_unknown_host_names_are_refused(client, host):
    """DNS rebinding: a page of evil.example makes its name an address of ours."""
    assert client.get("/api/tracks", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "192.168.1.7", "LOCALHOST"])
def test_ip_addresses_and_own_names_are_allowed(client, host):
    assert client.get("/api/tracks", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_cannot_change_anything(client, headers):
    assert client.delete("/api/tracks/x").status_code == 404
    assert client.post("/api/tracks/x/cancel", headers=headers).status_code == 403


def test_a_proxy_that_changes_the_host_header_may_keep_the_page_working(client):
    """The browser knows that the page and the server have the same origin; nginx drops the port."""
    headers = {"origin": "https://music.example:8443", "sec-fetch-site": "same-origin"}
    assert client.post("/api/tracks/x/cancel", headers=headers).status_code == 404


def test_pages_of_other_sites_cannot_read_anything(client):
    other = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/api/tracks", headers=other).status_code == 403
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    own = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert client.post("/api/tracks/x/cancel", headers=own).status_code == 404


def test_requests_without_the_token_are_refused(guarded):
    assert guarded.get("/health").status_code == 200  # for supervisors
    for path in ("/", "/api/tracks", "/page/index.html", "/api/openapi.json"):
        response = guarded.get(path)
        assert response.status_code == 401
        assert NEEDED in response.json()["error"]
    wrong = {"authorization": "Bearer wrong"}
    assert guarded.get("/api/tracks", headers=wrong).status_code == 401
    assert guarded.get("/?token=wrong").status_code == 401
    assert guarded.get("/?token=sécret").status_code == 401


def test_the_login_page_is_in_the_browser_s_language(guarded):
    person = {"accept": "text/html,*/*", "accept-language": "de, zh-CN;q=0.8, en;q=0.5"}
    asked = guarded.get("/", headers=person)
    assert asked.status_code == 401
    assert '<html lang="zh-Hans">' in asked.text
    assert "令牌不对" not in asked.text
    assert "<script" not in asked.text
    assert "unsafe" not in asked.headers["content-security-policy"]
    assert "令牌不对" in guarded.get("/?token=<b>wrong</b>", headers=person).text
    english = guarded.get("/?token=<b>wrong</b>", headers=person | {"accept-language": "fr"})
    assert "This is not the server's token" in english.text
    assert "<b>" not in english.text
    assert english.headers["cache-control"] == "no-store"
    for path in ("/page/style.css", "/page/icon.svg"):  # all that it shows
        assert guarded.get(path).status_code == 200
    assert guarded.get("/api/tracks", headers=person).json()["error"]


def test_the_token_in_the_address_is_exchanged_for_a_cookie(guarded):
    response = guarded.get("/?token=secret&track=abc")
    assert response.status_code == 303
    assert response.headers["location"] == "./?track=abc"
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "secret" not in cookie
    headers = {"cookie": cookie.partition(";")[0]}
    assert guarded.get("/api/tracks", headers=headers).status_code == 200
    assert guarded.get("/api/tracks", headers={"cookie": "htdemucs-8000=x"}).status_code == 401


def test_the_redirect_stays_on_this_server(guarded):
    response = guarded.get("http://localhost:8000//evil.example?token=secret")
    assert response.headers["location"] == "./evil.example"


def test_programs_send_the_token_as_bearer(guarded):
    bearer = {"authorization": "Bearer secret"}
    assert guarded.get("/api/tracks", headers=bearer).status_code == 200
    named = bearer | {"host": "music.example"}
    assert guarded.get("/api/tracks", headers=named).status_code == 200


def test_the_token_is_generated_once_and_private(settings):
    token = stored_token(settings)
    assert stored_token(settings) == token
    assert len(token) >= 32
    assert (settings.data / "token").stat().st_mode & 0o077 == 0


def test_the_cookie_depends_on_the_token():
    assert Access("a").cookie != Access("b").cookie


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page//etc/passwd",
        "/api/tracks/..%2f..%2fetc/source",
    ],
)
def test_paths_cannot_leave_the_page_or_the_library(client, path):
    assert client.get(path).status_code in (400, 404)


def test_errors_are_json_without_details_of_the_machine(client, state, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret of the machine")

    monkeypatch.setattr(state.tracks, "row", broken)
    response = client.get("/api/tracks/x/pcm")
    assert response.status_code == 500
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.json() == {
        "error": "something went wrong in the server; see its log",
        "code": None,
    }
    for wrong in ("/api/tracks/x/pcm?from=-1", "/api/tracks?limit=a", "/api/nothing"):
        error = client.get(wrong).json()["error"]
        assert isinstance(error, str)
        assert "Traceback" not in error
