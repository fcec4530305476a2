"""Spoken phrases become sung ones: each syllable is stretched to a note and given its pitch.

A source-filter synthesizer at 44.1 kHz: a pulse train and noise pass the phrase's own spectral
envelopes, which may be moved up or down in frequency (a shorter or longer vocal tract). Above
what 24 kHz speech holds, the envelope goes on with a falling, noisy band, as in real voices.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from recipes.mini.composing.notes import to_hz
from recipes.mini.mixing.audio import SAMPLE_RATE
from recipes.mini.singing.voices import FFT_SIZE, FRAME_PERIOD, SPEECH_RATE, Phrase

HOP = 256  # samples between synthesis frames
WINDOW = 512  # samples of excitation filtered at once
FILTER_SIZE = 1024  # FFT size: the window and a filter response as long
FRAME_RATE = SAMPLE_RATE / HOP  # synthesis frames a second
SPEECH_EDGE = 10_300  # Hz: above it the speech engines' band ends
DECIBELS = 10 / np.log(10)  # in one unit of natural-log power
_BINS = np.arange(1, FILTER_SIZE // 2 + 2) * SAMPLE_RATE / FILTER_SIZE  # Hz, near enough
_PRESENCE = np.exp(-0.5 * np.log2(_BINS / 2200) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Delivery:
    """How a phrase is sung."""

    formants: float = 1.0  # spectral envelope's scale in frequency
    portamento: float = 0.06  # s from one note to the next
    vibrato: float = 0.3  # semitones, on long notes
    vibrato_rate: float = 5.5  # Hz
    breathiness: float = 0.0  # 0 as spoken to 1 whispered
    drift: float = 0.08  # semitones of slow unsteadiness
    spoken: float = 0.0  # how much of the speech's own pitch movement stays, 1 for rap
    air: float = -2.5  # dB a kHz above the speech engines' band
    effort: float = 5.0  # dB that a loud voice gains around 2 kHz
    sibilance: float = -4.0  # dB of the voiceless sounds


@lru_cache(maxsize=96)
def _spectra(phrase: Phrase) -> tuple[np.ndarray, np.ndarray]:
    """Return log power envelope and aperiodicity, (F, bins up to 12 kHz)."""
    import pyworld

    coded = phrase.envelope.astype(np.float64)
    envelope = pyworld.decode_spectral_envelope(coded, SPEECH_RATE, FFT_SIZE)
    noisiness = pyworld.decode_aperiodicity(
        phrase.noisiness.astype(np.float64), SPEECH_RATE, FFT_SIZE
    )
    return np.log(envelope + 1e-12).astype(np.float32), noisiness.astype(np.float32)


@lru_cache(maxsize=512)
def syllables(phrase: Phrase) -> tuple[int, ...]:
    """Return the frames where syllables begin, and the phrase's last: one more than syllables."""
    log_power, _ = _spectra(phrase)
    bins = slice(int(200 / SPEECH_RATE * FFT_SIZE), int(3000 / SPEECH_RATE * FFT_SIZE))
    loudness = DECIBELS * np.logaddexp.reduce(log_power[:, bins], axis=1)  # dB
    loudness = gaussian_filter1d(np.where(phrase.pitch > 0, loudness, loudness - 12), 4)
    nuclei, _ = find_peaks(loudness, distance=14, prominence=1.2)
    if not len(nuclei):
        return (0, len(loudness))
    valleys = [int(a + np.argmin(loudness[a:b])) for a, b in pairwise(nuclei)]
    return (0, *valleys, len(loudness))


def _stretch(phrase: Phrase, starts: np.ndarray, ends: np.ndarray, frames: int) -> np.ndarray:
    """Return the (fractional) phrase frame that every synthesis frame shows, -1 for silence.

    A note longer than its syllable lengthens the syllable's loudest voiced part.
    """
    log_power, _ = _spectra(phrase)
    loudness = np.exp(0.25 * (log_power.mean(axis=1) - log_power.mean(axis=1).max()))
    elastic = np.where(phrase.pitch > 0, loudness, 0.0) ** 2 + 1e-4
    positions = np.full(frames, -1.0)
    edges = syllables(phrase)
    per_frame = 1000 / FRAME_PERIOD / FRAME_RATE  # phrase frames a synthesis frame
    for first, last, start, end in zip(edges, edges[1:], starts, ends, strict=False):
        begin, stop = round(start * FRAME_RATE), min(round(end * FRAME_RATE), frames)
        if stop <= begin:
            continue
        spoken = (last - first) / per_frame
        extra = (stop - begin) - spoken
        each = np.full(last - first, 1 / per_frame)
        if extra > 0:
            each += extra * elastic[first:last] / elastic[first:last].sum()
        times = begin + np.concatenate([[0], np.cumsum(each)]) * min(1, (stop - begin) / each.sum())
        positions[begin:stop] = np.interp(np.arange(begin, stop), times, np.arange(first, last + 1))
    return np.minimum(positions, len(phrase.pitch) - 1)


def _pitch_curve(
    rng: np.random.Generator,
    phrase: Phrase,
    notes: np.ndarray,
    positions: np.ndarray,
    how: Delivery,
) -> np.ndarray:
    """Return the MIDI pitch at every synthesis frame."""
    frames = len(positions)
    times = np.arange(frames) / FRAME_RATE
    index = np.clip(np.searchsorted(notes["start"], times, side="right") - 1, 0, len(notes) - 1)
    pitch = gaussian_filter1d(notes["pitch"][index], max(how.portamento * FRAME_RATE / 2, 0.3))
    since = times - notes["start"][index]
    settled = np.clip((since - 0.25) / 0.3, 0, 1)
    rate = how.vibrato_rate * (1 + 0.05 * gaussian_filter1d(rng.standard_normal(frames), 40) * 9)
    pitch += how.vibrato * settled * np.sin(2 * np.pi * np.cumsum(rate) / FRAME_RATE)
    pitch += how.drift * 8 * gaussian_filter1d(rng.standard_normal(frames), 20)
    pitch -= rng.uniform(0, 12) * how.drift * np.exp(-np.maximum(since, 0) / 0.05)  # scoops
    if how.spoken:
        spoken = phrase.pitch[np.maximum(positions, 0).astype(int)]
        median = np.median(phrase.pitch[phrase.pitch > 0]) if (phrase.pitch > 0).any() else 1.0
        own = 12 * np.log2(np.maximum(spoken, 1) / median) * (spoken > 0)
        pitch += how.spoken * gaussian_filter1d(np.clip(own, -9, 9), 2)
    return pitch


def _pulses(frequency: np.ndarray) -> np.ndarray:
    """Return a pulse train of unit power without harmonics above 20 kHz; `frequency` in Hz."""
    phase = 2 * np.pi * np.mod(np.cumsum(frequency, dtype=np.float64) / SAMPLE_RATE, 1.0)
    harmonics = np.floor(20_000 / frequency)
    below = 2 * np.sin(phase / 2)
    flat = np.abs(below) < 1e-3
    train = np.sin((harmonics + 0.5) * phase) / np.where(flat, 1, below)
    train = np.where(flat, harmonics + 0.5, train) - 0.5
    return (train * np.sqrt(2 / harmonics)).astype(np.float32)


@lru_cache(maxsize=8)
def _frequency_map(formants: float) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every filter bin, the phrase's bin that it shows and the kHz beyond its band."""
    hertz = np.arange(FILTER_SIZE // 2 + 1) * SAMPLE_RATE / FILTER_SIZE / formants
    beyond = np.maximum(hertz - SPEECH_EDGE, 0) / 1000
    return np.minimum(hertz, SPEECH_EDGE) / SPEECH_RATE * FFT_SIZE, beyond.astype(np.float32)


def _filters(phrase: Phrase, positions: np.ndarray, how: Delivery) -> tuple[np.ndarray, np.ndarray]:
    """Return log amplitude and noise share of every synthesis frame: (frames, bins) each."""
    log_power, noisiness = _spectra(phrase)
    bins, beyond = _frequency_map(how.formants)
    low, part = bins.astype(int), (bins % 1).astype(np.float32)
    frame = np.clip(positions, 0, len(log_power) - 1.001)
    index, weight = frame.astype(int), (frame % 1).astype(np.float32)[:, None]
    spectra = log_power[index] * (1 - weight) + log_power[index + 1] * weight
    top = spectra[:, int(8000 / SPEECH_RATE * FFT_SIZE) : int(SPEECH_EDGE / SPEECH_RATE * FFT_SIZE)]
    spectra = spectra[:, low] * (1 - part) + spectra[:, low + 1] * part
    above = beyond > 0
    spectra[:, above] = top.mean(axis=1, keepdims=True) + how.air / DECIBELS * beyond[above]
    voiceless = phrase.pitch[np.round(frame).astype(int)] == 0
    spectra += np.where(voiceless[:, None], how.sibilance, how.effort * _PRESENCE) / DECIBELS
    noise = np.maximum(noisiness[index][:, low], how.breathiness)
    noise[voiceless] = 1.0
    noise[:, above] = np.maximum(noise[:, above], 0.8)
    return spectra / 2, noise


def _minimum_phase(log_amplitude: np.ndarray) -> np.ndarray:
    """Return the spectra (frames, bins) of the minimum-phase filters with these log amplitudes."""
    cepstrum = fft.irfft(log_amplitude, FILTER_SIZE, axis=1).astype(np.float32)
    cepstrum[:, 1 : FILTER_SIZE // 2] *= 2
    cepstrum[:, FILTER_SIZE // 2 + 1 :] = 0
    return np.exp(fft.rfft(cepstrum, axis=1)).astype(np.complex64)


def sing(rng: np.random.Generator, phrase: Phrase, notes: np.ndarray, how: Delivery) -> np.ndarray:
    """Sing the phrase's first syllables on `notes`, one each: (L,) with RMS near 0.1.

    Notes start within the result at their own times (s); the caller makes them begin near 0.
    """
    ends = notes["start"] + notes["duration"]
    frames = int(np.ceil((ends[-1] + 0.05) * FRAME_RATE)) + WINDOW // HOP
    positions = _stretch(phrase, notes["start"], ends, frames)
    sounding = gaussian_filter1d((positions >= 0).astype(float), 1.5) * (positions >= 0)
    pitch = _pitch_curve(rng, phrase, notes, positions, how)
    length = frames * HOP
    at = np.arange(length) / HOP
    frequency = np.maximum(to_hz(np.interp(at, np.arange(frames), pitch)), 40.0)
    amplitude, noise_share = _filters(phrase, positions, how)
    shape = np.hanning(WINDOW + 1)[:-1].astype(np.float32)

    def frames_of(excitation: np.ndarray) -> np.ndarray:
        padded = np.pad(excitation, (0, WINDOW))
        cut = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
        return fft.rfft(cut * shape, FILTER_SIZE, axis=1).astype(np.complex64)

    spectra = frames_of(_pulses(frequency)) * np.sqrt(1 - np.minimum(noise_share, 1) ** 2)
    spectra += frames_of(rng.standard_normal(length, dtype=np.float32)) * noise_share
    spectra *= _minimum_phase(amplitude) * sounding[:, None].astype(np.float32)
    pieces = fft.irfft(spectra, axis=1).astype(np.float32).reshape(frames, -1, HOP)
    result = np.zeros((frames + pieces.shape[1], HOP), dtype=np.float32)
    for offset in range(pieces.shape[1]):
        result[offset : offset + frames] += pieces[:, offset]
    sung = result.reshape(-1)
    power = np.square(sung[np.abs(sung) > 0.05 * np.abs(sung).max()]).mean()
    return sung * np.float32(0.1 / np.sqrt(power + 1e-12))
