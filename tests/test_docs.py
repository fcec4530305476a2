"""The documents say what the program does."""

import re
from dataclasses import fields
from pathlib import Path

import torch

import generate
from htdemucs import AudioEncoding, events
from htdemucs.audio import AudioWriter
from htdemucs.cli.main import cli
from htdemucs.model import HTDemucsConfig
from htdemucs.model.trace import trace
from htdemucs.weights.registry import official_models

ROOT = Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_help_in_the_documents_is_the_command_s():
    text = read("docs/command-line.md")
    assert sorted(re.findall(r"^\$ htdemucs (\w+) --help$", text, re.M)) == sorted(cli.commands)
    assert generate.command_line(text) == text, "run: python docs/generate.py"


def test_the_stage_table_is_what_trace_prints():
    rows = re.findall(r"^\| (\d+) \| (.+?) \| ([\d, ]+) \|$", read("docs/architecture.md"), re.M)
    stages = trace(HTDemucsConfig(), 258_602)
    expected = [
        (str(i), stage.label, ", ".join(map(str, stage.shape))) for i, stage in enumerate(stages, 1)
    ]
    assert rows == expected


def test_the_picture_of_the_house_is_true():
    """Its rooms are those on disk; its arrows are imports, and every import follows arrows."""
    text = read("docs/architecture.md")
    picture = text.partition("```mermaid")[2].partition("```")[0]
    arrows = set(re.findall(r"^    (\w+) --> (\w+)$", picture, re.M))
    source = ROOT / "src" / "htdemucs"
    modules = {p: p.relative_to(source).parts[0] for p in source.rglob("*/*.py")}
    rooms = set(modules.values())
    assert {name for arrow in arrows for name in arrow} == rooms | {"ground"}

    def room(name):
        return name if name in rooms else "ground"

    imports = {
        (own, room(other))
        for path, own in modules.items()
        for other in re.findall(r"^ *from htdemucs\.(\w+)", path.read_text(encoding="utf-8"), re.M)
        if room(other) != own
    }
    assert arrows <= imports
    ways = set(arrows)
    while longer := {(a, d) for a, b in ways for c, d in arrows if b == c} - ways:
        ways |= longer
    assert imports <= ways


def test_the_files_to_read_first_are_there_and_short():
    names = re.findall(r"^\| `([\w/]+\.py)` \|", read("docs/architecture.md"), re.M)
    assert len(names) == 6
    for name in names:
        lines = read(f"src/htdemucs/{name}").count("\n")
        assert lines <= 350, f"{name} has {lines} lines"


def test_every_event_is_documented():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ", read("docs/events.md"), re.M)
    documented = {kind: re.findall(r"`(\w+)`", names) for kind, names in rows}
    assert documented == {
        kind.__name__.lower(): [field.name for field in fields(kind)]
        for kind in events.Event.__subclasses__()
    }


def test_every_official_model_is_documented():
    text = read("docs/models.md")
    for name in official_models():
        assert f"`{name}`" in text


def test_the_documents_date_the_licences_as_the_registry_does():
    for model in official_models().values():
        assert model.license.name is None
        for document in ("README.md", "README.zh-CN.md", "docs/models.md"):
            assert str(model.license.read) in read(document)


def test_the_chinese_readme_keeps_step():
    """The same commands, links and code in both, whatever the words between them."""
    english, chinese = read("README.md"), read("README.zh-CN.md")
    links = re.compile(r"\]\((docs/[\w.-]+|CHANGELOG.md|https://[^)]+)\)")
    assert sorted(links.findall(english)) == sorted(links.findall(chinese))
    fences = re.compile(r"```\w+\n(.*?)```", re.S)

    def code(text):
        return [
            line.split("#")[0].strip()
            for block in fences.findall(text)
            for line in block.splitlines()
        ]

    assert code(english) == code(chinese)
    assert english.count("\n## ") == chinese.count("\n## ")
    assert english.count("\n- ") == chinese.count("\n- ")


def test_the_python_in_the_documents_runs(tmp_path, monkeypatch, capsys):
    """With the shipped model, on a song and an album of this test's own."""
    for name in ("README", "library", "migrating", "events", "pipes", "live"):
        document = "README.md" if name == "README" else f"docs/{name}.md"
        folder = tmp_path / Path(document).stem
        (folder / "album").mkdir(parents=True)
        for path in (folder / "song.mp3", folder / "album" / "song.mp3"):
            with AudioWriter(path, 44_100, 2, AudioEncoding("mp3")) as writer:
                writer.write(0.1 * torch.randn(2, 30_000))
        monkeypatch.chdir(folder)
        for code in re.findall(r"```python\n(.*?)```", read(document), re.S):
            names = {"waveform": 0.1 * torch.randn(2, 44_100), "sample_rate": 44_100}
            exec(code, names)
    shown = capsys.readouterr().out
    assert "progress: 100 %\n" in shown
    assert "vocals: separated/mini/song/vocals.wav\ndone\n" in shown
    assert "vocals is in out/song/vocals.wav\n" in shown
    example = tmp_path / "events"
    assert (example / "out" / "song" / "drums.wav").exists()
    assert (example / "separated" / "mini" / "song" / "htdemucs.json").exists()
