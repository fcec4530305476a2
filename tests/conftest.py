"""Fixtures of every test."""

import logging
import multiprocessing
import subprocess
import sys

import pytest
import torch
from hypothesis import settings

from forked import Forked
from helpers import TINY, FakeCard, Identity, awake
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.audio import pulseaudio

settings.register_profile("no clock", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("no clock")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log():
    """Let no command that a test runs print the log of later tests."""
    log = logging.getLogger("htdemucs")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


@pytest.fixture
def tiny_config() -> HTDemucsConfig:
    return HTDemucsConfig(**TINY)


@pytest.fixture
def tiny_model(tiny_config) -> HTDemucs:
    return awake(HTDemucs(tiny_config)).eval()


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture
def portaudio(monkeypatch) -> FakeCard:
    """Return a PortAudio without devices of this machine, and without its PulseAudio."""
    fake = FakeCard()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(pulseaudio, "connections", lambda: None)
    return fake


@pytest.fixture(scope="session")
def forks():
    """The class of processes that start at once."""
    if sys.platform.startswith("linux"):
        Forked.prepare()
        yield Forked
        Forked.end()
    else:
        yield subprocess.Popen


@pytest.fixture
def forked(forks, monkeypatch):
    """Let `subprocess` start processes of Python at once."""
    monkeypatch.setattr(subprocess, "Popen", forks)


@pytest.fixture
def forkserver(monkeypatch):
    """Let processes that `multiprocessing` would spawn be forks of one that has imported torch."""
    if sys.platform.startswith("linux"):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["htdemucs.separation.separator", "htdemucs.batch.library"])
        ways = {"spawn": context, "fork": multiprocessing.get_context("fork")}
        monkeypatch.setattr(multiprocessing, "get_context", lambda method: ways[method])
