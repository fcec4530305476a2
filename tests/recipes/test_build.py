"""The command: what is missing is said in one line, finished songs are kept and credited."""

import json
from functools import partial

import pytest

from recipes.mini import attribution, build, sources
from recipes.mini.sources import MissingPackageError, Package


def absent(tmp_path):
    return (
        Package("some-soundfont", "debian", "MIT", "sounds", True, tmp_path / "absent.sf2"),
        Package("some-absent-package", "python", "MIT", "voices", True),
        Package("some-voices", "npm", "MIT", "voices", True, tmp_path / "absent.tgz"),
        Package("pytest", "python", "MIT", "tests", True),
    )


def test_every_missing_package_is_named_with_its_command(tmp_path):
    with pytest.raises(MissingPackageError) as caught:
        sources.check(absent(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert "not installed: some-soundfont, some-absent-package, some-voices;" in message
    assert "apt-get install --no-install-recommends some-soundfont" in message
    assert "pip install -r recipes/mini/requirements.txt" in message
    assert "npm pack --pack-destination recipes/mini kokoro-js@" in message


def test_installed_packages_have_versions():
    assert sources.check((Package("pytest", "python", "MIT", "tests", True),))["pytest"]


def test_the_command_fails_with_that_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build.sources, "check", partial(sources.check, absent(tmp_path)))
    assert build.main(["--out", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err.startswith("error: not installed: some-soundfont")
    assert not (tmp_path / "data").exists()


def test_tracks_and_packages_are_credited(tmp_path):
    track = tmp_path / "train" / "0000-chart"
    track.mkdir(parents=True)
    about = {"seconds": 90.0, "made_with": {"song": ["mma groove x:Y"], "bass": ["Font: Bass"]}}
    (track / "track.json").write_text(json.dumps(about))
    versions = {package.name: "1.0" for package in sources.PACKAGES}
    attribution.write(tmp_path, versions, seed=4)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["seed"] == 4
    assert manifest["hours"]["train"] == pytest.approx(0.025)
    assert manifest["tracks"]["train"][0]["name"] == "0000-chart"
    page = (tmp_path / "ATTRIBUTION.md").read_text()
    assert "mma groove x:Y (1)" in page
    assert "| fluid-soundfont-gm | 1.0 | MIT |" in page


def test_only_permissive_sounds_and_songs_are_in_the_training_set():
    copyleft = {p.name for p in sources.PACKAGES if p.training and "GPL" in p.licence}
    assert copyleft == {"mma", "fluidsynth", "pedalboard"}  # programs: their output is not covered
