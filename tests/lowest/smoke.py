"""Run every command once with the packages of the Python that runs this; `make lowest` does.

Nothing but the package and its extras is needed, and no network. Each check looks at what comes
out, because a package that is too old may ignore what it does not know.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
STEMS = ("drums", "bass", "other", "vocals")
MODEL = ("-n", "mini", "--device", "cpu")
SECONDS = 5  # of the song: two segments of mini
DEADLINE = 300  # seconds for a server to start, or to separate the song
CHECKS: list[Callable[[Path, Path], None]] = []


def check(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Add a check, which gets an empty folder and a song of `SECONDS`."""
    CHECKS.append(function)
    return function


def python(*arguments: object, stdin: bytes | None = None) -> bytes:
    """Return the standard output of Python with these arguments."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        errors = done.stderr.decode(errors="replace")
        raise AssertionError(f"{' '.join(command)} gives {done.returncode}:\n{errors}")
    return done.stdout


htdemucs = partial(python, "-m", "htdemucs")


def seconds(path: Path) -> float:
    """Return how long an audio file is."""
    from htdemucs import AudioFile

    file = AudioFile(path)
    return sum(block.shape[-1] for block in file) / file.sample_rate


def expect(found: object, expected: object) -> None:
    """Fail unless both are equal; numbers may differ by a tenth."""
    if isinstance(expected, int | float):
        assert isinstance(found, int | float)
        assert abs(found - expected) < 0.1, f"{found} instead of {expected}"
    else:
        assert found == expected, f"{found!r} instead of {expected!r}"


def multitrack(folder: Path) -> Path:
    """Write a folder with a song of noise, and return it."""
    import soundfile
    import torch

    song = folder / "song"
    song.mkdir(parents=True)
    stems = 0.1 * torch.randn(len(STEMS), 3 * 8000, 2)
    for stem, waveform in zip(STEMS, stems, strict=True):
        soundfile.write(song / f"{stem}.wav", waveform.numpy(), 8000)
    soundfile.write(song / "mixture.wav", stems.sum(0).numpy(), 8000)
    return folder


@check
def separate(work: Path, song: Path) -> None:
    summary = json.loads(htdemucs("separate", song, *MODEL, "-o", work, "--json"))
    expect(summary["separated"], 1)
    for stem in STEMS:
        expect(seconds(work / "mini" / "song" / f"{stem}.wav"), SECONDS)
    options = ("--format", "mp3", "--two-stems", "vocals", "--progress", "json")
    htdemucs("separate", song, *MODEL, "-o", work / "mp3", *options)
    folder = work / "mp3" / "mini" / "song"
    expect({p.name for p in folder.glob("*.mp3")}, {"vocals.mp3", "no_vocals.mp3"})
    htdemucs("separate", song, *MODEL, "-o", work / "stems", "--stem-file")
    [movie] = (work / "stems").rglob("*.stem.mp4")
    expect(seconds(movie), SECONDS)


@check
def formats_and_tags(work: Path, song: Path) -> None:
    import torch

    from htdemucs import AudioEncoding
    from htdemucs.audio import AudioWriter, read_tags, write_tags
    from htdemucs.formats import FORMATS

    tags = read_tags(song)
    expect(tags.fields["title"], ["A song"])
    for name in FORMATS:
        path = work / f"noise.{name}"
        with AudioWriter(path, 44_100, 2, AudioEncoding(name)) as writer:
            writer.write(0.1 * torch.randn(2, 44_100))
        expect(seconds(path), 1)
        if write_tags(tags, path, format=name):
            expect(read_tags(path).fields["title"], ["A song"])


@check
def stream_and_live(_: Path, song: Path) -> None:
    with contextlib.closing(wave.open(str(song.with_suffix(".wav")))) as file:
        sound = file.readframes(file.getnframes())
    raw = ("--raw", "s16le,44100,2", "--format", "raw", "--bit-depth", "16")
    expect(len(htdemucs("stream", *MODEL, *raw, stdin=sound)), len(STEMS) * len(sound))
    timing = ("--timing", "1,0.2,0.1,0.03,0.1")
    assert len(htdemucs("live", *MODEL, *timing, *raw, stdin=sound)) > len(sound)
    with contextlib.suppress(OSError):  # no PortAudio on this machine
        import sounddevice  # noqa: F401

        htdemucs("live", "--list-devices")


@check
def models_trace_and_bench(_: Path, song: Path) -> None:
    assert "mini" in [model["name"] for model in json.loads(htdemucs("models", "--json"))]
    assert b"mini" in htdemucs("models")
    assert json.loads(htdemucs("trace", "-n", "mini", "--json"))
    assert b"fp32" in htdemucs("bench", *MODEL, "--repeat", 1)


@check
def convert_and_export(work: Path, song: Path) -> None:
    htdemucs("convert", "mini", work / "mini")
    htdemucs("convert", "mini", work / "mini.safetensors")
    summary = htdemucs("separate", song, "-n", work / "mini.safetensors", "-o", work, "--json")
    expect(json.loads(summary)["separated"], 1)
    htdemucs("export", "mini", work / "mini.onnx")
    python(ROOT / "examples" / "onnx_separate.py", work / "mini.onnx", song, work / "onnx")


@check
def evaluate(work: Path, song: Path) -> None:
    data, scores = multitrack(work / "data"), work / "scores.json"
    options = ("--json", scores, "--report", work / "report.html", "--device", "cpu")
    htdemucs("evaluate", "mini", data, *options)
    expect(list(json.loads(scores.read_text())["tracks"]), ["song"])


@check
def train(work: Path, song: Path) -> None:
    import yaml

    model = {"channels": 4, "depth": 2, "n_fft": 512, "bottom_channels": 8, "dconv_comp": 2}
    learn, valid = (str(multitrack(work / name)) for name in ("learn", "valid"))
    fields = {
        "out": str(work / "run"),
        "model": model | {"t_layers": 1, "t_heads": 2, "segment": 1, "sample_rate": 8000},
        "data": {"train": [learn], "valid": [valid], "workers": 1},
        "augment": {"repitch": 1.0, "effects": 1.0},
        "batch_size": 4,
        "steps": 2,
        "device": "cpu",
        "tensorboard": True,
    }
    (work / "run.yaml").write_text(yaml.safe_dump(fields))
    htdemucs("train", work / "run.yaml")
    assert list((work / "run").rglob("events.out.tfevents*"))
    summary = htdemucs("separate", song, "-n", work / "run" / "best", "-o", work, "--json")
    expect(json.loads(summary)["separated"], 1)


@check
def batch(work: Path, song: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": [str(song)]}), work / "tracks.parquet")
    for out in (work / "folder", f"file://{work}/url"):
        options = ("batch", work / "tracks.parquet", out, *MODEL, "--json")
        expect(json.loads(htdemucs(*options))["separated"], 1)
    expect(len(list((work / "url").rglob("*.wav"))), len(STEMS))


@check
def serve(work: Path, song: Path) -> None:
    from htdemucs.client import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "htdemucs", "serve", "-n", "mini", "--data", str(work)]
    with (work / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stderr=log)
    try:
        use(Client(f"http://127.0.0.1:{port}"), song, work)
    except BaseException as error:
        raise AssertionError(f"{error}\n{(work / 'log').read_text()}") from error
    finally:
        server.terminate()
        server.wait(30)


def use(client: Any, song: Path, work: Path) -> None:
    """Upload a song, wait, and download parts of it."""
    from htdemucs.errors import ServerError

    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            track = client.add(song)
            break
        except ServerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    while (track := client.track(track["id"]))["state"] != "finished":
        assert track["state"] != "failed", track["error"]
        assert time.monotonic() < deadline, track
        time.sleep(0.5)
    part = {"from": 1, "to": 3, "format": "wav"}
    export = partial(client.download, track["id"])
    expect(seconds(export(work / "part.wav", kind="stem", stem="vocals", **part)), 2)
    expect(seconds(export(work / "mix.wav", kind="mix", gains="vocals:0", tempo=2, **part)), 1)
    assert export(work / "all.zip", kind="zip").read_bytes().startswith(b"PK")
    for pattern in ("A song", "nothing"):
        expect(len(client.tracks(pattern)), int(pattern == "A song"))


@check
def hub(work: Path, song: Path) -> None:
    from weights.fake_hub import TOKEN, running

    with running() as server:
        os.environ["HF_ENDPOINT"] = server.address
        program = (
            "import htdemucs, sys; model = htdemucs.HTDemucs.from_pretrained('mini')\n"
            f"model.push_to_hub('someone/mine', license='mit', token={TOKEN!r})"
        )
        python("-c", program)
        for _ in range(2):
            options = ("-n", "hf://someone/mine", "--device", "cpu", "-o", work, "--json")
            summary = json.loads(htdemucs("separate", song, *options))
        expect(summary["skipped"], 1)


@check
def compat(work: Path, song: Path) -> None:
    program = work / "program.py"
    program.write_text(
        "from demucs.api import Separator\n"
        "separator = Separator('mini', progress=True, device='cpu')\n"
        f"_, stems = separator.separate_audio_file({str(song)!r})\n"
        f"assert set(stems) == {set(STEMS)!r}\n"
    )
    python("-m", "htdemucs.compat", "--replace", program)


def excerpt(folder: Path) -> Path:
    """Write the beginning of the example song with a title, as FLAC and WAV; return the FLAC."""
    from htdemucs import AudioEncoding, AudioFile
    from htdemucs.audio import AudioWriter, Tags, write_tags

    blocks = list(AudioFile(ROOT / "examples" / "song.flac"))
    for name in ("wav", "flac"):
        path, left = folder / f"song.{name}", SECONDS * 44_100
        with AudioWriter(path, 44_100, 2, AudioEncoding(name)) as writer:
            for block in blocks:
                writer.write(block[:, :left])
                left -= block[:, :left].shape[-1]
    write_tags(Tags({"title": ["A song"]}), path, format="flac")
    return path


def main() -> None:
    """Run the checks named on the command line, by default all; exit with 1 on a failure."""
    wanted, failed = sys.argv[1:], []
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        os.environ |= {"HF_HOME": f"{top}/hub", "XDG_CACHE_HOME": f"{top}/cache"}
        song = excerpt(top)
        for function in CHECKS:
            if wanted and function.__name__ not in wanted:
                continue
            (work := top / function.__name__).mkdir()
            try:
                function(work, song)
            except Exception:
                failed.append(function.__name__)
                traceback.print_exc()
            print("failed" if failed[-1:] == [function.__name__] else "ok", function.__name__)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
