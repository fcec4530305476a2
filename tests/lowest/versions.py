"""Print, as constraints for pip, the lowest version of each package that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PINNED = {"torch"}  # by constraints.txt: old CPU builds are not on PyPI
DEVELOPERS_ONLY = {"dev", "docs"}  # extras
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)")


def lowest_versions(pyproject: str) -> dict[str, str]:
    """Return the lowest version by package, of what a user of any extra installs.

    Raises:
        ValueError: a requirement is not a plain lower bound.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[e] for e in extras if e not in DEVELOPERS_ONLY)]
    versions: dict[str, str] = {}
    for line in (line for group in groups for line in group):
        bound = REQUIREMENT.fullmatch(line.strip())
        if bound is None:
            raise ValueError(f"{line!r} is not of the form package>=version")
        if versions.setdefault(bound[1], bound[2]) != bound[2]:
            raise ValueError(f"{bound[1]} has two lower bounds")
    return {name: version for name, version in versions.items() if name not in PINNED}


if __name__ == "__main__":
    for name, version in lowest_versions(PYPROJECT.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
