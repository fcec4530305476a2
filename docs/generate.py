"""Writes the parts of the documents that are generated from the code:  python docs/generate.py"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from htdemucs import HTDemucsConfig, trace
from htdemucs.cli.main import cli
from htdemucs.serve.app import create_app
from htdemucs.tracing.document import Trace
from htdemucs.tracing.figure import figure
from htdemucs.tracing.texts import Language
from htdemucs.training.config import RootConfig, TrainConfig

FOUNDING_LENGTH = 258_602  # samples
HUGE = 1 << 17  # greater limits only protect the server
HELP = re.compile(r"```console\n\$ htdemucs ?([\w]*) --help\n.*?```", re.S)


def command_line(text: str) -> str:
    """Return the page with each `$ htdemucs COMMAND --help` followed by what that prints."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        context = cli.make_context("htdemucs", [], resilient_parsing=True, terminal_width=80)
        if name:
            context = cli.commands[name].make_context(
                name, [], context, resilient_parsing=True, terminal_width=80
            )
        words = f"htdemucs {name}".strip()
        return f"```console\n$ {words} --help\n{context.get_help()}\n```"

    return HELP.sub(fill, text)


def training(text: str) -> str:
    """Return the page with the tables of all keys of a training configuration."""
    return _between(text, "keys", "\n".join(_key_tables(TrainConfig)))


def http_api(text: str) -> str:
    """Return the page with every request that the server's OpenAPI document describes."""
    paths = create_app(state=None).openapi()["paths"]  # only requests use the state
    requests = [
        _request(method, path, about)
        for path, methods in paths.items()
        for method, about in methods.items()
    ]
    return _between(text, "requests", "\n".join(requests))


def network_figure(language: Language) -> str:
    """Return the figure of the walk through the network."""
    config = HTDemucsConfig()
    stages = trace(config, samples=FOUNDING_LENGTH, depth=2)
    title = Trace("htdemucs", config, FOUNDING_LENGTH, stages).title(language)
    return figure(stages, title, language)


FIGURES: dict[str, Language] = {"network.svg": "en", "network.zh-CN.svg": "zh"}
PAGES = {"command-line.md": command_line, "http-api.md": http_api, "training.md": training}


def _between(text: str, name: str, part: str) -> str:
    """Replace what lies between the comments `<!-- NAME -->` and `<!-- end of NAME -->`."""
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(first)
    return before + first + part + last + rest.partition(last)[2]


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells).replace("| --- ", "|---")


def _key_tables(kind: type, prefix: str = "") -> list[str]:
    """Return a table of the keys of a dataclass, and one for each dataclass in it."""
    hints, meanings = typing.get_type_hints(kind), _meanings(kind)
    if list(meanings) != list(hints):
        raise ValueError(f"{kind.__name__} documents {list(meanings)}, but has {list(hints)}")
    rows, nested = [], []
    for field in dataclasses.fields(kind):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            nested += _key_tables(hint, f"{key}.")
            continue
        rows.append((f"`{key}`", meanings[field.name], _default(field)))
        if hint == tuple[RootConfig, ...] and not nested:
            nested = _key_tables(RootConfig, f"{key}[].")
    return [_table(("key", "meaning", "default"), rows), *nested]


def _meanings(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute."""
    text = inspect.getdoc(kind).partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.M)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        value = list(field.default) if isinstance(field.default, tuple) else field.default
    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]


def _request(method: str, path: str, about: dict[str, Any]) -> str:
    rows = [
        (f"`{each['name']}`", ", ".join(_values(each)), each.get("description", ""))
        for each in about.get("parameters", [])
        if each["in"] != "path"
    ]
    table = [_table(("parameter", "values", "meaning"), rows)] if rows else []
    return "\n".join([f"### `{method.upper()} {path}`\n", about["description"] + "\n", *table])


def _values(parameter: dict[str, Any]) -> Iterator[str]:
    """Yield the type or the range of a parameter, and its default."""
    schema = parameter["schema"]
    kind = next((one for one in schema.get("anyOf", []) if one["type"] != "null"), schema)
    if "enum" in kind:
        yield ", ".join(f"`{value}`" for value in kind["enum"])
    elif kind.get("maximum", HUGE) < HUGE:
        yield f"{kind['type']}, {kind['minimum']:g} to {kind['maximum']:g}"
    else:
        yield str(kind["type"])
    if parameter.get("required"):
        yield "required"
    elif schema.get("default") not in (None, ""):
        yield f"default {schema['default']}"


if __name__ == "__main__":
    for name, language in FIGURES.items():
        Path(__file__).with_name(name).write_text(network_figure(language), encoding="utf-8")
    for name, filled in PAGES.items():
        page = Path(__file__).with_name(name)
        page.write_text(filled(page.read_text("utf-8")), encoding="utf-8")
