"""Write the song without its vocals, as MP3 with the song's tags: python karaoke.py SONG [OUT]"""

import sys
from pathlib import Path

from htdemucs import AudioEncoding, HTDemucsError, OutputOptions, Separator, separate_file


def main(song: str, out: str = "karaoke") -> Path:
    """Return the path of the accompaniment."""
    options = OutputOptions(
        two_stems="vocals",
        other_method="minus",  # the song minus its vocals: nothing else is lost
        filename="{track} ({stem}).{ext}",
        encoding=AudioEncoding("mp3", bitrate=320),
    )
    result = separate_file(Separator("mini"), song, out, options=options)
    return Path(result.files["minus_vocals"])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        print(main(*sys.argv[1:]))
    except HTDemucsError as error:
        sys.exit(f"error: {error}")
