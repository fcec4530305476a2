"""The progress bar in a terminal, and its absence in a log file."""

import io
import re

import pytest

from htdemucs.cli import console
from htdemucs.cli.progress import ConsoleReporter
from htdemucs.events import Finished, Found, Progress, Started
from htdemucs.results import TrackResult


@pytest.fixture
def screen(monkeypatch):
    """Return a function that shows a track's events in a terminal of 80 columns, or in a file."""
    from rich.console import Console

    def show(name, is_terminal):
        file = io.StringIO()
        shown = Console(file=file, force_terminal=is_terminal, width=80, color_system=None)
        monkeypatch.setattr(console, "status_console", lambda: shown)
        result = TrackResult(name, "separated", files={"a": "out/a.wav"}, duration=60, seconds=7.5)
        with ConsoleReporter() as reporter:
            for event in (Found(12), Started(name), Progress(name, 30, 60, 8), Finished(result)):
                reporter(event)
        return file.getvalue()

    return show


@pytest.mark.parametrize("length", [5, 70, 300])
def test_numbers_stay_visible_beside_long_names(screen, length):
    text = screen("x" * length + ".flac", is_terminal=True)
    [line] = [line for line in re.split(r"[\r\n]", text) if "%" in line][-1:]
    assert "1 of 12" in line
    assert ".flac" in line
    assert "50%" in line
    assert "8.0x" in line
    assert "left" in line
    assert len(re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line).rstrip()) <= 80


def test_a_file_gets_results_and_no_bars(screen):
    assert screen("song.flac", is_terminal=False) == "  a -> out  (7.5 s, 8.0x real time)\n"
