"""Pack tracks into small files, for example for a GPU machine without a network.

    python -m recipes.mini.parts pack DATA/valid DATA/train --to PARTS
    python -m recipes.mini.parts unpack PARTS/*.tar --to DATA

A part is a tar of Ogg Vorbis, a 14th of the bytes of WAV; unpacked, it is WAV again.
"""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import soundfile

from htdemucs.fsutil import atomic_write
from recipes.mini.tracks import ABOUT, write_track

COMPRESSION = 0.5  # 0 is the best quality, 1 the smallest file
BLOCK = 1 << 16  # frames; libsndfile's Vorbis encoder overflows its stack if given many more
MEGABYTE = 1_000_000
END = 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE  # at most, of a tar
SUFFIX = ".ogg"

Track = list[tuple[str, bytes]]  # names and contents of its files


class PartsError(Exception):
    """Tracks cannot be carried; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Pack or unpack. Return 0 when everything is there."""
    parser = argparse.ArgumentParser(prog="python -m recipes.mini.parts", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write tracks as parts")
    packing.add_argument("folders", nargs="+", type=Path, help="folders of tracks, in this order")
    packing.add_argument("--size", type=float, default=55, help="most megabytes of a part")
    packing.add_argument("--parts", type=int, help="leave out what does not fit so many parts")
    unpacking = commands.add_parser("unpack", help="make WAV files of parts")
    unpacking.add_argument("parts", nargs="+", type=Path)
    for command in (packing, unpacking):
        command.add_argument("--to", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        if options.command == "pack":
            pack(options.folders, options.to, int(options.size * MEGABYTE), options.parts)
        else:
            for part in options.parts:
                unpack(part, options.to)
    except (PartsError, OSError, soundfile.LibsndfileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def pack(folders: Sequence[Path], target: Path, size: int, most: int | None = None) -> None:
    """Write the folders' tracks to `part-NN.tar`, each of at most `size` bytes.

    Raises:
        PartsError: two folders have one name, a folder has no track, a track is too large, or there
            are parts already.
    """
    if any(target.glob("part-*.tar")):
        raise PartsError(f"{target} holds parts already; delete them or name another folder")
    folders = [folder.resolve() for folder in folders]
    if len({folder.name for folder in folders}) < len(folders):
        raise PartsError("folders need different names, since tracks are unpacked below them")
    found = [track for folder in folders for track in _tracks(folder)]
    for number, tracks in enumerate(islice(_parts(map(_encode_track, found), size - END), most)):
        path = target / f"part-{number:02}.tar"
        with atomic_write(path) as partial:
            _write_tar(tracks, partial)
        print(f"{path}: {path.stat().st_size / MEGABYTE:.0f} MB, {len(tracks)} tracks")


def _parts(tracks: Iterable[Track], size: int) -> Iterator[list[Track]]:
    """Yield groups of tracks that fit into `size` bytes of a tar."""
    part: list[Track] = []
    used = 0
    for track in tracks:
        needed = sum(_tar_size(content) for _, content in track)
        if needed > size:
            raise PartsError(f"{track[0][0].rpartition('/')[0]} alone is too large; raise --size")
        if used + needed > size:
            yield part
            part, used = [], 0
        part.append(track)
        used += needed
    yield part


def unpack(part: Path, target: Path) -> None:
    """Write the tracks of a part as WAV files; tracks that are there already are kept.

    Raises:
        PartsError: `pack` has not written it.
    """
    tracks: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(part, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                content = tar.extractfile(member)
                tracks.setdefault(folder, {})[name] = content.read() if content else b""
    except tarfile.TarError as error:
        raise PartsError(f"{part} is damaged, or was not written by `pack`") from error
    for folder, files in tracks.items():
        names = folder.split("/")
        if len(names) != 2 or set(names) & {"", ".", ".."} or ABOUT not in files:
            raise PartsError(f"{part} was not written by `pack`")
    with ThreadPoolExecutor() as pool:  # libsndfile works without the interpreter's lock
        list(pool.map(_unpack_track, (target / name for name in tracks), tracks.values()))
    print(f"{part}: {len(tracks)} tracks")


def _tracks(folder: Path) -> list[Path]:
    tracks = sorted(path.parent for path in folder.glob(f"*/{ABOUT}"))
    if not tracks:
        raise PartsError(f"{folder} has no track that recipes.mini has made")
    return tracks


def _encode_track(track: Path) -> Track:
    stems = sorted(path for path in track.glob("*.wav") if path.stem != "mixture")
    with ThreadPoolExecutor() as pool:
        contents = list(pool.map(_encode_vorbis, stems))
    names = [ABOUT, *(stem.stem + SUFFIX for stem in stems)]
    about = (track / ABOUT).read_bytes()
    return [
        (f"{track.parent.name}/{track.name}/{name}", content)
        for name, content in zip(names, [about, *contents], strict=True)
    ]


def _encode_vorbis(path: Path) -> bytes:
    samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    content = io.BytesIO()
    with soundfile.SoundFile(
        content, "w", sample_rate, samples.shape[1], format="OGG", subtype="VORBIS",
        compression_level=COMPRESSION,
    ) as file:  # fmt: skip
        for start in range(0, len(samples), BLOCK):
            file.write(samples[start : start + BLOCK])
    return content.getvalue()


def _tar_size(content: bytes) -> int:
    """Return the bytes that a file takes in a tar: its header and whole blocks."""
    blocks = -(-len(content) // tarfile.BLOCKSIZE)
    return (1 + blocks) * tarfile.BLOCKSIZE


def _write_tar(tracks: list[Track], path: Path) -> None:
    with tarfile.open(path, mode="w") as tar:
        for name, content in chain.from_iterable(tracks):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _unpack_track(folder: Path, files: dict[str, bytes]) -> None:
    if folder.exists():
        return
    about = json.loads(files.pop(ABOUT))
    stems = {
        name.removesuffix(SUFFIX): soundfile.read(io.BytesIO(content), dtype="int16")[0]
        for name, content in files.items()
    }
    write_track(folder, stems, about)


if __name__ == "__main__":
    sys.exit(main())
