"""`htdemucs separate` and the hub: it downloads only what it needs, after checking its inputs."""

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants as hub_settings

from htdemucs import AudioEncoding
from htdemucs.audio import AudioWriter
from htdemucs.cli.main import cli
from weights.checkpoints import save_safetensors, tiny

FT = {"drums": "f7e0c4bc", "bass": "d12395a8", "other": "92cfc3b6", "vocals": "04573f0d"}


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.flac"
    with AudioWriter(path, 8000, 2, AudioEncoding("flac")) as writer:
        writer.write(0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(1)))
    return path


@pytest.fixture
def hub(internet, tmp_path):
    """Return the fake hub with htdemucs_ft on the hub."""
    for signature in FT.values():
        member = tiny(depth=1, t_layers=0, bottom_channels=0)
        content = save_safetensors(member, tmp_path / "member.safetensors").read_bytes()
        internet.on_hub("adefossez/HTDemucs-ft", {f"{signature}.safetensors": content})
    return internet


def separate(song, tmp_path, *words):
    command = ("separate", song, "-n", "htdemucs_ft", "-d", "cpu", "-o", tmp_path / "out", *words)
    return CliRunner().invoke(cli, [str(word) for word in command])


@pytest.mark.parametrize(
    "words", [("--stems", "vocals"), ("--two-stems", "vocals", "--other-method", "minus")]
)
def test_one_stem_of_a_bag_downloads_one_network(hub, song, tmp_path, monkeypatch, words):
    result = separate(song, tmp_path, *words)
    assert result.exit_code == 0, result.output
    assert set(hub.downloads()) == {f"{FT['vocals']}.safetensors"}
    assert f"fetching adefossez/HTDemucs-ft/{FT['vocals']}.safetensors" in result.stderr
    hub.log.clear()
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", True)  # and one cached is enough
    again = separate(song, tmp_path, *words)
    assert again.exit_code == 0, again.output
    assert "already there" in again.stderr
    assert hub.log == []


@pytest.mark.parametrize("content", [None, b"no audio", "folder"])
def test_inputs_are_checked_before_the_model_is_downloaded(hub, tmp_path, content):
    song = tmp_path / "song.mp3"
    if content == "folder":
        song.mkdir()
    elif content:
        song.write_bytes(content)
    result = separate(song, tmp_path)
    assert result.exit_code == 1
    assert "song.mp3" in result.stderr
    assert hub.log == []


def test_an_unreachable_hub_is_given_up_at_once(internet, song, tmp_path, monkeypatch):
    """The hub's client alone tries six times and waits 23 seconds."""
    address = internet.address
    internet.shutdown()  # a thread that still polls the socket would keep it open
    internet.server_close()
    monkeypatch.setattr(hub_settings, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    result = separate(song, tmp_path)
    assert result.exit_code == 1
    assert "cannot reach 127.0.0.1" in result.stderr
