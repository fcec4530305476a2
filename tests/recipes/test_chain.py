"""The recipe's folders are a chain: each imports only the stations before it."""

import ast
from pathlib import Path

import pytest

import recipes.mini

HERE = Path(recipes.mini.__file__).parent
BEFORE = {  # what each folder may import from
    "composing": {"composing"},
    "mixing": {"mixing"},
    "playing": {"composing", "mixing", "playing"},
    "singing": {"composing", "mixing", "singing"},
}
GROUND = {"files", "plan", "sources"}


def imported(path):
    """Return the part after `recipes.mini` of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recipes.mini"):
            rest = node.module.split(".")[2:]
            yield from rest[:1] or [alias.name for alias in node.names]


@pytest.mark.parametrize("folder", BEFORE)
def test_a_station_imports_only_earlier_ones(folder):
    found = {name for path in (HERE / folder).glob("*.py") for name in imported(path)}
    assert found <= BEFORE[folder] | GROUND


def test_every_folder_of_code_is_a_station():
    assert {path.parent.name for path in HERE.glob("*/*.py")} == set(BEFORE)
