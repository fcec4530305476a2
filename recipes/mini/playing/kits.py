"""Drum kits of recorded hits, and drum loops fitted to a tempo."""

import re
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import soundfile

from recipes.mini import sources
from recipes.mini.composing import drum_keys as dk
from recipes.mini.mixing.audio import SAMPLE_RATE, fade, resample, seconds_to_samples

_SAMPLE_PATTERNS = {
    dk.KICK: r"bd_|elec_hollow_kick|elec_soft_kick|drum_heavy_kick|drum_bass_",
    dk.SNARE: r"sn_|drum_snare|elec_(hi_|lo_|mid_|filt_)?snare",
    dk.CLOSED_HAT: r"drum_cymbal_(closed|pedal)|elec_tick|elec_cymbal",
    dk.OPEN_HAT: r"drum_cymbal_open",
    dk.RIM: r"elec_wood|perc_snap|elec_pop|elec_blip2|elec_tick|glitch_perc",
    dk.CLAP: r"perc_snap|sn_zome|elec_flip|glitch_perc",
    dk.LOW_TOM: r"drum_tom_lo|elec_fuzz_tom", dk.MID_TOM: r"drum_tom_mid|elec_fuzz_tom",
    dk.HIGH_TOM: r"drum_tom_hi|elec_fuzz_tom", dk.CRASH: r"drum_cymbal_hard|drum_splash",
    dk.COWBELL: r"drum_cowbell|elec_plip|elec_twip", dk.SHAKER: r"drum_cymbal_pedal|elec_tick",
}  # fmt: skip
_INSTRUMENT_PATTERNS = {
    dk.KICK: r"kick|bass ?drum|^bd", dk.SNARE: r"snare|^sd|^sn", dk.RIM: r"rim|stick",
    dk.CLAP: r"clap", dk.CLOSED_HAT: r"clos|hh ?c|hat", dk.OPEN_HAT: r"open|hh ?o",
    dk.LOW_TOM: r"tom", dk.MID_TOM: r"tom", dk.HIGH_TOM: r"tom", dk.CRASH: r"crash|cymbal|ride",
    dk.COWBELL: r"bell|perc|conga", dk.SHAKER: r"shak|tamb|hat",
}  # fmt: skip
_LOOPS = (
    "loop_amen", "loop_amen_full", "loop_breakbeat", "loop_compus", "loop_industrial",
    "loop_mehackit1", "loop_mehackit2", "loop_tabla", "loop_perc1", "loop_perc2", "loop_electric",
    "loop_safari",
)  # fmt: skip


@cache
def _read(path: Path) -> np.ndarray:
    """Read a sample file at this project's rate: (L, 2), peak 1."""
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = np.repeat(sound, 2, axis=1) if sound.shape[1] == 1 else sound[:, :2]
    sound = sound if rate == SAMPLE_RATE else resample(sound, SAMPLE_RATE / rate)
    return sound / max(float(np.abs(sound).max()), 1e-6)


def _hit(rng: np.random.Generator, path: Path) -> np.ndarray:
    sound = resample(_read(path), 2 ** rng.uniform(-0.2, 0.2))
    return sound[: seconds_to_samples(2.5)]


def sampled_kit(rng: np.random.Generator) -> tuple[dict[int, np.ndarray], list[str]]:
    """Draw a kit of CC0 one-shots; return it and the samples' names."""
    samples = sources.free_samples()
    kit, names = {}, []
    for key, pattern in _SAMPLE_PATTERNS.items():
        found = sorted(name for name in samples if re.match(pattern, name))
        if found:
            name = found[rng.integers(len(found))]
            kit[key] = _hit(rng, samples[name])
            names.append(name)
    return kit, names


@cache
def _kit_files(folder: Path) -> dict[str, Path]:
    """Return a Hydrogen kit's instruments, one existing sample each."""
    tree = ElementTree.fromstring(
        re.sub(
            r'\sxmlns(:\w+)?="[^"]*"|\sxsi:\w+="[^"]*"',
            "",
            (folder / "drumkit.xml").read_text(errors="replace"),
        )
    )
    files = {}
    for instrument in tree.iter("instrument"):
        names = [name.text for name in instrument.iter("filename") if name.text]
        existing = [folder / name for name in names if (folder / name).exists()]
        if existing:
            files[(instrument.findtext("name") or "").lower()] = existing[-1]
    return files


def recorded_kits() -> list[str]:
    """Return the names of the installed Hydrogen kits that have a kick and a snare."""
    names = []
    for folder in sorted(sources.DRUMKITS.iterdir()):
        if (folder / "drumkit.xml").exists():
            found = " ".join(_kit_files(folder))
            if re.search(r"kick|bass ?drum", found) and "snare" in found:
                names.append(folder.name)
    return names


def recorded_kit(rng: np.random.Generator, name: str) -> dict[int, np.ndarray]:
    """Read a Hydrogen kit."""
    files = _kit_files(sources.DRUMKITS / name)
    kit = {}
    for key, pattern in _INSTRUMENT_PATTERNS.items():
        found = sorted(label for label in files if re.search(pattern, label))
        if found:
            kit[key] = _hit(rng, files[found[rng.integers(len(found))]])
    return kit


def loop(rng: np.random.Generator, beat: float) -> tuple[np.ndarray, str]:
    """Return a drum loop, resampled to whole beats of `beat` seconds, and its name."""
    samples = sources.free_samples()
    names = [name for name in _LOOPS if name in samples]
    name = names[rng.integers(len(names))]
    sound = _read(samples[name])
    beats = 2.0 ** round(float(np.log2(len(sound) / SAMPLE_RATE / beat)))
    fitted = resample(sound, beats * beat * SAMPLE_RATE / len(sound))
    return fade(fitted, 0.002), name
