"""Separate every song in a folder, with progress: python album.py FOLDER [OUT]

Finished songs are skipped and unfinished ones resumed, so run it as often as you like.
"""

import sys

from htdemucs import HTDemucsError, Library, Separator, find_tracks
from htdemucs.events import Event, Progress


def show(event: Event) -> None:
    """Show on one line how far a song is."""
    if isinstance(event, Progress) and event.total:
        print(f"\r{event.track}: {event.done / event.total:4.0%}", end="", flush=True)


def main(folder: str, out: str = "separated") -> int:
    """Return 1 if a song failed, else 0."""
    separator = Separator("mini")  # or "htdemucs": 84 MB, downloaded once
    failures = 0
    for result in Library(out).separate_all(find_tracks([folder]), [separator], show):
        print(f"\r{result.track}: {result.error or result.status}")
        failures += result.status == "failed"
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except HTDemucsError as error:
        sys.exit(f"error: {error}")
