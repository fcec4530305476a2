"""Access control: host names, origins, the token and its login page, and security headers."""

import hashlib
import hmac
import ipaddress
import math
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

YEAR = 365 * 24 * 3600  # seconds
LOGIN_PAGE = Path(__file__).parent / "page" / "token.html"
LOGIN_PAGE_FILES = (
    "/page/style.css",
    "/page/icon.svg",
    "/page/icon-192.png",  # which browsers request without cookies
    "/page/icon-512.png",
)
WITHOUT_TOKEN = ("/health", *LOGIN_PAGE_FILES)  # paths
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_REMEMBERED = 1000  # wrong tokens, and addresses that sent the right one
UNAUTHORIZED = {"www-authenticate": "Bearer", "cache-control": "no-store"}
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def own_names() -> frozenset[str]:
    """Return the host names of this machine."""
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, f"{name}.local"})


class TooManyWrongTokensError(Exception):
    """A token is not checked, because too many wrong ones came before it.

    Attributes:
        delay: seconds until the next one is checked.
    """

    def __init__(self, delay: float) -> None:
        super().__init__(f"too many wrong tokens; try again in {math.ceil(delay)} s")
        self.delay = delay


class Throttle:
    """Rate limiter for wrong tokens, for each client address and for all of them together.

    When an address has used up its allowance, none of its tokens is checked. If right ones were,
    an attacker who sends many at the same time would not be slowed down. A wrong token that is
    repeated is counted once, so that a program with an old token uses up nothing. The limit for
    all does not concern addresses that have sent the right token before. Little is remembered: an
    address only until it has its whole allowance again, which the limit for all keeps to hundreds.

    Attributes:
        clock: returns the time in seconds.
        burst, interval: an address may send `burst` wrong tokens, and then one every `interval`
            seconds.
        total_burst, total_interval: the same for all addresses together.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        burst: int = 10,
        interval: float = 6.0,
        total_burst: int = 100,
        total_interval: float = 0.6,
    ) -> None:
        self.clock = clock
        self.burst, self.interval = burst, interval
        self.total_burst, self.total_interval = total_burst, total_interval
        self._full_at: dict[str, float] = {}  # when an address has its whole allowance again
        self._total_full_at = 0.0
        self._wrong: dict[bytes, None] = {}  # hashes of the latest wrong tokens
        self._trusted: dict[str, None] = {}  # addresses that sent the right token, latest last

    def check(self, is_right: Callable[[str], bool], token: str, client: str | None) -> bool:
        """Return whether a token that a client sent is the right one.

        Args:
            is_right: compares it.
            token: the token.
            client: the client's address.

        Raises:
            TooManyWrongTokensError: the token was not compared.
        """
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        if digest in self._wrong:
            _remember(self._wrong, digest)
            return False
        address, now = _network(client), self.clock()
        full_at = max(now, self._full_at.get(address, now))
        total_full_at = max(now, self._total_full_at)
        delay = full_at - now - (self.burst - 1) * self.interval
        if address not in self._trusted:
            total_delay = total_full_at - now - (self.total_burst - 1) * self.total_interval
            delay = max(delay, total_delay)
        if delay > 0:
            raise TooManyWrongTokensError(delay)
        if is_right(token):
            _remember(self._trusted, address)
            return True
        _remember(self._wrong, digest)
        self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        self._full_at[address] = full_at + self.interval
        self._total_full_at = total_full_at + self.total_interval
        return False


def _remember(items: dict[Any, None], item: Any) -> None:
    """Make an item the latest; forget the oldest one if there are too many."""
    items.pop(item, None)
    items[item] = None
    if len(items) > MAX_REMEMBERED:
        del items[next(iter(items))]


def _network(client: str | None) -> str:
    """Return a client's IPv4 address or IPv6 network, all of which one client may have."""
    try:
        address = ipaddress.ip_address(client or "")
    except ValueError:  # a proxy may send anything
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        token: required of every client; None: no token is required.
        hosts: names that requests may be addressed to. IP addresses are always allowed: DNS
            rebinding, by which another site's page reaches this server, needs a name.
        https: all clients use https, and browsers must send the cookie over nothing else.
        cookie_key: secret without which a guessed token does not give the cookie's value.
        throttle: limits wrong tokens.
    """

    token: str | None = None
    hosts: frozenset[str] = field(default_factory=own_names)
    https: bool = False
    cookie_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    throttle: Throttle = field(default_factory=Throttle, repr=False, compare=False)

    @classmethod
    def to(cls, token: str | None, hosts: Iterable[str] = (), **others: Any) -> "Access":
        """Return the access with further host names."""
        return cls(token, own_names() | {host.lower() for host in hosts}, **others)

    def is_allowed_host(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        try:
            address = urlsplit(f"//{host}")
            name = address.hostname or ""
            _ = address.port  # raises if it is not a port
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self.hosts
        return True

    def check_token(self, candidate: str, client: str | None) -> bool:
        """Return whether `candidate` is the token.

        `client` is the sender's address, for the rate limit.

        Raises:
            TooManyWrongTokensError: it was not compared.
        """
        secret = self.token
        return secret is None or self.throttle.check(
            lambda token: _is_equal(token, secret), candidate, client
        )

    @property
    def cookie(self) -> str:
        """The cookie's value: a hash, so that the browser does not store the token."""
        return hmac.digest(self.cookie_key, (self.token or "").encode(), "sha256").hex()


class AuthMiddleware:
    """Rejects requests without a valid host, origin or token.

    Starlette's TrustedHostMiddleware is not used because it cannot allow every IP address.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or send a response that refuses it."""
        response = self._refuse(Request(scope)) if scope["type"] == "http" else None
        await (response or self.app)(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        """Return the response to a request that is not passed on; None if it is."""
        host = request.headers.get("host", "")
        if not self.access.is_allowed_host(host):
            return error_response(403, "unknown host name; allow it with --allow-host")
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        # Against CSRF. `Sec-Fetch-Site` is trusted; without it, Origin is compared with Host.
        is_from_other_site = site in ("cross-site", "same-site")
        if request.method in SAFE_METHODS:
            if is_from_other_site and request.headers.get("sec-fetch-mode") != "navigate":
                return error_response(403, "pages of other sites may not read anything here")
        elif is_from_other_site or (
            site is None and origin is not None and origin.partition("://")[2] != host
        ):  # the browser compares sites better than we: a proxy may have changed the Host header
            return error_response(403, "pages of other sites may not change anything here")
        if self.access.token is None or request.scope["path"] in WITHOUT_TOKEN:
            return None
        try:
            return None if self._is_logged_in(request) else self._log_in(request)
        except TooManyWrongTokensError as error:
            headers = {"retry-after": str(math.ceil(error.delay)), "cache-control": "no-store"}
            if _shows_login_page(request):
                languages = request.headers.get("accept-language", "")
                return HTMLResponse(login_page(languages, "too_many"), 429, headers)
            return error_response(429, str(error), headers)

    def _is_logged_in(self, request: Request) -> bool:
        # The cookie, which cannot be guessed, comes first: wrong tokens of others delay no page.
        if _is_equal(request.cookies.get(_cookie_name(request), ""), self.access.cookie):
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._check_token(request, token.strip())

    def _check_token(self, request: Request, token: str) -> bool:
        return self.access.check_token(token, request.client.host if request.client else None)

    def _log_in(self, request: Request) -> Response:
        """Exchange the token in the address for a cookie, or ask for it."""
        token = request.query_params.get("token") if request.method == "GET" else None
        if token is not None and self._check_token(request, token):
            others = [pair for pair in request.query_params.multi_items() if pair[0] != "token"]
            name = request.scope["path"].rpartition("/")[2]
            location = f"./{name}?{urlencode(others)}" if others else f"./{name}"
            response = RedirectResponse(location, 303)
            response.set_cookie(
                _cookie_name(request),
                self.access.cookie,
                max_age=YEAR,
                secure=self.access.https or request.scope["scheme"] == "https",
                httponly=True,
                samesite="strict",
            )
            return response
        if _shows_login_page(request):
            languages = request.headers.get("accept-language", "")
            page = login_page(languages, "wrong" if token is not None else None)
            return HTMLResponse(page, 401, UNAUTHORIZED)
        message = "wrong token; use the one that the server printed last"
        if token is None and "authorization" not in request.headers:
            message = "a token is required; open the address that the server printed"
        return error_response(401, message, UNAUTHORIZED)


def _shows_login_page(request: Request) -> bool:
    accepts_html = "text/html" in request.headers.get("accept", "")
    return request.method == "GET" and request.scope["path"] == "/" and accepts_html


def _cookie_name(request: Request) -> str:
    """Return a name with the port, because all servers of a host share their cookies."""
    port = urlsplit(f"//{request.headers.get('host', '')}").port
    return f"htdemucs-{port or 'web'}"


def _is_equal(text: str, secret: str) -> bool:
    return secrets.compare_digest(text.encode("utf-8", "replace"), secret.encode())


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None, code: str | None = None
) -> JSONResponse:
    """Return the response to a request that failed; every error has this form."""
    return JSONResponse({"error": message, "code": code}, status, headers)


class SecurityHeadersMiddleware:
    """Adds the security headers to every response, and makes plain-text errors JSON.

    Plain-text errors are those of Starlette's FileResponse, about ranges.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and change its response."""
        is_replaced = False

        async def send_changed(message: Message) -> None:
            nonlocal is_replaced
            if is_replaced:
                return
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_plain = headers.get("content-type", "").startswith("text/plain")
                if message["status"] >= 400 and is_plain:
                    status = HTTPStatus(message["status"])
                    content_range = {k: v for k, v in headers.items() if k == "content-range"}
                    response = error_response(status, status.description, content_range)
                    await response(scope, receive, send_changed)
                    is_replaced = True
                    return
                headers.update(SECURITY_HEADERS)
                if scope["path"].startswith("/api/") or "set-cookie" in headers:
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, send_changed if scope["type"] == "http" else send)


# The login page, which needs no script

TEXTS = {
    "en": {
        "title": "Enter the token",
        "where": "The server printed its token when it started. This browser is asked only once.",
        "label": "Token",
        "enter": "Open",
        "wrong": "This is not the server's token; see what it printed last.",
        "too_many": "There were too many wrong tokens. Wait some seconds, then try again.",
    },
    "zh-Hans": {
        "title": "请输入令牌",
        "where": "服务器启动时显示了令牌。每个浏览器只需输入一次。",
        "label": "令牌",
        "enter": "打开",
        "wrong": "令牌不对，请查看服务器最近一次显示的令牌。",
        "too_many": "令牌输错次数过多，请稍等几秒再试。",
    },
}


def login_page(languages: str, problem: str | None) -> str:
    """Return the HTML of the page that asks for the token.

    Args:
        languages: the header `Accept-Language`, the preferred language first.
        problem: with the token that was given, "wrong" or "too_many"; None if none was.
    """
    codes = (name.strip()[:2] for name in languages.lower().split(","))
    preferred = next((code for code in codes if code in ("en", "zh")), "en")
    language = "zh-Hans" if preferred == "zh" else "en"
    texts = TEXTS[language]
    shown = texts[problem] if problem else ""
    return _template().substitute(texts, language=language, problem=shown)


@cache
def _template() -> Template:
    return Template(LOGIN_PAGE.read_text(encoding="utf-8"))
