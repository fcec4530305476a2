"""Fixtures of the weights' tests: small models, empty caches, and a fake hub."""

import copy
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import close_session, get_session
from huggingface_hub import constants as hub_settings

from htdemucs import CheckpointError, HTDemucs
from htdemucs.weights import demucs_format, download
from weights.checkpoints import package, save_safetensors, save_th, tiny
from weights.fake_hub import FakeHub, running


@pytest.fixture(scope="session")
def model() -> HTDemucs:
    torch.manual_seed(0)
    return tiny(depth=1, dconv_depth=1)


@pytest.fixture(scope="session")
def originals(model, tmp_path_factory) -> dict[str, Any]:
    """Return official files of the model, written once."""
    folder = tmp_path_factory.mktemp("originals")
    contents = package(model)
    return {
        "contents": contents,
        "th": save_th(contents, folder / "model.th"),
        "safetensors": save_safetensors(model, folder / "model.safetensors"),
    }


@pytest.fixture
def contents(originals) -> dict[str, Any]:
    """Return the contents of an official `.th` of the model, for a test to change."""
    return copy.deepcopy(originals["contents"])


@pytest.fixture
def th(originals, tmp_path) -> Path:
    return Path(shutil.copy(originals["th"], tmp_path))


@pytest.fixture
def st(originals, tmp_path) -> Path:
    return Path(shutil.copy(originals["safetensors"], tmp_path))


@pytest.fixture
def refused() -> Callable[..., str]:
    """Return a function that asserts that a file is refused in one line, and returns that line."""

    def check(path: Path, *words: str) -> str:
        with pytest.raises(CheckpointError) as caught:
            demucs_format.read(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert len(message.splitlines()) == 1
        for word in words:
            assert word in message.removeprefix(str(path))
        return message

    return check


@pytest.fixture
def caches(tmp_path, monkeypatch) -> dict[str, Path]:
    """Return empty caches, and hide the environment's own settings."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_", "HTDEMUCS_")):
            monkeypatch.delenv(name)
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folders = {
        "HF_HOME": tmp_path / "hf",
        "HTDEMUCS_CACHE": tmp_path / "own",
        "TORCH_HOME": tmp_path / "torch",
        "XDG_CACHE_HOME": tmp_path / "xdg",
    }
    for name, folder in folders.items():
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(hub_settings, "HF_HUB_CACHE", str(folders["HF_HOME"] / "hub"))
    monkeypatch.setattr(hub_settings, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_settings, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(hub_settings, "HF_HUB_DISABLE_XET", True)  # the fake hub has no such store
    monkeypatch.setattr(hub_settings, "HF_TOKEN_PATH", str(folders["HF_HOME"] / "token"))
    return folders


@pytest.fixture(scope="session")
def hub_client() -> Iterator[None]:
    """Give the hub's client a new session that ignores the environment's proxies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        get_session()
    yield
    close_session()


@pytest.fixture
def internet(caches, hub_client, monkeypatch) -> Iterator[FakeHub]:
    """Yield a fake hub and legacy root; the hub's client retries without pause."""
    with running() as server:
        address = server.address
        monkeypatch.setattr(hub_settings, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub_settings, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_settings, "AGENT_HARNESSES_PATH", str(caches["HF_HOME"] / "agents"))
        monkeypatch.setenv("HTDEMUCS_LEGACY_ROOT", address + "/legacy")
        impatient = SimpleNamespace(**vars(time) | {"sleep": lambda _: None})
        for module in ("utils._http", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{module}.time", impatient)
        monkeypatch.setattr(download, "RETRY_SECONDS", (0, 0))
        yield server
