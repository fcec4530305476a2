import pytest
import torch

from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter


@pytest.fixture
def write_song():
    """Return a function that writes a song of noise; every seed gives another song."""

    def write(path, seed=0, seconds=1.5, rate=8000, encoding=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        encoding = encoding or AudioEncoding(path.suffix[1:] if path.suffix else "wav")
        samples = torch.randn(2, int(seconds * rate), generator=torch.Generator().manual_seed(seed))
        with AudioWriter(path, rate, 2, encoding) as writer:
            writer.write(0.1 * samples)
        return path

    return write
