"""Print when there is singing, with stems as NumPy arrays: python analysis.py SONG

The song is streamed, so that memory does not depend on its length.
"""

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from htdemucs import AudioFile, HTDemucsError, Separator

QUIET = -40  # dB below full scale


def main(song: str) -> None:
    """Print a line for each second: loudness in dB of each stem, and whether there are vocals."""
    separator = Separator("mini")
    print("second", *separator.stems)
    for number, second in enumerate(seconds(separator, song)):
        loudness = {name: decibels(stem) for name, stem in second.items()}
        singing = "singing" if loudness["vocals"] > QUIET else ""
        print(f"{number:6}", *(f"{value:6.1f}" for value in loudness.values()), singing)


def seconds(separator: Separator, song: str) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield each second of the stems: arrays (channels, samples); the last one may be shorter."""
    audio = AudioFile(song, sample_rate=separator.sample_rate, channels=separator.audio_channels)
    buffer = {name: np.zeros((audio.channels, 0), np.float32) for name in separator.stems}
    for stems in separator.stream(audio):
        buffer = {
            name: np.hstack([buffer[name], stem.cpu().numpy()]) for name, stem in stems.items()
        }
        while buffer["vocals"].shape[1] >= audio.sample_rate:
            yield {name: stem[:, : audio.sample_rate] for name, stem in buffer.items()}
            buffer = {name: stem[:, audio.sample_rate :] for name, stem in buffer.items()}
    if buffer["vocals"].shape[1]:
        yield buffer


def decibels(waveform: NDArray[np.float32]) -> float:
    """Return the root mean square of a waveform in dB below full scale."""
    return float(20 * np.log10(np.sqrt(np.square(waveform).mean()) + 1e-10))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except HTDemucsError as error:
        sys.exit(f"error: {error}")
