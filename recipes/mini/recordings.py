"""Which recording is which stem: real music under CC0 and MIT, file by file.

Folders are those of `--source`; the Debian package's songs lie where it installs them.
"""

from dataclasses import dataclass
from pathlib import Path

from recipes.mini.sources import Package

FRETS_ON_FIRE = Path("/usr/share/games/fretsonfire/data/songs/sectoid")
PACKAGE = Package(
    "fretsonfire-songs-sectoid", "debian", "MIT", "electric guitar", True, FRETS_ON_FIRE
)
NARROW = 9_000.0  # Hz: recordings at 24 kHz end just above it


@dataclass(frozen=True)
class Recording:
    """A track to make of files that exist.

    Attributes:
        name: the track's folder.
        folder: of the files, below the collection's.
        stems: patterns of file names by stem; a stem without any is silent.
        edge: low-pass every stem here (Hz), where some files hold nothing above it, so that
            bandwidth does not give stems away. None leaves them.
        loops: the files are loops and one-shots to be strung together, not one song's stems.
    """

    name: str
    folder: str
    stems: dict[str, tuple[str, ...]]
    edge: float | None = None
    loops: bool = False


@dataclass(frozen=True)
class Collection:
    """Recordings of one origin and licence.

    Attributes:
        name: the folder below `--source`, and below `--out`.
        licence: in a word.
        recordings: its tracks.
        folder: where its files are, if not below `--source`.
        origin: to be credited, if no `SOURCE.txt` beside the files says it.
    """

    name: str
    licence: str
    recordings: tuple[Recording, ...]
    folder: Path | None = None
    origin: str = ""


# All files of a song start together (onsets lie within 3 ms of one grid of bars). The synthesizer
# is the bass of Potassium and Rubidium (over 90 % of its power below 250 Hz), chords and
# arpeggios in Hydrogen (a third). Left out: "BUILD" and "MICROCOSM_EFFECT" of Potassium, which
# are drums, bass and effects at once.
ALBUM = Collection(
    "everythingisremixed",
    "CC0-1.0",
    (
        Recording(
            "hydrogen",
            "1.Hydrogen",
            {
                "drums": ("*MAIN DRUMS*", "*DRUMS BREAK*", "*Stem_HH*"),
                "other": ("*MINILOGUE*", "*MICROCOSM*", "*BEEPS*", "*SWEEPS*"),
                "vocals": ("*VOX*",),
            },
            edge=NARROW,
        ),
        Recording(
            "potassium",
            "4.Potassium",
            {
                "drums": ("*DRUM*", "*BEAT*", "*HAT*", "*KICK.*", "*SNARE*"),
                "bass": ("*PAD + BASS*", "*MINILOGUE*"),
                "other": ("*KEYS*", "*MALLET*", "*SWEEP*"),
                "vocals": ("*VOX*",),
            },
        ),
        Recording(  # without its one drum track at 24 kHz, the other drums keep their highs
            "rubidium",
            "5.Rubidium",
            {
                "drums": ("*DRUMS MAIN*", "*DRUMS OUTRO*"),
                "bass": ("*MINILOGUE*",),
                "other": ("*BUILD*", "*MELODY*", "*PLUCK*"),
                "vocals": ("*VOX*",),
            },
        ),
        Recording(
            "rubidium narrow",
            "5.Rubidium",
            {
                "drums": ("*DRUMS*",),
                "bass": ("*MINILOGUE*",),
                "other": ("*BUILD*", "*MELODY*", "*PLUCK*"),
                "vocals": ("*VOX*",),
            },
            edge=NARROW,
        ),
    ),
)
TRACKSWITCH = Collection(
    "trackswitch",
    "MIT",
    (
        Recording(
            "trackswitch",
            "",
            {"drums": ("drums.*",), "bass": ("bass.*",), "other": ("synth.*", "violins.*")},
        ),
    ),
)
# Left out of the packs: noises called vocals, effects, and what could be more than one stem.
LIBRE = Collection(
    "libre-sample-pack",
    "CC0-1.0",
    (
        Recording(
            "libre loops",
            "",
            {
                "drums": ("drums/loops/*",),
                "bass": ("synths/loops/shizo - bass*",),
                "other": ("melodies/*", "synths/loops/alien*", "synths/loops/metal*"),
            },
            loops=True,
        ),
    ),
)
STARGATE = Collection(
    "stargate-sample-pack",
    "CC0-1.0",
    (
        Recording(
            "stargate loops",
            "stargate-sample-pack",
            {
                "drums": ("microlag/Loops/Drums*", "fugue-state-audio/loops/*beat.flac",
                          "fugue-state-audio/loops/120-filterhats*"),
                "bass": ("microlag/Loops/Bass*",),
                "other": ("microlag/Loops/Chord*", "microlag/Loops/Guitar*",
                          "microlag/Loops/Melody*", "microlag/Loops/Ambience*",
                          "fugue-state-audio/guitar-fx/*"),
                "vocals": ("microlag/One-Shots/Vocals/*",),
            },
            loops=True,
        ),
    ),
)  # fmt: skip
# `song.ogg` beside the guitar is drums, bass and keys at once: of no use as a stem.
FRETS = Collection(
    "fretsonfire-songs-sectoid",
    "MIT",
    tuple(
        Recording(name.lower(), name, {"other": ("guitar.ogg",)})
        for name in ("Escape from chaosland", "Feelings", "Metal madness", "War of freedom")
    ),
    folder=FRETS_ON_FIRE,
    origin=f"Debian package {PACKAGE.name}, copyright (c) 2006/2007 Carlos Viola Iborra",
)
COLLECTIONS = (ALBUM, TRACKSWITCH, LIBRE, STARGATE, FRETS)
