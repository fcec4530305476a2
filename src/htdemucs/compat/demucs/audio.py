"""`demucs.audio`: files to tensors and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from htdemucs.audio import AudioEncoding, AudioWriter, Resampler
from htdemucs.audio import AudioFile as Reader
from htdemucs.errors import AudioError


class AudioFile:
    """The first audio stream of a file.

    Raises:
        AudioError: (when it is used) the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __len__(self) -> int:
        with av.open(f"file:{self.path}") as container:
            return len(container.streams.audio)

    @property
    def duration(self) -> float:
        """Seconds, according to the container."""
        return Reader(self.path).duration or 0.0

    def channels(self, stream: int = 0) -> int:
        """Return the number of channels."""
        return self._reader(stream).source_channels

    def samplerate(self, stream: int = 0) -> int:
        """Return the sample rate in Hz."""
        return self._reader(stream).source_sample_rate

    def read(
        self,
        seek_time: float | None = None,
        duration: float | None = None,
        streams: int | slice | Sequence[int] = slice(None),
        samplerate: int | None = None,
        channels: int | None = None,
    ) -> Tensor:
        """Return a stream (C, L) if `streams` is a number, else streams (S, C, L).

        Args:
            seek_time: seconds to skip at the start.
            duration: seconds to return; by default all.
            streams: which of the file's audio streams; only the first can be read.
            samplerate: Hz; by default the file's own.
            channels: 1 for the mean of all, 2 for the first two; by default the file's own.

        Raises:
            AudioError: the file or the stream cannot be read.
        """
        reader = self._reader(streams, samplerate)
        waveform = torch.cat(list(reader), dim=-1)
        first = int((seek_time or 0) * reader.sample_rate)
        last = None if duration is None else first + int(duration * reader.sample_rate)
        waveform = waveform[:, first:last]
        if channels is not None:
            waveform = convert_audio_channels(waveform, channels)
        return waveform if isinstance(streams, int) else waveform[None]

    def _reader(self, streams: Any, sample_rate: int | None = None) -> Reader:
        if streams not in (0, slice(None), [0]) or (streams == slice(None) and len(self) > 1):
            raise AudioError(
                f"only the first audio stream of {self.path} can be read; set streams to 0"
            )
        return Reader(self.path, sample_rate=sample_rate)


def convert_audio_channels(wav: Tensor, channels: int = 2) -> Tensor:
    """(..., C, L) -> (..., channels, L): the mean for mono, mono copied, else the first ones."""
    if channels == 1:
        return wav.mean(dim=-2, keepdim=True)
    if wav.shape[-2] == 1:
        return wav.expand(*wav.shape[:-2], channels, -1)
    if wav.shape[-2] < channels:
        raise ValueError(f"{wav.shape[-2]} channels cannot become {channels}")
    return wav[..., :channels, :]


def convert_audio(wav: Tensor, from_samplerate: int, to_samplerate: int, channels: int) -> Tensor:
    """(..., C, L) at one sample rate -> (..., channels, L') at another one."""
    wav = convert_audio_channels(wav, channels)
    if from_samplerate == to_samplerate:
        return wav
    resampler = Resampler(int(from_samplerate), int(to_samplerate), wav.shape[:-1].numel())
    flat = wav.detach().cpu().float().flatten(0, -2)
    resampled = torch.cat([resampler.push(flat), resampler.flush()], dim=-1)
    length = wav.shape[-1] * int(to_samplerate) // int(from_samplerate)
    return resampled[:, :length].unflatten(0, wav.shape[:-1]).to(wav.device)


def prevent_clip(wav: Tensor, mode: str | None = "rescale") -> Tensor:
    """Return a waveform without peaks beyond full scale.

    Args:
        wav: the waveform.
        mode: "rescale" lowers all of it, "clamp" cuts peaks, "tanh" bends it, "none" does nothing.
    """
    if mode is None or mode == "none":
        return wav
    if mode == "rescale":
        return wav / max(1.01 * float(wav.abs().max()), 1)
    if mode == "clamp":
        return wav.clamp(-0.99, 0.99)
    if mode == "tanh":
        return wav.tanh()
    raise ValueError(f"the mode must be rescale, clamp, tanh or none, not {mode}")


def save_audio(
    wav: Tensor,
    path: str | Path,
    samplerate: int,
    bitrate: int = 320,
    clip: str = "rescale",
    bits_per_sample: int = 16,
    as_float: bool = False,
    preset: int = 2,
) -> None:
    """Write a waveform (C, L) to a .wav, .flac or .mp3.

    Args:
        wav: the waveform.
        path: of the file; its folder is made.
        samplerate: Hz.
        bitrate: kbit/s of MP3.
        clip: as for `prevent_clip`.
        bits_per_sample: of WAV and FLAC, 16 or 24.
        as_float: 32-bit floats in WAV.
        preset: of MP3, 2 is the best quality and 7 the fastest.

    Raises:
        ValueError: the extension is another one.
        AudioError: the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".wav", ".flac", ".mp3"):
        raise ValueError(f"cannot write {suffix or 'a file without an extension'}")
    encoding = AudioEncoding(
        suffix[1:],
        bit_depth=32 if as_float and suffix == ".wav" else bits_per_sample,
        bitrate=bitrate if suffix == ".mp3" else None,
        mp3_preset=preset,
    )
    with AudioWriter(path, int(samplerate), wav.shape[0], encoding) as writer:
        writer.write(prevent_clip(wav.detach(), clip))
