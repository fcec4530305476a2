"""The documents say what the program does."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import generate
import htdemucs
from htdemucs import AudioEncoding, TrackResult, events
from htdemucs.audio import AudioWriter
from htdemucs.cli.main import cli
from htdemucs.weights.registry import official_models

ROOT = Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", generate.PAGES)
def test_generated_parts_are_those_of_the_code(page):
    text = read(f"docs/{page}")
    assert generate.PAGES[page](text) == text, "run: python docs/generate.py"


def test_every_command_has_its_help_in_the_documents():
    text = read("docs/command-line.md")
    assert sorted(re.findall(r"^\$ htdemucs (\w+) --help$", text, re.M)) == sorted(cli.commands)


def test_every_training_key_is_documented():
    assert read("docs/training.md").count("| key | meaning | default |") == 5


def test_every_request_of_the_server_is_documented():
    text = read("docs/http-api.md")
    assert len(re.findall(r"^### `(?:GET|POST|DELETE) /", text, re.M)) > 15


def test_every_public_name_is_in_the_python_reference():
    text = read("docs/python-api.md")
    documented = re.findall(r"^\.\. auto\w+:: htdemucs\.(\w+)$", text, re.M)
    assert sorted(documented) == sorted(set(htdemucs.__all__) - {"__version__"})


def test_every_page_is_in_the_navigation_of_the_site():
    """And in the README's list of documents."""
    listed = read("docs/conf.py").partition("NAVIGATION = [")[2].partition("]")[0]
    navigation = re.findall(r'"([\w./-]+)"', listed)
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    assert {f"{name}.md" for name in navigation} == pages | {"CONTRIBUTING.md", "CHANGELOG.md"}
    linked = re.findall(r"\]\(([\w/.-]+\.md)\)", read("README.md").partition("## Documentation")[2])
    assert [f"{name}.md" for name in navigation] == linked[: len(navigation)]


def test_every_decision_and_measurement_is_listed():
    for folder in ("docs/decisions", "benchmarks/results"):
        pages = {path.name for path in (ROOT / folder).glob("*.md")} - {"README.md"}
        assert set(re.findall(r"\]\(([\w-]+\.md)\)", read(f"{folder}/README.md"))) == pages


def anchors(text):
    """Return the anchors of a document's headings, as the code host and the site name them."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/results/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_what_exists(document):
    text = re.sub(r"```.*?```", "", read(document), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)", text):
        target, _, anchor = "".join(link).partition("#")
        if ":" in target:
            continue
        path = (ROOT / document).parent / target if target else ROOT / document
        assert path.exists(), f"{document} links to {target}"
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), (
            f"{document} links to {target}#{anchor}"
        )


def test_the_layers_in_the_architecture_are_those_of_the_imports():
    """The packages are those on disk; arrows are imports, and every import follows arrows."""
    text = read("docs/architecture.md")
    picture = text.partition("```mermaid")[2].partition("```")[0]
    arrows = set(re.findall(r"^    (\w+) --> (\w+)$", picture, re.M))
    source = ROOT / "src" / "htdemucs"
    modules = {p: p.relative_to(source).parts[0] for p in source.rglob("*/*.py")}
    packages = set(modules.values())
    assert {name for arrow in arrows for name in arrow} == packages | {"base"}

    def package(name):
        return name if name in packages else "base"

    imports = {
        (own, package(other))
        for path, own in modules.items()
        for other in re.findall(r"^ *from htdemucs\.(\w+)", path.read_text(encoding="utf-8"), re.M)
        if package(other) != own
    } - {("model", "weights")}  # lazily, in `from_pretrained` and the like
    assert arrows <= imports
    ways = set(arrows)
    while longer := {(a, d) for a, b in ways for c, d in arrows if b == c} - ways:
        ways |= longer
    assert imports <= ways


def test_the_files_to_read_first_are_there():
    section = (
        read("docs/architecture.md").partition("## Read these")[2].partition("| question |")[0]
    )
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    names = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    assert len(rows) == 6
    for name in names:
        assert (ROOT / "src" / "htdemucs" / name).is_file(), name


def test_every_event_is_documented():
    text = read("docs/command-line.md").partition("## Events")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ", text, re.M)
    documented = {kind: re.findall(r"`(\w+)`", names) for kind, names in rows}
    assert documented == {
        kind.__name__.lower(): [
            field.name for field in fields(TrackResult if kind is events.Finished else kind)
        ]
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
    links = re.compile(r"\]\(((?:docs|src)/[\w./-]+|C[A-Z]+\.md|https://[^)]+)\)")
    here, there = (
        [link.replace(".zh-CN", "") for link in links.findall(t)] for t in (english, chinese)
    )
    assert sorted(here) == sorted(there)
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
    pages = ("many-files", "migrating", "command-line", "pipes-and-live", "python-api")
    for document in ("README.md", *(f"docs/{page}.md" for page in pages)):
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
    assert (tmp_path / "python-api" / "out" / "song" / "no_vocals.flac").exists()
    assert (tmp_path / "python-api" / "out" / "song" / "drums.wav").exists()
    assert (tmp_path / "command-line" / "separated" / "mini" / "song" / "htdemucs.json").exists()
