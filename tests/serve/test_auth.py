"""Hosts, origins, the token, and the headers and errors of responses."""

import asyncio

import httpx
import pytest

from htdemucs.serve.app import create_app
from htdemucs.serve.auth import MAX_REMEMBERED, Access, Throttle
from htdemucs.serve.server import make_config, stored_secret

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


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "", "[::1", "a b", "localhost:99999"]
)
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
        {"origin": "http://[::1"},
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
    token = stored_secret(settings, "token")
    assert stored_secret(settings, "token") == token
    assert len(token) >= 32
    assert (settings.data / "token").stat().st_mode & 0o077 == 0


def test_the_cookie_depends_on_the_token_and_on_a_key():
    first = Access("a", cookie_key=b"1").cookie
    assert Access("a", cookie_key=b"1").cookie == first  # after a restart
    assert Access("b", cookie_key=b"1").cookie != first
    assert Access("a", cookie_key=b"2").cookie != first


class Site:
    """The application behind uvicorn's handling of proxies, with a clock that a test sets."""

    def __init__(self, state, proxies=(), **options):
        self.time = 0.0
        self.throttle = Throttle(lambda: self.time, 3, 10.0, 6, 5.0)
        self.access = Access.to("the token", ["music.example"], throttle=self.throttle, **options)
        config = make_config(create_app(state, self.access), proxies)
        config.load()
        self._app = config.loaded_app

    def get(self, path="/api/tracks", client="192.0.2.1", token=None, **headers):
        if token:
            headers["authorization"] = f"Bearer {token}"

        async def ask():
            transport = httpx.ASGITransport(self._app, client=(client, 1))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://music.example", headers=headers
            ) as session:
                return await session.get(path)

        return asyncio.run(ask())

    def status(self, token, client="192.0.2.1", **headers):
        return self.get(client=client, token=token, **headers).status_code

    def cookie(self, **options):
        return self.get("/?token=the%20token", **options).headers["set-cookie"]


def test_wrong_tokens_of_an_address_are_slowed_down(state):
    site = Site(state)
    assert [site.status(f"wrong {i}") for i in range(5)] == [401, 401, 401, 429, 429]
    refused = site.get(token="the token")  # otherwise many guesses at once would not be slowed
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    assert "too many wrong tokens; try again in 10 s" in refused.json()["error"]
    page = site.get("/?token=the%20token", accept="text/html")
    assert page.status_code == 429
    assert "too many wrong tokens" in page.text
    assert site.status("the token", "192.0.2.2") == 200  # another address
    site.time = 10.0
    assert [site.status("the token"), site.status("wrong 8"), site.status("x")] == [200, 401, 429]
    site.time = 40.0
    assert [site.status(f"later {i}") for i in range(4)] == [401, 401, 401, 429]


def test_wrong_tokens_delay_no_open_page_and_no_program_with_an_old_token(state):
    site = Site(state)
    cookie = site.cookie().partition(";")[0]
    assert [site.status("old token") for _ in range(9)] == [401] * 9
    assert site.status("the token") == 200
    for i in range(5):
        site.status(f"wrong {i}")
    assert site.status("the token") == 429
    assert site.get(cookie=cookie).status_code == 200  # also if a proxy hides who sent the others
    forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    assert [site.get(cookie=forged).status_code for _ in range(9)] == [401] * 9


def test_wrong_tokens_of_many_addresses_are_slowed_down_together(state):
    site = Site(state)
    known = "198.51.100.1"
    assert site.status("the token", known) == 200
    codes = [site.status(f"wrong {i}", f"192.0.2.{i}") for i in range(8)]
    assert codes == [401] * 6 + [429] * 2
    assert site.status("the token", "192.0.2.99") == 429
    assert site.status("the token", known) == 200  # the right token came from here before
    site.time = 5.0
    assert site.status("the token", "192.0.2.99") == 200


def test_an_ipv6_network_counts_as_one_address(state):
    site = Site(state)
    codes = [site.status(f"wrong {i}", f"2001:db8:1:2::{i}") for i in range(4)]
    assert codes == [401, 401, 401, 429]
    assert site.status("the token", "2001:db8:1:3::1") == 200
    assert site.status("the token", "::ffff:192.0.2.7") == 200
    assert site.status("the token", "nonsense") == 200


def test_the_throttle_s_memory_is_bounded():
    throttle = Throttle(lambda: time, total_interval=0.01)
    for time in range(2 * MAX_REMEMBERED):
        address = f"{time >> 8}.{time % 256}"
        assert not throttle.check(lambda _: False, f"wrong {time}", f"10.0.{address}")
        assert throttle.check(lambda _: True, f"right {time}", f"10.1.{address}")
    sizes = [len(value) for value in vars(throttle).values() if isinstance(value, dict)]
    assert len(sizes) == 3
    assert max(sizes) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    ("proxies", "client", "header", "https", "is_secure"),
    [
        ((), "127.0.0.1", "https", False, True),
        ((), "::1", "https", False, True),
        ((), "127.0.0.1", "http", False, False),
        ((), "127.0.0.1", None, False, False),
        ((), "172.18.0.2", "https", False, False),  # anybody could send this header
        (("172.18.0.0/16",), "172.18.0.2", "https", False, True),
        ((), "172.18.0.2", None, True, True),
    ],
)
def test_the_cookie_is_secure_behind_https(state, proxies, client, header, https, is_secure):
    site = Site(state, proxies, https=https)
    headers = {"x-forwarded-proto": header} if header else {}
    assert ("Secure" in site.cookie(client=client, **headers)) is is_secure


def test_an_allowed_proxy_names_the_client(state):
    site = Site(state)
    codes = [
        site.status(f"wrong {i}", "127.0.0.1", **{"x-forwarded-for": "192.0.2.1"}) for i in range(4)
    ]
    assert codes == [401, 401, 401, 429]
    assert site.status("the token", "127.0.0.1", **{"x-forwarded-for": "192.0.2.2"}) == 200
    codes = [  # from anybody else the header counts for nothing
        site.status(f"more {i}", "192.0.2.3", **{"x-forwarded-for": f"192.0.2.{9 + i}"})
        for i in range(4)
    ]
    assert codes[-1] == 429


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
