"""The small page that asks a person for the token. It needs no script.

MERGED: Who may speak with the server: hosts, origins, the token; and the headers of every answer.
"""

import hashlib
import ipaddress
import json
import logging
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = Path(__file__).parent / "page" / "token.html"
NEEDS = ("/page/style.css", "/page/icon.svg")  # no secrets, and all that it shows
ENGLISH = {
    "language": "en",
    "title": "Enter the token",
    "where": "The server printed its token when it started. This browser is asked only once.",
    "label": "Token",
    "enter": "Open",
}
CHINESE = {
    "language": "zh-Hans",
    "title": "请输入令牌",
    "where": "服务器启动时显示了令牌。每个浏览器只需输入一次。",
    "label": "令牌",
    "enter": "打开",
}
_WRONG_TOKEN = {
    "en": "This is not the server's token; see what it printed last.",
    "zh-Hans": "令牌不对，请查看服务器最近一次显示的令牌。",
}


def door(languages: str, wrong: bool) -> bytes:
    """Return the page's HTML.

    Args:
        languages: as the browser's header `Accept-Language` lists them, the best first.
        wrong: whether a token was given that is not the server's.
    """
    known = [name for name in languages.lower().split(",") if name.strip()[:2] in ("en", "zh")]
    words = CHINESE if known and known[0].strip().startswith("zh") else ENGLISH
    problem = _WRONG_TOKEN[words["language"]] if wrong else ""
    return _template().substitute(words, problem=problem).encode()


@cache
def _template() -> Template:
    return Template(PAGE.read_text(encoding="utf-8"))


LOG = logging.getLogger(__name__)
YEAR = 365 * 24 * 3600  # seconds
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
FOR_ALL = ("/health", *NEEDS)  # supervisors need no token, nor does the page that asks for it
MISSING = "this server needs a token: open the address that it printed"
WRONG = "this is not the server's token; see what it printed last"
ASKING = {"www-authenticate": "Bearer", "cache-control": "no-store"}
DOOR = ASKING | {"content-type": "text/html; charset=utf-8"}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def own_names() -> frozenset[str]:
    """Return the names under which people reach this machine."""
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, f"{name}.local"})


@dataclass(frozen=True)
class Access:
    """Who is let in.

    Attributes:
        token: that everyone needs; None: nobody needs one.
        hosts: names that requests may be addressed to. Addresses in numbers always may: a page
            of another site cannot make its own name one of them (DNS rebinding).
    """

    token: str | None = None
    hosts: frozenset[str] = field(default_factory=own_names)

    @classmethod
    def to(cls, token: str | None, hosts: Iterable[str] = ()) -> "Access":
        """Return the access with further names of hosts."""
        return cls(token, own_names() | {host.lower() for host in hosts})

    def is_allowed_host(self, host: str) -> bool:
        """Whether a request addressed to this host (and port) is meant for us."""
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self.hosts
        return True

    def admits(self, candidate: str) -> bool:
        """Whether this is the token; the time that it takes tells nothing."""
        if self.token is None:
            return True
        return secrets.compare_digest(candidate.encode("utf-8", "replace"), self.token.encode())

    @property
    def cookie(self) -> str:
        """What the browser keeps instead of the token."""
        return hashlib.sha256(f"htdemucs {self.token}".encode()).hexdigest()


class AuthMiddleware:
    """Lets in whom `access` admits; everybody else gets a sentence."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        begun = said = False

        async def with_headers(message: Message) -> None:
            nonlocal begun, said
            if said:
                return
            begun = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] >= 400 and _is_plain(headers):  # starlette's, of ranges
                    kept = {name: headers[name] for name in ("content-range",) if name in headers}
                    reason = HTTPStatus(message["status"]).description
                    await _answer(with_headers, message["status"], reason, kept)
                    said = True
                    return
                for name, value in HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/api/") or "set-cookie" in headers:
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self._guarded(scope, receive, with_headers)
        except Exception:
            LOG.exception("%s %s", scope["method"], scope["path"])
            if begun:
                raise  # the connection breaks, so that nobody takes the answer for whole
            await _answer(with_headers, 500, "something went wrong in the server; see its log")

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if problem := self._problem(scope, headers):
            await _answer(send, *problem)
        elif self._access.token is None or scope["path"] in FOR_ALL or self._is_known(headers):
            await self._app(scope, receive, send)
        else:
            await self._ask(scope, headers, send)

    def _problem(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        try:
            known = self._access.is_allowed_host(host)
        except ValueError:
            known = False
        if not known:
            return 403, "this server does not go by that name; allow it with --allow-host"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        from_elsewhere = site in ("cross-site", "same-site")
        if scope["method"] in SAFE_METHODS:
            if from_elsewhere and headers.get("sec-fetch-mode") != "navigate":
                return 403, "pages of other sites may not ask this server"
        elif from_elsewhere or (origin is not None and urlsplit(origin).netloc != host):
            return 403, "pages of other sites may not change anything here"
        return None

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._access.admits(token.strip()):
            return True
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(headers))
        except CookieError:
            return False
        value = morsel.value if morsel else ""
        return secrets.compare_digest(
            value.encode("utf-8", "replace"), self._access.cookie.encode()
        )

    async def _ask(self, scope: Scope, headers: Headers, send: Send) -> None:
        """Take the token from the address, once, and give a cookie for it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        token = dict(query).get("token")
        asks = scope["method"] == "GET"
        if not asks or token is None or not self._access.admits(token):
            wrong = asks and token is not None
            if asks and scope["path"] == "/" and "text/html" in headers.get("accept", ""):
                await _send(send, 401, door(headers.get("accept-language", ""), wrong), DOOR)
            else:
                await _answer(send, 401, WRONG if wrong else MISSING, ASKING)
        else:
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            location = "./" + scope["path"].rpartition("/")[2] + (f"?{rest}" if rest else "")
            cookie = (
                f"{_cookie_name(headers)}={self._access.cookie}; Path=/; Max-Age={YEAR}; "
                "HttpOnly; SameSite=Strict"
            )
            await _answer(send, 303, "", {"location": location, "set-cookie": cookie})


def _is_plain(headers: MutableHeaders) -> bool:
    return headers.get("content-type", "").startswith("text/plain")


def _cookie_name(headers: Headers) -> str:
    """Return a name for each port: a host's servers share their cookies."""
    port = urlsplit(f"//{headers.get('host', '')}").port
    return f"htdemucs-{port or 'web'}"


async def _answer(send: Send, status: int, error: str, extra: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    await _send(send, status, body, {"content-type": "application/json"} | (extra or {}))


async def _send(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    headers = headers | {"content-length": str(len(body))}
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
