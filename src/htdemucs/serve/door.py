"""The small page that asks a person for the token. It needs no script."""

from functools import cache
from pathlib import Path
from string import Template

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
WRONG = {
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
    problem = WRONG[words["language"]] if wrong else ""
    return _template().substitute(words, problem=problem).encode()


@cache
def _template() -> Template:
    return Template(PAGE.read_text(encoding="utf-8"))
