"""The layers of the package: imports only go to lower layers."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import htdemucs

SOURCE = Path(htdemucs.__file__).parent
ROOT = SOURCE.parents[1]
LAYERS = [
    {"errors", "version", "formats"},
    {"results", "fsutil", "devices", "environment", "settings", "images"},
    {"events"},
    {"model", "client"},
    {"weights", "audio", "fast", "export"},
    {"separation"},
    {"stems", "evaluation", "tracing"},
    {"batch", "training"},
    {"serve"},
    {"cli", "compat"},
    {"__main__"},
]
PUBLISHED = ("compat", "demucs")
# The models' hub methods import the package that reads and writes files, when they are called.
LAZY_UPWARD = {("model/hub_mixin.py", "weights")}
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def package(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from htdemucs, not relative ones"
            names = [node.module or ""]
            if node.module == "htdemucs":
                names = [f"htdemucs.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("htdemucs.") and name.split(".")[1] in LAYER:
                yield name.split(".")[1]


def test_imports_go_down_only():
    for path in MODULES:
        for other in imported_packages(path):
            if (path.relative_to(SOURCE).as_posix(), other) in LAZY_UPWARD:
                continue
            same = other == package(path)
            assert same or LAYER[other] < LAYER[package(path)], f"{path} imports upward: {other}"


def module(path):
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)


def test_no_imports_in_circles():
    """Not within a package either."""
    names = {module(path) for path in MODULES}
    imports = {
        module(path): {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module in names
        }
        for path in MODULES
    }
    order = TopologicalSorter(imports)
    assert len(list(order.static_order())) == len(names)  # a circle raises CycleError


def test_only_the_command_lines_print_or_exit():
    """Ours, and in the modules that mirror the published package its command, and `fatal`."""
    published = [(*PUBLISHED, name) for name in ("separate.py", "utils.py")]
    for path in MODULES:
        if package(path) in ("cli", "__main__") or path.parts[-3:] in published:
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "exit", "quit", "input"}, path


def test_messages_of_the_library_do_not_name_flags():
    flag = re.compile(r"(?:^|[ (`'])--?[a-z][a-z-]+")
    for path in MODULES:
        if package(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        assert not flag.search(part.value), f"{path}: {part.value}"


def test_every_public_name_exists():
    for name in htdemucs.__all__:
        assert getattr(htdemucs, name).__doc__, f"{name} has no docstring"
        assert name in htdemucs.__doc__ or name == "__version__", f"help() does not mention {name}"
    with pytest.raises(AttributeError, match="no attribute"):
        _ = htdemucs.nonsense


def test_every_expected_failure_is_an_htdemucs_error():
    import htdemucs.errors as errors

    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(kinds) > 5
    assert all(issubclass(kind, htdemucs.HTDemucsError) for kind in kinds)


def test_the_docs_name_only_what_exists():
    """Every `path/to/file` in the documents that looks like one of ours is there."""
    pattern = re.compile(r"`((?:src|docs|tests|examples|benchmarks)/[\w./-]+)`")
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for name in pattern.findall(document.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{document.name} mentions {name}"
