"""Access control: host names, origins, the token and its login page, and security headers."""

import hashlib
import ipaddress
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from string import Template
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


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        token: required of every client; None: no token is required.
        hosts: names that requests may be addressed to. IP addresses are always allowed: DNS
            rebinding, by which another site's page reaches this server, needs a name.
    """

    token: str | None = None
    hosts: frozenset[str] = field(default_factory=own_names)

    @classmethod
    def to(cls, token: str | None, hosts: Iterable[str] = ()) -> "Access":
        """Return the access with further host names."""
        return cls(token, own_names() | {host.lower() for host in hosts})

    def is_allowed_host(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self.hosts
        return True

    def check_token(self, candidate: str) -> bool:
        """Return whether this is the token, in constant time."""
        return self.token is None or _is_equal(candidate, self.token)

    @property
    def cookie(self) -> str:
        """The cookie's value: a hash, so that the browser does not store the token."""
        return hashlib.sha256(f"htdemucs {self.token}".encode()).hexdigest()


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
        is_from_other_site = site in ("cross-site", "same-site")
        if request.method in SAFE_METHODS:
            if is_from_other_site and request.headers.get("sec-fetch-mode") != "navigate":
                return error_response(403, "pages of other sites may not read anything here")
        elif is_from_other_site or (
            site is None and origin is not None and urlsplit(origin).netloc != host
        ):  # the browser compares sites better than we: a proxy may have changed the Host header
            return error_response(403, "pages of other sites may not change anything here")
        if self.access.token is None or request.scope["path"] in WITHOUT_TOKEN:
            return None
        return None if self._is_logged_in(request) else self._log_in(request)

    def _is_logged_in(self, request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.access.check_token(token.strip()):
            return True
        return _is_equal(request.cookies.get(_cookie_name(request), ""), self.access.cookie)

    def _log_in(self, request: Request) -> Response:
        """Exchange the token in the address for a cookie, or ask for it."""
        token = request.query_params.get("token") if request.method == "GET" else None
        if token is not None and self.access.check_token(token):
            others = [pair for pair in request.query_params.multi_items() if pair[0] != "token"]
            name = request.scope["path"].rpartition("/")[2]
            location = f"./{name}?{urlencode(others)}" if others else f"./{name}"
            response = RedirectResponse(location, 303)
            response.set_cookie(
                _cookie_name(request),
                self.access.cookie,
                max_age=YEAR,
                httponly=True,
                samesite="strict",
            )
            return response
        accepts_html = "text/html" in request.headers.get("accept", "")
        if request.method == "GET" and request.scope["path"] == "/" and accepts_html:
            languages = request.headers.get("accept-language", "")
            page = login_page(languages, is_wrong=token is not None)
            return HTMLResponse(page, 401, UNAUTHORIZED)
        message = "wrong token; use the one that the server printed last"
        if token is None and "authorization" not in request.headers:
            message = "a token is required; open the address that the server printed"
        return error_response(401, message, UNAUTHORIZED)


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
        "problem": "This is not the server's token; see what it printed last.",
    },
    "zh-Hans": {
        "title": "请输入令牌",
        "where": "服务器启动时显示了令牌。每个浏览器只需输入一次。",
        "label": "令牌",
        "enter": "打开",
        "problem": "令牌不对，请查看服务器最近一次显示的令牌。",
    },
}


def login_page(languages: str, is_wrong: bool) -> str:
    """Return the HTML of the page that asks for the token.

    Args:
        languages: the header `Accept-Language`, the preferred language first.
        is_wrong: a wrong token was given.
    """
    codes = (name.strip()[:2] for name in languages.lower().split(","))
    preferred = next((code for code in codes if code in ("en", "zh")), "en")
    language = "zh-Hans" if preferred == "zh" else "en"
    texts = TEXTS[language]
    problem = texts["problem"] if is_wrong else ""
    return _template().substitute(texts, language=language, problem=problem)


@cache
def _template() -> Template:
    return Template(LOGIN_PAGE.read_text(encoding="utf-8"))
