"""Print, as requirements for pip, the lowest version of each package that pyproject.toml allows.

torch is the exception: its older builds for CPUs are not on PyPI, so constraints.txt says which.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_DEVELOPERS = {"docs", "dev"}  # what these bring is pinned by constraints.txt, and no command
BOUND = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,-]+\])?>=(?P<version>\d[\w.]*)")


def lowest_versions(pyproject: str, constraints: str) -> list[str]:
    """Return a line `name[extras]==version` for each package that a user of any extra installs.

    Raises:
        ValueError: a dependency is not written as `name>=version`, or has two lowest versions.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    groups = [extras[name] for name in extras if name not in OF_DEVELOPERS]
    lowest: dict[str, str] = {}
    for line in [*project["dependencies"], *(line for group in groups for line in group)]:
        bound = BOUND.fullmatch(line)
        if bound is None:
            raise ValueError(f"pyproject.toml: {line!r} must be like 'name>=version'")
        requirement = f"{bound['name']}{bound['extras'] or ''}=={bound['version']}"
        if lowest.setdefault(bound["name"], requirement) != requirement:
            raise ValueError(f"pyproject.toml: {bound['name']} has two lowest versions")
    [lowest["torch"]] = re.findall(r"^torch==.*$", constraints, re.M)
    return list(lowest.values())


if __name__ == "__main__":
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    print(*lowest_versions(*(file.read_text(encoding="utf-8") for file in files)), sep="\n")
