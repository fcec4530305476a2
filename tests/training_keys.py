"""The tables of keys in docs/training.md, made of the code: `python tests/training_keys.py`."""

import dataclasses
import inspect
import re
import typing
from pathlib import Path

import yaml

from htdemucs.training.config import RootConfig, TrainConfig

DOCUMENT = Path(__file__).parents[1] / "docs" / "training.md"
TABLES = re.compile(r"(<!-- keys -->\n).*?(<!-- end of keys -->)", re.S)
HEAD = "| key | meaning | default |\n|---|---|---|\n"


def meanings(kind):
    """The attributes of a class, with what its docstring says of each."""
    text = inspect.getdoc(kind).partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.M)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def default(field):
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        value = list(field.default) if isinstance(field.default, tuple) else field.default
    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]


def tables(kind, prefix=""):
    """A table of the keys of a dataclass, and one of each dataclass in it."""
    hints, meaning = typing.get_type_hints(kind), meanings(kind)
    assert list(meaning) == list(hints), f"{kind.__name__} documents {list(meaning)}"
    rows, parts = [], []
    for field in dataclasses.fields(kind):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            parts += tables(hint, f"{key}.")
            continue
        rows.append(f"| `{key}` | {meaning[field.name]} | {default(field)} |\n")
        if hint == tuple[RootConfig, ...] and not parts:
            parts = tables(RootConfig, f"{key}[].")
    return [HEAD + "".join(rows), *parts]


def written(text):
    """A document with its tables made anew."""
    return TABLES.sub(lambda found: found[1] + "\n".join(tables(TrainConfig)) + found[2], text)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
