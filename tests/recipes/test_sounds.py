"""Drum machine, synthesizers and singing: pitch, level and length."""

import numpy as np
import pytest

from recipes.mini.composing import drum_keys, patterns
from recipes.mini.composing.notes import collect, to_hz
from recipes.mini.composing.score import compose
from recipes.mini.mixing import audio
from recipes.mini.mixing.audio import SAMPLE_RATE
from recipes.mini.playing import drum_machine, synths
from recipes.mini.singing import vocoder
from recipes.mini.singing.voices import FFT_SIZE, Phrase


def rng(seed=0):
    return np.random.default_rng(seed)


def strongest(sound):
    """Frequency (Hz) of the highest peak of a mono sound's spectrum."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return np.argmax(spectrum) * SAMPLE_RATE / len(sound)


@pytest.mark.parametrize("seed", range(4))
def test_every_hit_is_loud_finite_and_ends_quietly(seed):
    kit = drum_machine.synthetic_kit(rng(seed))
    assert set(kit) == set(drum_keys.KEYS)
    for hit in kit.values():
        assert np.abs(hit).max() == pytest.approx(1, abs=0.01)
        assert np.abs(hit[-20:]).max() < 0.03


def test_the_same_seed_gives_the_same_kit():
    first, second = (drum_machine.synthetic_kit(rng(5)) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in drum_keys.KEYS)


def test_kicks_are_low_and_hats_high():
    assert strongest(drum_machine.kick(rng(1))) < 150
    assert strongest(drum_machine.hat(rng(1), 0.1, 6000)) > 3000


@pytest.mark.parametrize("style", patterns.STYLES)
def test_patterns_play_known_keys_inside_the_song(style):
    score = compose(rng(1), 128, 60)
    notes = patterns.drum_notes(rng(2), score, style)
    assert set(notes["pitch"].astype(int)) <= set(drum_keys.KEYS)
    assert notes["start"].min() >= 0
    assert notes["start"].max() < score.seconds
    played = drum_machine.play(drum_machine.synthetic_kit(rng(3)), notes, {}, score.seconds)
    assert played.shape == (60 * SAMPLE_RATE, 2)


@pytest.mark.parametrize("wave", [synths.saw, synths.square, synths.sine])
def test_oscillators_play_their_pitch(wave):
    sound = wave(np.full(SAMPLE_RATE, 440, dtype=np.float32))
    assert strongest(sound) == pytest.approx(440, abs=1.5)
    assert np.abs(sound[10:]).max() < 2.1


def test_a_saw_has_little_aliasing():
    frequency = 3001.0
    sound = synths.saw(np.full(SAMPLE_RATE, frequency, dtype=np.float32))
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    harmonics = np.round(np.arange(1, 8) * frequency).astype(int)
    near = (harmonics[:, None] + np.arange(-4, 5)).ravel()
    assert power[near].sum() / power.sum() > 0.98


def test_a_sweep_at_the_top_keeps_lows_and_at_the_bottom_drops_highs():
    low = synths.sine(np.full(SAMPLE_RATE, 100, dtype=np.float32))
    high = synths.sine(np.full(SAMPLE_RATE, 6000, dtype=np.float32))
    opened = synths.sweep(low, np.full(SAMPLE_RATE, 11_000.0))
    closed = synths.sweep(high, np.full(SAMPLE_RATE, 200.0))
    assert audio.rms(opened) == pytest.approx(audio.rms(low), rel=0.05)
    assert audio.rms(closed) < 0.01 * audio.rms(high)


def test_a_line_glides_between_its_notes_and_rests_after_them():
    notes = collect([(0.0, 0.5, 40, 1.0), (0.5, 0.5, 52, 1.0)])
    frequency, loudness = synths.line(notes, 2.0, glide=0.1, release=0.05)
    assert len(frequency) == len(loudness) == 2 * SAMPLE_RATE
    assert frequency[SAMPLE_RATE // 5] == pytest.approx(to_hz(40), rel=0.01)
    assert to_hz(41) < frequency[SAMPLE_RATE // 2] < to_hz(51)
    assert loudness[SAMPLE_RATE // 4] == pytest.approx(1, abs=0.02)
    assert loudness[-SAMPLE_RATE // 2] < 0.01


def test_chords_sound_only_while_played():
    notes = collect([(0.5, 0.3, 60, 1.0), (0.5, 0.3, 64, 1.0), (0.5, 0.3, 60, 0.5)])
    for voice in (
        synths.supersaw(rng(), (0.01, 0.1, 0.8, 0.1), 8000),
        synths.pulse_keys(rng(), (0.01, 0.1, 0.8, 0.1), 8000),
        synths.pluck(rng(), 0.4),
        synths.bell(rng(), 0.5),
    ):
        sound = synths.chords(notes, 2.0, voice)
        assert sound.shape == (2 * SAMPLE_RATE, 2)
        assert np.abs(sound[: SAMPLE_RATE // 2]).max() == 0
        assert audio.rms(sound[SAMPLE_RATE // 2 : SAMPLE_RATE]) > 0.05
        assert np.abs(sound[-SAMPLE_RATE // 4 :]).max() == 0


@pytest.fixture
def vowel(monkeypatch):
    """A phrase of one flat, voiced second, and its spectra without pyworld."""
    frames = 200
    empty = np.zeros((frames, 1), dtype=np.float32)
    phrase = Phrase("test", "ah", np.full(frames, 200.0), empty, empty)
    log_power = np.tile(-np.arange(FFT_SIZE // 2 + 1) / 60, (frames, 1)).astype(np.float32)
    noisiness = np.full_like(log_power, 0.05)
    monkeypatch.setattr(vocoder, "_spectra", lambda _: (log_power, noisiness))
    return phrase


@pytest.mark.parametrize("pitch", [48, 57, 69])
def test_singing_hits_the_note(vowel, pitch):
    still = vocoder.Delivery(vibrato=0, drift=0)
    sung = vocoder.sing(rng(), vowel, collect([(0.0, 2.0, pitch, 1.0)]), still)
    middle = sung[SAMPLE_RATE // 2 : 3 * SAMPLE_RATE // 2].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    fundamental = to_hz(pitch)
    around = slice(int(0.9 * fundamental), int(1.1 * fundamental))
    assert around.start + np.argmax(spectrum[around]) == pytest.approx(fundamental, rel=0.01)


def test_a_whisper_has_no_pitch_and_a_voice_has_highs(vowel):
    note = collect([(0.0, 2.0, 57, 1.0)])
    voiced = vocoder.sing(rng(), vowel, note, vocoder.Delivery(vibrato=0, drift=0))
    whispered = vocoder.sing(rng(), vowel, note, vocoder.Delivery(breathiness=1))

    def peakiness(sound):
        spectrum = np.abs(np.fft.rfft(sound[:SAMPLE_RATE]))[200:2000]
        return spectrum.max() / np.median(spectrum)

    assert peakiness(voiced) > 3 * peakiness(whispered)
    assert audio.rms(audio.band(voiced, 13_000, None)) > 0


def test_a_formant_scale_moves_the_spectrum(vowel):
    note = collect([(0.0, 1.0, 45, 1.0)])
    dark, bright = (
        vocoder.sing(rng(), vowel, note, vocoder.Delivery(formants=scale)) for scale in (0.8, 1.2)
    )
    share = [
        audio.rms(audio.band(sound, 3000, None)) / audio.rms(sound) for sound in (dark, bright)
    ]
    assert share[1] > 1.2 * share[0]
