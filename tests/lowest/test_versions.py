"""The lowest versions, which `make lowest` installs, are those of pyproject.toml."""

import tomllib

import pytest

from lowest.versions import ROOT, lowest_versions

TORCH = "torch==2.13.0\n"


def of(*dependencies, train=()):
    """Return what a pyproject.toml with these dependencies gives."""
    extras = f"train = {list(train)}\ndev = ['pytest']\ndocs = ['sphinx<9']"
    text = (
        f"[project]\ndependencies = {list(dependencies)}\n[project.optional-dependencies]\n{extras}"
    )
    return lowest_versions(text, TORCH)


def test_every_dependency_of_a_user_is_there():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = lowest_versions(text, (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    assert {"docs", "dev"} < set(extras)
    groups = [extras[name] for name in extras if name not in ("docs", "dev")]
    wanted = {line for group in [project["dependencies"], *groups] for line in group}
    assert len(lines) == len(wanted)
    assert {line.replace("==", ">=") for line in lines[1:]} < wanted  # the first is torch


def test_versions_and_extras_are_kept_and_torch_is_pinned():
    found = of("torch>=2.6", "ray[data]>=2.40", train=["a-b.c>=2026.1", "ray[data]>=2.40"])
    assert found == ["torch==2.13.0", "ray[data]==2.40", "a-b.c==2026.1"]


@pytest.mark.parametrize(
    "line", ["a", "a==1", "a~=1.0", "a>1", "a>=1,<2", "a >= 1", "a>=1; python_version<'3.12'"]
)
def test_a_line_that_is_not_a_plain_bound_is_an_error(line):
    with pytest.raises(ValueError, match="must be like 'name>=version'"):
        of("torch>=2.6", train=[line])


def test_two_bounds_of_a_package_are_an_error():
    with pytest.raises(ValueError, match="numpy has two"):
        of("torch>=2.6", "numpy>=1", train=["numpy>=2"])
