"""Make karaoke versions of songs with a server elsewhere: python remote.py ADDRESS SONG..."""

import os
import sys
from pathlib import Path

from htdemucs.client import Client, Track
from htdemucs.errors import ServerError


def show(track: Track) -> None:
    """Print how far a song is."""
    print(f"{track['name']}: {track['state']}, {track['done']:.0f} s done")


def main(address: str, *songs: str) -> int:
    """Return the exit code."""
    client, failed = Client(address, os.environ.get("HTDEMUCS_TOKEN")), 0
    for song in map(Path, songs):
        try:
            track = client.wait(client.add(song)["id"], show)
            if track["state"] != "finished":
                raise ServerError(track["error"] or track["state"])
            target = song.with_name(f"{song.stem} (karaoke).flac")
            client.download(track["id"], target, kind="mix", gains="vocals:0", format="flac")
            print(f"-> {target}")
        except (OSError, ServerError) as error:
            print(f"{song}: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
