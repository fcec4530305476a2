from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

from htdemucs.audio import AudioEncoding, AudioFile, AudioWriter
from htdemucs.formats import FORMATS

FASTEST = FORMATS["mp3"].presets[-1]
ENCODINGS = {
    f"{name}{codec.bit_depth or ''}": AudioEncoding(
        name, bit_depth=codec.bit_depth or 16, mp3_preset=FASTEST
    )
    for name, row in FORMATS.items()
    for codec in row.codecs
}
LOSSLESS = [key for key, encoding in ENCODINGS.items() if encoding.stored_bit_depth]
LOSSY = [key for key, encoding in ENCODINGS.items() if not encoding.stored_bit_depth]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test that asks for one each encoding, or each lossless or lossy one."""
    for fixture, names in {
        "encoding": list(ENCODINGS),
        "lossless": LOSSLESS,
        "lossy": LOSSY,
    }.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [ENCODINGS[name] for name in names], ids=names)


def _make_noise(length: int, channels: int = 2, seed: int = 0) -> Tensor:
    """(C, L) of noise below a quarter of the Nyquist frequency: every lossy codec keeps it."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(channels, length + 31, generator=generator)
    return 0.2 * white.unfold(1, 32, 1).mean(2) * 32**0.5


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    return _make_noise


def _store(
    path: Path, waveform: Tensor, encoding: AudioEncoding, sample_rate: int = 44_100
) -> Path:
    with AudioWriter(path, sample_rate, waveform.shape[0], encoding) as writer:
        writer.write(waveform)
    return path


@pytest.fixture(scope="session")
def store() -> Callable[..., Path]:
    return _store


@pytest.fixture(scope="session")
def load() -> Callable[..., Tensor]:
    def load(path: Path, **request: int) -> Tensor:
        return torch.cat(list(AudioFile(path, **request)), dim=1)

    return load


def _encode(container, stream, waveform: Tensor, layout: str, sample_rate: int) -> None:
    packed = waveform.T.contiguous().numpy().reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = sample_rate
    frame.time_base = Fraction(1, sample_rate)
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def make_media() -> Callable[..., Path]:
    """Write a file of several audio streams, and of pictures if wanted, as others make them."""

    def make(
        path: Path,
        codec: str,
        waveforms: list[Tensor],
        layout: str = "stereo",
        sample_rate: int = 44_100,
        video: bool = False,
        **settings: object,
    ) -> Path:
        with av.open(str(path), "w") as container:
            if video:
                pictures = container.add_stream("mpeg4", rate=25)
                pictures.width = pictures.height = 64
            streams = [container.add_stream(codec, rate=sample_rate, **settings) for _ in waveforms]
            for stream in streams:
                stream.codec_context.layout = layout
            if video:
                for _ in range(25):
                    container.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
                container.mux(pictures.encode(None))
            for stream, waveform in zip(streams, waveforms, strict=True):
                _encode(container, stream, waveform, layout, sample_rate)
        return path

    return make
