import numpy as np
import pytest

from htdemucs.serve.time_stretch import LOOKAHEAD, Stretcher

RATE = 44_100


def track(seconds=20):
    t = np.arange(seconds * RATE) / RATE
    return np.stack([0.3 * np.sin(2 * np.pi * f * t) for f in (440, 331)]).astype(np.float32)


def reader(samples):
    def read(start, frames):
        out = np.zeros((len(samples), frames), np.float32)
        first, last = max(0, start), min(samples.shape[1], start + frames)
        if first < last:
            out[:, first - start : last - start] = samples[:, first:last]
        return out

    return read


def roughness(sound):
    """The greatest bend of a sound: a click is a large one."""
    return np.abs(np.diff(sound, 2)).max()


def pitch(sound):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return spectrum.argmax() * RATE / len(sound)


@pytest.mark.parametrize(("tempo", "semitones"), [(0.5, 0), (0.8, -2), (1, 3), (1.5, 0), (2, 12)])
def test_chunks_join_without_a_click_and_keep_the_pitch(tempo, semitones):
    stretched = Stretcher(reader(track()), RATE, tempo, semitones)
    start, parts = RATE, []
    for frames in (1000, 88_200, 7, 150_000, 88_200):
        parts.append(stretched.read(start, frames, 1 << 30))
        assert parts[-1].shape == (2, frames)
        start += frames
    sound = np.concatenate(parts, 1)[0]
    factor = 2 ** (semitones / 12)
    assert pitch(sound) == pytest.approx(440 * factor, rel=0.01)
    clean = 0.3 * (2 * np.pi * 440 * factor / RATE) ** 2  # the greatest bend of that sine
    assert roughness(sound) < 25 * clean
    level = [np.sqrt(np.mean(part**2)) for part in np.array_split(sound, 100)]
    assert min(level) > 0.5 * 0.3 / np.sqrt(2)  # nowhere do two pieces cancel each other


@pytest.mark.parametrize("tempo", [0.5, 0.9, 1.3, 2])
def test_events_are_where_the_tempo_puts_them(tempo):
    samples = np.zeros((2, 30 * RATE), np.float32)
    samples[:, :: 2 * RATE] = 1
    stretched = Stretcher(reader(samples), RATE, tempo, 0)
    sound = stretched.read(0, round(12 * RATE / tempo), 1 << 30)
    for i in range(1, 6):
        place = 2 * i * RATE / tempo
        window = sound[0, round(place) - RATE // 4 : round(place) + RATE // 4]
        assert abs(int(np.abs(window).argmax()) - RATE // 4) < 0.03 * RATE


def test_unchanged_is_unchanged_and_silence_surrounds_the_track():
    samples = track(5)
    stretched = Stretcher(reader(samples), RATE, 1, 0)
    sound = stretched.read(0, 6 * RATE, 6 * RATE)
    assert stretched.read(6 * RATE, 100, 6 * RATE).shape == (2, 0)
    assert np.allclose(sound[:, : 5 * RATE], samples, atol=1e-6)
    assert not sound[:, 5 * RATE + 2000 :].any()


def test_a_track_that_is_being_separated_is_read_as_far_as_it_is_done():
    """What is not there yet is read again when it is."""
    samples, there = track(12), [0]

    def read(start, frames):
        assert start + frames <= max(there[0], RATE)  # the margin before the start is silent
        return reader(samples)(start, frames)

    tempo = 0.8
    stretched, parts, start = Stretcher(read, RATE, tempo, 0), [], 0
    for there[0] in (2 * RATE, 5 * RATE, 5 * RATE + 300, 11 * RATE):
        end = int(there[0] / tempo - LOOKAHEAD * RATE) - 1
        part = stretched.read(start, 100 * RATE, end)
        assert part.shape[1] == end - start
        parts.append(part)
        start = end
    sound = np.concatenate(parts, 1)[0]
    assert roughness(sound) < 25 * 0.3 * (2 * np.pi * 440 / RATE) ** 2
