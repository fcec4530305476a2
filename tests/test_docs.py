"""The documents say what the program does."""

import re
from pathlib import Path

import typer

from htdemucs.cli.main import app
from htdemucs.model import HTDemucsConfig
from htdemucs.model.trace import trace
from htdemucs.weights.registry import official_models

ROOT = Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_option_is_documented():
    text = read("docs/command-line.md")
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f"`htdemucs {name}" in text
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("-") and option != "--help":
                    assert f"`{option}`" in text, f"{name} {option} is not documented"


def test_the_stage_table_is_what_trace_prints():
    rows = re.findall(r"^\| (\d+) \| (.+?) \| ([\d, ]+) \|$", read("docs/architecture.md"), re.M)
    stages = trace(HTDemucsConfig(), 258_602)
    expected = [
        (str(i), stage.label, ", ".join(map(str, stage.shape))) for i, stage in enumerate(stages, 1)
    ]
    assert rows == expected


def test_every_room_and_file_is_in_the_picture():
    text = read("docs/architecture.md")
    for path in (ROOT / "src" / "htdemucs").glob("*/*.py"):
        if path.name != "__init__.py" and path.parent.name != "cli":
            known = f"`{path.name}`" in text
            assert known or path.name == "failures.py", f"{path.name} is missing"
        assert f"{path.parent.name}/" in text


def test_every_official_model_is_documented():
    text = read("docs/models.md")
    for name in official_models():
        assert f"`{name}`" in text


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
