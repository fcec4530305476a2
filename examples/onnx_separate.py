"""Separate a song with an exported model, without torch: NumPy, ONNX Runtime and soundfile.

    htdemucs export mini mini.onnx
    python examples/onnx_separate.py mini.onnx song.flac stems

The exported file contains the network's core or, if it was exported with --with-stft, the whole
model. This script does the rest: the aligned STFT of a core and its inverse, the normalisation of
the track, and segments that overlap by a quarter. Its batches have one segment.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile

OVERLAP = 0.25


class Model:
    """The exported model and its metadata."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.whole = self.session.get_inputs()[0].name == "mix"
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.sources = json.loads(metadata["sources"])
        self.sample_rate = int(metadata["sample_rate"])
        self.channels = int(metadata["audio_channels"])
        self.segment_length = int(metadata["segment_length"])
        self.n_fft = int(metadata["n_fft"])
        self.hop = self.n_fft // 4
        phase = 2 * np.pi * np.arange(self.n_fft) / self.n_fft
        self.window = (0.5 - 0.5 * np.cos(phase)).astype("f")

    def __call__(self, mixture: np.ndarray) -> np.ndarray:
        """(C, segment_length) -> (S, C, segment_length)"""
        if self.whole:
            return self.session.run(["stems"], {"mix": mixture[None]})[0][0]
        inputs = {"mixture": mixture[None], "spectrogram": self.spectrogram(mixture)[None]}
        time, spectral = self.session.run(["time", "spectral"], inputs)
        return time[0] + self.waveform(spectral[0])

    def spectrogram(self, mixture: np.ndarray) -> np.ndarray:
        """(C, L) -> (2C, F, T): frame i is centred on the middle of hop i; no Nyquist bin."""
        frames = -(-mixture.shape[-1] // self.hop)
        edge = 3 * self.hop // 2
        missing = frames * self.hop - mixture.shape[-1]
        padded = np.pad(mixture, [(0, 0), (edge, edge + missing)], mode="reflect")
        cut = np.stack([padded[:, i * self.hop :][:, : self.n_fft] for i in range(frames)], axis=1)
        spectrum = np.fft.rfft(cut * self.window, norm="ortho")[..., :-1]  # (C, T, F)
        parts = np.stack([spectrum.real, spectrum.imag], axis=1)  # (C, 2, T, F)
        return parts.reshape(-1, *spectrum.shape[1:]).transpose(0, 2, 1).astype("f")

    def waveform(self, spectral: np.ndarray) -> np.ndarray:
        """(S, 2C, F, T) -> (S, C, L)"""
        parts = spectral.reshape(len(spectral), self.channels, 2, *spectral.shape[2:])
        spectrum = np.pad(parts[:, :, 0] + 1j * parts[:, :, 1], [(0, 0)] * 2 + [(0, 1), (0, 0)])
        frames = np.fft.irfft(spectrum.swapaxes(2, 3), self.n_fft, norm="ortho") * self.window
        count = frames.shape[2]
        total = np.zeros((*frames.shape[:2], (count + 3) * self.hop), dtype="f")
        for i in range(count):
            total[..., i * self.hop :][..., : self.n_fft] += frames[:, :, i]
        edge = 3 * self.hop // 2
        # The squares of the four windows over each sample sum to 3/2.
        return total[..., edge : edge + self.segment_length] * (2 / 3)


def separate(model: Model, track: np.ndarray) -> np.ndarray:
    """(C, L) at the model's sample rate -> (S, C, L)"""
    length, segment = track.shape[-1], model.segment_length
    mono = track.mean(0)
    level, deviation = mono.mean(), mono.std(ddof=1) + 1e-8
    track = (track - level) / deviation
    half = segment // 2
    rise = np.arange(1, half + 1)
    weight = np.concatenate([rise, np.arange(segment - half, 0, -1)]).astype("f")
    weight /= weight.max()
    total = np.zeros((len(model.sources), *track.shape), dtype="f")
    weights = np.zeros(length, dtype="f")
    for start in range(0, length, int((1 - OVERLAP) * segment)):
        count = min(segment, length - start)
        first = start - (segment - count) // 2  # a short last segment lies in the window's middle
        window = np.zeros((model.channels, segment), dtype="f")
        begin, end = max(first, 0), min(first + segment, length)
        window[:, begin - first : end - first] = track[:, begin:end]
        output = model(window)[..., start - first : start - first + count]
        total[..., start : start + count] += output * weight[:count]
        weights[start : start + count] += weight[:count]
    return total / weights * deviation + level


def main() -> None:
    """Separate a file into a folder of WAV files."""
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/onnx_separate.py MODEL.onnx SONG FOLDER")
    model = Model(sys.argv[1])
    track, sample_rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
    if sample_rate != model.sample_rate or track.shape[1] != model.channels:
        sys.exit(f"this example needs {model.sample_rate} Hz and {model.channels} channels")
    folder = Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    for name, stem in zip(model.sources, separate(model, track.T), strict=True):
        soundfile.write(folder / f"{name}.wav", stem.T, sample_rate)
        print(folder / f"{name}.wav")


if __name__ == "__main__":
    main()
