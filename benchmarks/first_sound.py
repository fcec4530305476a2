"""The time until a song that is dropped on the page plays, in a real browser.

    python -m benchmarks.first_sound SONG [--chromium /usr/bin/chromium] [--rounds 3]

Measures `mini`, and random weights of the released htdemucs' size, after a warm-up song. Prints the
seconds from the drop until the mixer's meters move, and from a seek to the song's last quarter
until they move again.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from playwright.sync_api import Page, sync_playwright

from benchmarks.checkpoints import NAME, released_size
from benchmarks.processes import machine
from htdemucs.audio import AudioEncoding, AudioFile, AudioWriter

ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
TIMEOUT = 300_000  # milliseconds
HEARD = """() => {
  const { player } = app;
  const sounds = (_, i) => player.mixer.level(i) > 1e-3;
  return player.state === "playing" && player.track.stems.some(sounds);
}"""
DONE = "() => [...app.tracks.sorted('').working].length === 0"


def drop(page: Page, song: Path) -> None:
    """Drop a song on the page, press Play when the button appears, and wait for sound."""
    page.set_input_files("#files", song)
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(HEARD, polling=20)


def clock(page: Page) -> float:
    """Return the page's clock in seconds."""
    return float(page.evaluate("performance.now() / 1000"))


def variants(song: Path, folder: Path, count: int) -> list[Path]:
    """Return MP3 files of the song, cut differently, so that each is new to the server."""
    audio = AudioFile(song, channels=2)
    waveform = torch.cat(list(audio), dim=1)
    paths = [folder / f"song {number}.mp3" for number in range(count)]
    for number, path in enumerate(paths):
        with AudioWriter(path, audio.sample_rate, 2, AudioEncoding("mp3")) as writer:
            writer.write(waveform[:, 1000 * number :])
    return paths


def measure(page: Page, song: Path) -> tuple[float, float]:
    """Return the seconds until the song plays, and until it plays after a seek."""
    started = clock(page)
    drop(page, song)
    first = clock(page) - started
    page.evaluate("app.player.pause()")
    page.wait_for_function("() => app.player.state !== 'playing'")
    started = clock(page)
    page.evaluate("app.player.seek(Math.round(0.75 * app.player.track.frames))")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(HEARD, polling=20)
    later = clock(page) - started
    page.evaluate("app.player.pause()")
    page.wait_for_function(DONE)
    page.evaluate("location.hash = ''")
    return first, later


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("song", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        scratch = Path(name)
        large = released_size(scratch / "checkpoints") / f"{NAME}.th"
        songs = variants(args.song, scratch, args.rounds + 1)
        browser = playwright.chromium.launch(executable_path=args.chromium, args=ARGUMENTS)
        for model in ("mini", str(large)):
            command = [sys.executable, "-m", "htdemucs", "serve", "-n", model, "--port", "0"]
            with subprocess.Popen(
                [*command, "--data", scratch / Path(model).stem], stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            ) as server:  # fmt: skip
                try:
                    assert server.stdout is not None
                    address = re.search(r"http://\S+", server.stdout.readline())
                    assert address, "the server printed no address"
                    page = browser.new_page()
                    page.set_default_timeout(TIMEOUT)
                    page.goto(address[0])
                    page.wait_for_selector("body[data-ready]")
                    page.evaluate("async () => { window.app = await import('/page/main.js'); }")
                    times = [measure(page, song) for song in songs][1:]
                    page.close()
                finally:
                    server.terminate()
            first, later = (median(values) for values in zip(*times, strict=True))
            print(
                f"{Path(model).stem}: heard after {first:.1f} s; a later part after {later:.1f} s"
            )
        browser.close()


if __name__ == "__main__":
    main()
