"""Run every command with the packages of the Python that runs this; `make lowest` does.

    python tests/lowest/smoke.py [CHECK ...]

Nothing but the package and its extras is needed, and no network. Each check looks at what comes
out, because a package that is too old may ignore what it does not know.
"""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from htdemucs.client import Client

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
COMMAND = Path(sys.executable).with_name("htdemucs")
STEMS = ("drums", "bass", "other", "vocals")
MODEL = ("-n", "mini", "--device", "cpu")
SECONDS = 5  # of the song: two segments of mini
DEADLINE = 600  # seconds for anything; on a busy machine everything is slow
CHECKS: list[Callable[[Path, Path], None]] = []


def check(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Add a check, which gets an empty folder and a song of `SECONDS`."""
    CHECKS.append(function)
    return function


def run(*arguments: object, code: int = 0, **settings: object) -> subprocess.CompletedProcess:
    """Run a program to its end, which must have this exit code."""
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, check=False, capture_output=True, timeout=DEADLINE, **settings)
    if done.returncode != code:
        errors = done.stderr.decode(errors="replace")
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{errors}")
    return done


def htdemucs(*arguments: object, **settings: object) -> bytes:
    """Return what a command writes to its standard output."""
    return run(COMMAND, *arguments, **settings).stdout


python = partial(run, sys.executable)


def on_terminal(*arguments: object) -> str:
    """Return what a command writes to a terminal as its standard error."""
    shown, (ours, theirs) = b"", pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    with contextlib.suppress(OSError):  # the end
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    expect(process.wait(), 0)
    return shown.decode()


def seconds(path: Path) -> float:
    """Return how long an audio file is."""
    from htdemucs import AudioFile

    file = AudioFile(path)
    return sum(block.shape[-1] for block in file) / file.sample_rate


def expect(found: object, expected: object) -> None:
    """Fail unless both are equal; fractions may differ by a hundredth."""
    if isinstance(found, float):
        assert isinstance(expected, int | float)
        assert abs(found - expected) < 0.01, f"{found} instead of {expected}"
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
def command_line(_: Path, song: Path) -> None:
    from htdemucs.cli.main import cli

    bare = run(COMMAND, code=2)
    expect(bare.stderr, htdemucs("--help"))
    for name in cli.commands:
        assert name.encode() in bare.stderr
        text = htdemucs(name, "--help")
        assert text.startswith(f"Usage: htdemucs {name} [OPTIONS]".encode()), text
        assert b"  -h, --help" in text, text
        assert b"[default: False]" not in text, text  # of options without a value
    for arguments, reason in {
        ("separate", "--nonsense"): b"--nonsense",
        ("separate", song, "--clip-mode", "loud"): b"'loud' is not one of 'rescale', 'clamp'",
        ("separate", song, "--overlap", "much"): b"'much' is not a valid float",
        ("separate", song, "--mp3-preset", "9"): b"must be 2 to 7, not 9",
        ("batch",): b"Missing argument 'SOURCE'",
        ("sepperate", song): b"No such command 'sepperate'",
    }.items():
        [line] = run(COMMAND, *arguments, code=2).stderr.splitlines()
        assert line.startswith(b"error: "), line
        assert reason in line, line
    completion = {"_HTDEMUCS_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    words = {"COMP_WORDS": "htdemucs separate --clip-mode r"}
    expect(htdemucs(env=os.environ | completion | words).split(), [b"plain,rescale"])


@check
def separate(work: Path, song: Path) -> None:
    from htdemucs import AudioFile

    summary = json.loads(htdemucs("separate", song, *MODEL, "-o", work, "--json"))
    expect(summary["separated"], 1)
    for stem in STEMS:
        expect(seconds(work / "mini" / "song" / f"{stem}.wav"), float(SECONDS))
    form = ("--format", "flac", "--bit-depth", "24", "--sample-rate", "48000")
    bar = on_terminal("separate", song, *MODEL, "-o", work / "flac", *form)
    assert "song.flac" in bar, bar
    assert "100%" in bar, bar
    vocals = AudioFile(work / "flac" / "mini" / "song" / "vocals.flac")
    expect((vocals.sample_rate, vocals.bit_depth), (48_000, 24))
    expect(seconds(vocals.path), float(SECONDS))
    form = ("--format", "mp3", "--two-stems", "vocals", "--progress", "json")
    done = run(COMMAND, "separate", song, *MODEL, "-o", work / "mp3", *form)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"loaded", "progress", "finished"} <= {event["event"] for event in events}
    expect(events[-1], {"event": "ended", "exit_code": 0})
    folder = work / "mp3" / "mini" / "song"
    expect({p.name for p in folder.glob("*.mp3")}, {"vocals.mp3", "no_vocals.mp3"})
    htdemucs("separate", song, *MODEL, "-o", work / "stems", "--stem-file")
    [movie] = (work / "stems").rglob("*.stem.mp4")
    expect(seconds(movie), float(SECONDS))


@check
def formats_and_tags(work: Path, song: Path) -> None:
    import torch

    from films import RATE, film
    from htdemucs import AudioEncoding
    from htdemucs.audio import AudioWriter, read_tags, write_tags
    from htdemucs.formats import FORMATS

    tags = read_tags(song)
    expect(tags.fields["title"], ["A song"])
    for name in FORMATS:
        path = work / f"noise.{name}"
        with AudioWriter(path, 44_100, 2, AudioEncoding(name)) as writer:
            writer.write(0.1 * torch.randn(2, 44_100))
        expect(seconds(path), 1.0)
        if write_tags(tags, path, format=name):
            expect(read_tags(path).fields["title"], ["A song"])
    path = film(work / "film.mkv", "aac", 0.1 * torch.randn(2, 2 * RATE), [0, 0])
    expect(seconds(path), 2.0)


@check
def stream_and_live(_: Path, song: Path) -> None:
    with contextlib.closing(wave.open(str(song.with_suffix(".wav")))) as file:
        sound = file.readframes(file.getnframes())
    raw = ("--raw", "s16le,44100,2", "--format", "raw", "--bit-depth", "16")
    expect(len(htdemucs("stream", *MODEL, *raw, input=sound)), len(STEMS) * len(sound))
    timing = ("--timing", "1,0.2,0.1,0.03,0.1")
    assert len(htdemucs("live", *MODEL, *timing, *raw, input=sound)) > len(sound)
    try:
        import sounddevice  # noqa: F401
    except OSError:
        print("without PortAudio, sound cards are not listed")
    else:
        assert b"input" in htdemucs("live", "--list-devices").lower()


@check
def models_trace_and_bench(work: Path, song: Path) -> None:
    assert "mini" in [model["name"] for model in json.loads(htdemucs("models", "--json"))]
    assert b"mini" in htdemucs("models")
    expect(len(json.loads(htdemucs("trace", "-n", "mini", "--format", "json"))["stages"]), 25)
    htdemucs("trace", song, "-n", "mini", "-o", work / "trace.html")
    assert "<audio" in (work / "trace.html").read_text("utf-8")
    assert b"fp32" in htdemucs("bench", *MODEL, "--repeat", 1)


@check
def convert_and_export(work: Path, song: Path) -> None:
    htdemucs("convert", "mini", work / "mini")
    htdemucs("convert", "mini", work / "mini.safetensors")
    for model in ("mini", "mini.safetensors"):
        out = work / f"by {model}"
        htdemucs("separate", song, "-n", work / model, "--device", "cpu", "-o", out)
        expect(sorted(path.stem for path in out.rglob("*.wav")), sorted(STEMS))
    htdemucs("export", "mini", work / "mini.onnx")  # compares ONNX Runtime's output with torch's
    whole = ("--with-stft", "--half", "--static-batch", 1)
    htdemucs("export", "mini", work / "whole.onnx", *whole)
    for name in ("mini", "whole"):
        python(
            ROOT / "examples" / "onnx_separate.py",
            work / f"{name}.onnx",
            song,
            work / f"{name} stems",
        )
        for stem in STEMS:
            expect(seconds(work / f"{name} stems" / f"{stem}.wav"), float(SECONDS))


@check
def evaluate(work: Path, song: Path) -> None:
    data, scores = multitrack(work / "data"), work / "scores.json"
    report = work / "report.html"
    words = ("--json", scores, "--report", report, "--device", "cpu")
    assert b"vocals" in htdemucs("evaluate", "mini", data, *words)
    expect(list(json.loads(scores.read_text())["tracks"]), ["song"])
    assert "vocals" in report.read_text()


@check
def train(work: Path, song: Path) -> None:
    import yaml
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    curves = EventAccumulator(str(work / "run" / "tensorboard"))
    curves.Reload()
    expect([point.step for point in curves.Scalars("train/loss")], [2])
    summary = htdemucs("separate", song, "-n", work / "run" / "best", "-o", work, "--json")
    expect(json.loads(summary)["separated"], 1)


@check
def batch(work: Path, song: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": [str(song)]}), work / "tracks.parquet")
    for out in (work / "folder", f"file://{work}/url"):
        table = work / "results.parquet"
        arguments = (work / "tracks.parquet", out, *MODEL, "--table", table, "--json")
        expect(json.loads(htdemucs("batch", *arguments))["separated"], 1)
        expect(pq.read_table(table).column("status").to_pylist(), ["separated"])
    for folder in ("folder", "url"):
        files = list((work / folder).rglob("*.wav"))
        expect(sorted(path.stem for path in files), sorted(STEMS))
        expect(seconds(files[0]), float(SECONDS))


@check
def serve(work: Path, song: Path) -> None:
    from htdemucs.client import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [COMMAND, "serve", "-n", "mini", "--data", work, "--port", str(port)]
    with (work / "log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        while f"{address}/".encode() not in (work / "log").read_bytes():
            assert server.poll() is None, "the server ended"
            time.sleep(0.2)
        use(Client(address), song, work)
        with urllib.request.urlopen(f"{address}/api/events", timeout=DEADLINE) as events:
            assert events.readline().startswith(b"event: tracks")
            server.terminate()
            expect(server.wait(DEADLINE), -signal.SIGTERM)  # though the stream is open
    except BaseException as error:
        raise AssertionError(f"{error}\n{(work / 'log').read_text()}") from error
    finally:
        server.kill()
        server.wait()


def use(client: "Client", song: Path, work: Path) -> None:
    """Upload a song, wait, and download parts of it."""
    from htdemucs.errors import ServerError

    track = client.wait(client.add(song)["id"])
    expect((track["state"], track["error"]), ("finished", None))
    part = {"from": 1, "to": 3, "format": "wav"}
    export = partial(client.download, track["id"])
    expect(seconds(export(work / "part.wav", kind="stem", stem="vocals", **part)), 2.0)
    expect(seconds(export(work / "mix.wav", kind="mix", gains="vocals:0", tempo=2, **part)), 1.0)
    assert export(work / "all.zip", kind="zip").read_bytes().startswith(b"PK")
    for pattern in ("A song", "nothing"):
        expect(len(client.tracks(pattern)), int(pattern == "A song"))
    refused = ""
    try:
        export(work / "none.wav", kind="mix", tempo=9)
    except ServerError as error:
        refused = str(error)
    assert refused.startswith("tempo: "), refused


@check
def hub(work: Path, song: Path) -> None:
    from weights.fake_hub import TOKEN, running

    with running() as server:
        access = os.environ | {"HF_ENDPOINT": server.address}
        program = (
            "import htdemucs, sys; model = htdemucs.HTDemucs.from_pretrained('mini')\n"
            f"model.push_to_hub('someone/mine', license='mit', token={TOKEN!r})"
        )
        python("-c", program, env=access)
        words = ("separate", song, "-n", "hf://someone/mine", "--device", "cpu")
        progress = ("--progress", "json")
        done = run(COMMAND, *words, "-o", work / "first", *progress, env=access)
        events = [json.loads(line) for line in done.stderr.splitlines()]
        downloaded = {event["file"] for event in events if event["event"] == "downloading"}
        assert "model.safetensors" in downloaded, events
        server.log.clear()
        offline = access | {"HF_HUB_OFFLINE": "1"}
        expect(
            json.loads(htdemucs(*words, "-o", work / "first", "--json", env=offline))["skipped"], 1
        )
        failed = run(COMMAND, *words[:3], "hf://someone/other", code=1, env=offline)
        assert b"error: " in failed.stderr
        expect(server.log, [])


@check
def compat(work: Path, song: Path) -> None:
    program = work / "program.py"
    program.write_text(
        "from demucs.api import Separator\n"
        "separator = Separator('mini', progress=True, device='cpu')\n"
        f"_, stems = separator.separate_audio_file({str(song)!r})\n"
        "print(*sorted((stem, *samples.shape) for stem, samples in stems.items()))\n"
    )
    done = python("-m", "htdemucs.compat", "--replace", program)
    shapes = (str((stem, 2, SECONDS * 44_100)) for stem in sorted(STEMS))
    expect(done.stdout.decode().strip(), " ".join(shapes))
    assert b"100%" in done.stderr, done.stderr


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
    """Run the checks that the arguments name, by default all; exit with 1 if one fails."""
    names, failed = sys.argv[1:], []
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):  # the stand-in for the hub is on this machine
            del os.environ[name]
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        os.environ |= {"HF_HOME": f"{top}/hub", "XDG_CACHE_HOME": f"{top}/cache"}
        song = excerpt(top)
        for function in CHECKS:
            if names and function.__name__ not in names:
                continue
            (work := top / function.__name__).mkdir()
            started = time.monotonic()
            try:
                function(work, song)
            except Exception:
                traceback.print_exc()
                failed.append(function.__name__)
            result = "failed" if function.__name__ in failed else "ok"
            print(f"{result} {function.__name__} ({time.monotonic() - started:.0f} s)", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
