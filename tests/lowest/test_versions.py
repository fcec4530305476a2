"""The lower bounds of pyproject.toml, as `make lowest` reads them."""

import pytest

from lowest.versions import PYPROJECT, lowest_versions

PROJECT = "[project]\ndependencies = [{}]\n[project.optional-dependencies]\nserver = [{}]\n"


def test_every_dependency_has_a_plain_lower_bound():
    versions = lowest_versions(PYPROJECT.read_text(encoding="utf-8"))
    assert {"numpy", "av", "click", "fastapi", "ray", "onnx"} <= set(versions)
    assert "torch" not in versions


@pytest.mark.parametrize("line", ['"click"', '"click==8.1"', '"click>=8.1,<9"'])
def test_other_requirements_are_refused(line):
    assert lowest_versions(PROJECT.format('"a>=1"', '"b>=2"')) == {"a": "1", "b": "2"}
    with pytest.raises(ValueError, match="not of the form"):
        lowest_versions(PROJECT.format(line, '"b>=2"'))


def test_two_bounds_of_one_package_must_agree():
    with pytest.raises(ValueError, match="two lower bounds"):
        lowest_versions(PROJECT.format('"a>=1"', '"a>=2"'))
