"""Random effect chains, such as a mixing engineer might put on each stem.

Every chain keeps the sound's length and roughly its place in time, so that a stem stays aligned.
"""

import numpy as np
import pedalboard as pb

from recipes.mini.mixing.audio import SAMPLE_RATE, band, rms

SUBSONIC = 16  # Hz: what lies below is offset, from asymmetric samples and distortion


def _apply(plugins: list[pb.Plugin], sound: np.ndarray) -> np.ndarray:
    board = pb.Pedalboard([*plugins, pb.HighpassFilter(SUBSONIC)])
    return board(np.ascontiguousarray(sound.T), SAMPLE_RATE).T.astype(np.float32)


def _levelled(sound: np.ndarray, level: float = 0.1) -> np.ndarray:
    power = rms(sound)
    return sound * np.float32(level / power) if power > 0 else sound


def _equaliser(rng: np.random.Generator, amount: float) -> list[pb.Plugin]:
    """Return a tilt and two bells of up to `amount` dB."""
    tilt = rng.normal(0, amount / 2)
    bells = [
        pb.PeakFilter(float(np.exp(rng.uniform(np.log(120), np.log(9000)))),
                      float(rng.normal(0, amount / 2)), float(rng.uniform(0.4, 1.6)))
        for _ in range(2)
    ]  # fmt: skip
    return [pb.LowShelfFilter(300, -tilt), pb.HighShelfFilter(3000, tilt), *bells]


def _compressor(rng: np.random.Generator) -> pb.Plugin:
    return pb.Compressor(
        threshold_db=rng.uniform(-32, -14), ratio=rng.uniform(1.5, 6),
        attack_ms=rng.uniform(1, 40), release_ms=rng.uniform(40, 300),
    )  # fmt: skip


def _reverb(rng: np.random.Generator, most: float) -> pb.Plugin:
    wet = rng.uniform(0.03, most)
    return pb.Reverb(
        room_size=rng.uniform(0.1, 0.95), damping=rng.uniform(0.1, 0.9), wet_level=wet,
        dry_level=1 - wet / 2, width=rng.uniform(0.6, 1.0),
    )  # fmt: skip


def _delay(rng: np.random.Generator, beat: float, most: float) -> pb.Plugin:
    return pb.Delay(
        float(rng.choice([0.25, 0.5, 0.75, 1])) * beat,
        rng.uniform(0.1, 0.5),
        rng.uniform(0.05, most),
    )


def _modulation(rng: np.random.Generator) -> pb.Plugin:
    if rng.random() < 0.6:
        return pb.Chorus(rng.uniform(0.3, 2.5), rng.uniform(0.05, 0.4), mix=rng.uniform(0.2, 0.6))
    return pb.Phaser(rng.uniform(0.1, 2), mix=rng.uniform(0.2, 0.6))


def width(sound: np.ndarray, amount: float) -> np.ndarray:
    """Scale the side signal: 0 is mono, 1 unchanged, more is wider."""
    straight, crossed = np.float32((1 + amount) / 2), np.float32((1 - amount) / 2)
    return straight * sound + crossed * sound[:, ::-1]


def widen(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Give a narrow sound sides: a copy delayed by 5 to 25 ms, added with opposite signs."""
    late = np.roll(sound[:, 0] + sound[:, 1], int(rng.uniform(0.005, 0.025) * SAMPLE_RATE))
    side = np.float32(rng.uniform(0.15, 0.5)) * late
    return sound + np.stack([side, -side], axis=1)


def drums(rng: np.random.Generator, sound: np.ndarray, beat: float) -> np.ndarray:
    """Apply equaliser, compression, saturation, room; rarely a crusher or a delay."""
    chain = _equaliser(rng, 5)
    if rng.random() < 0.6:
        chain.append(_compressor(rng))
    if rng.random() < 0.25:
        chain.append(pb.Distortion(rng.uniform(3, 14)))
    if rng.random() < 0.08:
        chain.append(pb.Bitcrush(rng.uniform(6, 11)))
    if rng.random() < 0.45:
        chain.append(_reverb(rng, 0.2))
    if rng.random() < 0.05:
        chain.append(_delay(rng, beat, 0.3))
    return width(_apply(chain, _levelled(sound)), rng.uniform(0.6, 1.3))


def bass(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Apply equaliser, compression, drive; the result is mostly narrow."""
    chain = _equaliser(rng, 4)
    if rng.random() < 0.5:
        chain.append(_compressor(rng))
    if rng.random() < 0.35:
        chain.append(pb.Distortion(rng.uniform(3, 20)))
    if rng.random() < 0.2:
        chain.append(_modulation(rng))
    sound = _apply(chain, _levelled(sound))
    if rng.random() < 0.06:
        sound = widen(rng, sound)
    if rng.random() < 0.35:
        sound = band(sound, None, rng.uniform(400, 4000))
    return width(sound, rng.choice([0, 0.5, 1.0], p=[0.35, 0.3, 0.35]))


def amplifier(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Play the sound through a guitar amplifier: drive, and a loudspeaker that stops near 5 kHz."""
    drive = rng.choice([rng.uniform(4, 14), rng.uniform(16, 38)])
    chain = [pb.HighpassFilter(rng.uniform(70, 160)), pb.Distortion(drive),
             pb.PeakFilter(rng.uniform(600, 3000), rng.uniform(-4, 6), 0.7)]  # fmt: skip
    return band(_apply(chain, _levelled(sound)), 70, rng.uniform(3800, 8000))


def instrument(rng: np.random.Generator, sound: np.ndarray, beat: float) -> np.ndarray:
    """Give a part of `other` colour, space and width, from dry to drowned."""
    chain = _equaliser(rng, 6)
    if rng.random() < 0.2:
        chain.append(pb.Distortion(rng.uniform(2, 16)))
    if rng.random() < 0.4:
        chain.append(_compressor(rng))
    if rng.random() < 0.4:
        chain.append(_modulation(rng))
    if rng.random() < 0.35:
        chain.append(_delay(rng, beat, 0.45))
    if rng.random() < 0.65:
        chain.append(_reverb(rng, rng.choice([0.2, 0.5])))
    if rng.random() < 0.2:
        chain.append(pb.HighpassFilter(rng.uniform(100, 500)))
    sound = _apply(chain, _levelled(sound))
    if rng.random() < 0.25:
        sound = widen(rng, sound)
    return width(sound, rng.uniform(0.5, 1.7))


def vocals(rng: np.random.Generator, sound: np.ndarray, beat: float, genre: str) -> np.ndarray:
    """Apply high-pass, compression, equaliser, echo and hall; stranger in electronic songs."""
    odd = 2.0 if genre == "electronic" else 0.6
    chain = [pb.HighpassFilter(rng.uniform(70, 180)), *_equaliser(rng, 4.5), _compressor(rng)]
    if rng.random() < 0.3:
        chain.append(_compressor(rng))
    if rng.random() < 0.12 * odd:
        chain.append(pb.Distortion(rng.uniform(4, 24)))
    if rng.random() < 0.03 * odd:
        chain.append(pb.Bitcrush(rng.uniform(6, 10)))
    if rng.random() < 0.12 * odd:
        chain.append(_modulation(rng))
    if rng.random() < 0.07 * odd:
        chain += [
            pb.HighpassFilter(rng.uniform(350, 700)),
            pb.LowpassFilter(rng.uniform(2500, 4500)),
        ]
    if rng.random() < 0.4:
        chain.append(_delay(rng, beat, 0.35))
    if rng.random() < 0.85:
        chain.append(_reverb(rng, 0.6 if rng.random() < 0.15 * odd else 0.22))
    sound = _apply(chain, _levelled(sound))
    if rng.random() < 0.12 * odd:
        sound = widen(rng, sound)
    return width(sound, rng.uniform(0.7, 1.4))
