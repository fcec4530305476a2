"""Small valid files in every container and codec that PyAV's FFmpeg can write."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, TIT2, TXXX

RATE = 8000  # Hz
SECONDS = 0.4
# file name -> FFmpeg's container and audio codec, and sample rate where 8 kHz is not possible
AUDIO = {
    "s16.wav": ("wav", "pcm_s16le", RATE),
    "s24.wav": ("wav", "pcm_s24le", RATE),
    "s32.wav": ("wav", "pcm_s32le", RATE),
    "s64.wav": ("wav", "pcm_s64le", RATE),
    "u8.wav": ("wav", "pcm_u8", RATE),
    "f32.wav": ("wav", "pcm_f32le", RATE),
    "f64.wav": ("wav", "pcm_f64le", RATE),
    "alaw.wav": ("wav", "pcm_alaw", RATE),
    "mulaw.wav": ("wav", "pcm_mulaw", RATE),
    "adpcm.wav": ("wav", "adpcm_ima_wav", RATE),
    "ms.wav": ("wav", "adpcm_ms", RATE),
    "x.w64": ("w64", "pcm_s16le", RATE),
    "x.aiff": ("aiff", "pcm_s16be", RATE),
    "x.au": ("au", "pcm_s16be", RATE),
    "x.caf": ("caf", "pcm_s16le", RATE),
    "x.voc": ("voc", "pcm_s16le", RATE),
    "x.flac": ("flac", "flac", RATE),
    "x.mp3": ("mp3", "libmp3lame", RATE),
    "x.mp2": ("mp2", "mp2", 16_000),
    "vorbis.ogg": ("ogg", "vorbis", RATE),
    "flac.ogg": ("ogg", "flac", RATE),
    "x.opus": ("ogg", "libopus", 48_000),
    "aac.m4a": ("ipod", "aac", RATE),
    "alac.m4a": ("ipod", "alac", RATE),
    "x.aac": ("adts", "aac", RATE),
    "x.mov": ("mov", "pcm_s16le", RATE),
    "x.mka": ("matroska", "flac", RATE),
    "opus.mkv": ("matroska", "libopus", 48_000),
    "x.webm": ("webm", "libopus", 48_000),
    "x.wma": ("asf", "wmav2", 22_050),
    "x.wv": ("wv", "wavpack", RATE),
    "x.tta": ("tta", "tta", RATE),
    "x.ac3": ("ac3", "ac3", 44_100),
    "x.eac3": ("eac3", "eac3", 44_100),
    "x.ts": ("mpegts", "mp2", 16_000),
    "x.avi": ("avi", "pcm_s16le", RATE),
    "x.flv": ("flv", "aac", 44_100),
    "x.3gp": ("3gp", "aac", RATE),
}
CHAINS = {"chain.ogg": "vorbis.ogg", "chain.opus": "x.opus", "chain.mp3": "x.mp3"}
VIDEO = ("x.mkv", "x.mp4", "x.mov", "x.avi")  # with pictures


def make_seeds(folder: Path) -> list[Path]:
    """Write all seed files that this FFmpeg can encode, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (container, codec, rate) in AUDIO.items():
        if codec in av.codecs_available:
            paths.append(_audio(folder / name, container, codec, rate))
    for name in VIDEO:
        paths.append(_media(folder / f"video {name}", pictures=True, tracks=1))
    paths.append(_media(folder / "silent film.mkv", pictures=True, tracks=0))
    paths.append(_media(folder / "three streams.mka", pictures=False, tracks=3))
    paths += [_tagged_mp3(folder, folder / "x.mp3"), _tagged_flac(folder, folder / "x.flac")]
    paths += [_chain(folder / name) for name in CHAINS]
    paths += [_dsf(folder / "x.dsf"), _unplaced(folder / "six channels.wav")]
    paths += [_floats(folder / f"{name}.wav", value) for name, value in _ODD_FLOATS.items()]
    return paths


def _waveform(rate: int) -> np.ndarray:
    time = np.arange(int(SECONDS * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * f * time) for f in (220, 330)]).astype(np.float32)


def _encode(container, stream, rate: int) -> None:
    codec = stream.codec_context
    resampler = av.AudioResampler(
        format=codec.format, layout="stereo", rate=rate, frame_size=codec.frame_size or None
    )
    frame = av.AudioFrame.from_ndarray(_waveform(rate), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def _audio(path: Path, container: str, codec: str, rate: int) -> Path:
    options = {"strict": "experimental"}
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options, bit_rate=64_000)
        stream.codec_context.layout = "stereo"
        output.start_encoding()
        _encode(output, stream, rate)
    return path


def _media(path: Path, pictures: bool, tracks: int) -> Path:
    with av.open(str(path), "w") as output:
        if pictures:
            video = output.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
        streams = [output.add_stream("aac", rate=RATE) for _ in range(tracks)]
        for stream in streams:
            stream.codec_context.layout = "stereo"
        output.start_encoding()
        if pictures:
            for i in range(4):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts, picture.time_base = i, Fraction(1, 10)
                output.mux(video.encode(picture))
            output.mux(video.encode(None))
        for stream in streams:
            _encode(output, stream, RATE)
    return path


def _chain(path: Path) -> Path:
    """Write a file three times over, as `cat` does."""
    path.write_bytes((path.parent / CHAINS[path.name]).read_bytes() * 3)
    return path


def _dsf(path: Path) -> Path:
    """Write DSD64: a block of silence for each of two channels."""
    data = bytes([0x69]) * 2 * 4_096
    form = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 2, 2, 2_822_400, 1, 32_768, 4_096, 0)
    body = form + struct.pack("<4sQ", b"data", 12 + len(data)) + data
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(body), 0) + body)
    return path


def _unplaced(path: Path) -> Path:
    """Write six channels that do not say where they belong."""
    samples = np.tile(_waveform(RATE), (3, 1)).T.tobytes()
    return _wav(path, samples, channels=6)


def _tagged_mp3(folder: Path, source: Path) -> Path:
    path = folder / "tagged.mp3"
    path.write_bytes(source.read_bytes())
    tags = ID3()
    tags.add(TIT2(encoding=3, text=["Titel 歌"]))
    tags.add(TXXX(encoding=1, desc="replaygain_track_gain", text=["-3 dB"]))
    tags.add(APIC(encoding=0, mime="image/png", type=3, desc="", data=b"\x89PNG" + bytes(300)))
    tags.save(path)
    return path


def _tagged_flac(folder: Path, source: Path) -> Path:
    path = folder / "tagged.flac"
    path.write_bytes(source.read_bytes())
    tags = FLAC(path)
    tags["title"], tags["artist"] = "../../x", "\N{RIGHT-TO-LEFT OVERRIDE}a/b\n"
    picture = Picture()
    picture.data, picture.mime = bytes(300), "image/jpeg"
    tags.add_picture(picture)
    tags.save()
    return path


_ODD_FLOATS = {
    "nan": [float("nan")],
    "infinite": [float("inf"), float("-inf")],
    "enormous": [3e38, -3e38],
    "tiny": [1e-45, -1e-45],
    "mixed": [0.1, float("nan"), -0.2, float("inf"), 1e30],
}


def _floats(path: Path, values: list[float]) -> Path:
    samples = struct.pack(f"<{len(values)}f", *values) * (4000 // len(values))
    return _wav(path, samples, channels=2)


def _wav(path: Path, samples: bytes, channels: int) -> Path:
    block = 4 * channels
    form = struct.pack("<HHIIHH", 3, channels, RATE, RATE * block, block, 32)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + form
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path
