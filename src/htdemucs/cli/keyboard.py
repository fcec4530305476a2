"""Keys of a terminal, one at a time, while something else happens."""

import os
import sys
import time
from typing import Any, Self

_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_WINDOWS = {"H": "up", "P": "down", "M": "right", "K": "left"}


class Keyboard:
    """Gives keys without waiting for Enter; none where standard input is no terminal."""

    def __init__(self) -> None:
        self._before: Any = None
        self._coming: list[str] = []
        self.there = sys.stdin is not None and sys.stdin.isatty()

    def __enter__(self) -> Self:
        if self.there and sys.platform != "win32":
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and sys.platform != "win32":
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str | None:
        """Return the next key, a character, "up", "down", "left" or "right"; None if none comes."""
        if not self.there:
            time.sleep(seconds)
        elif not self._coming:
            self._coming = self._windows(seconds) if sys.platform == "win32" else _read(seconds)
        return self._coming.pop(0) if self._coming else None

    @staticmethod
    def _windows(seconds: float) -> list[str]:
        import msvcrt

        if not msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
            time.sleep(seconds)
            return []
        key = msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]
        if key in "\0\xe0":
            return [_WINDOWS.get(msvcrt.getwch(), "")]  # type: ignore[attr-defined,unused-ignore]
        return [key]


def _read(seconds: float) -> list[str]:
    import select

    if not select.select([sys.stdin], [], [], seconds)[0]:
        return []
    text = os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
    keys = []
    while text:
        if text[:2] in ("\x1b[", "\x1bO") and len(text) > 2:
            keys.append(_ARROWS.get(text[2], ""))
            text = text[3:]
        else:
            keys.append(text[0])
            text = text[1:]
    return keys
