"""Scores of validation tracks."""

from dataclasses import replace

import pytest
import soundfile
import torch
from accelerate import Accelerator

import training_data
from helpers import TINY, awake
from htdemucs import HTDemucs, HTDemucsConfig
from htdemucs.errors import TrainingError
from htdemucs.training.validation import Validation

SOURCES = HTDemucsConfig(**TINY).sources


def track(folder, silent):
    """A second of noise a source, but for the silent ones."""
    network = HTDemucsConfig(**TINY)
    folder.mkdir()
    for name in SOURCES:
        noise = 0.1 * torch.randn(network.sample_rate, network.audio_channels)
        noise *= name not in silent
        soundfile.write(folder / f"{name}.wav", noise.numpy(), network.sample_rate)
    return training_data.recording(folder, network.sample_rate, SOURCES)


@pytest.fixture
def scored():
    model = awake(HTDemucs(HTDemucsConfig(**TINY))).eval()
    weights = [1.0] * len(SOURCES)
    return lambda *tracks: Validation(tracks, weights, "l1", None, Accelerator(cpu=True))(model)


def test_a_silent_source_counts_in_the_loss_alone(scored, tmp_path):
    *others, last = SOURCES
    loud, soft = track(tmp_path / "loud", ()), track(tmp_path / "soft", (last,))
    alone, both = scored(loud), scored(loud, soft)
    assert both[f"nsdr {last}"] == pytest.approx(alone[f"nsdr {last}"])
    assert both["loss"] != pytest.approx(alone["loss"])
    only_soft = scored(soft)
    assert f"nsdr {last}" not in only_soft
    mean = sum(only_soft[f"nsdr {name}"] for name in others) / len(others)
    assert only_soft["nsdr"] == pytest.approx(mean)


def test_sources_of_other_lengths_are_padded(scored, tmp_path):
    recording = track(tmp_path / "loud", ())
    path = recording.files[SOURCES[0]][0]
    wave, rate = soundfile.read(path)
    soundfile.write(path, wave[:-700], rate)
    cut = scored(recording)
    wave[-700:] = 0
    soundfile.write(path, wave, rate)
    assert cut == scored(recording)


def test_silence_everywhere_is_refused(scored, tmp_path):
    with pytest.raises(TrainingError, match=r"silent; specify other tracks in data\.valid"):
        scored(track(tmp_path / "silent", SOURCES))


def test_a_track_counts_at_the_level_that_it_is_divided_by(tmp_path):
    """The loss is that of the normalised track; nsdr does not depend on the level."""
    model = awake(HTDemucs(HTDemucsConfig(**TINY))).eval()
    raw = track(tmp_path / "loud", ())
    scored = [
        Validation([recording], [1.0] * len(SOURCES), "l1", None, Accelerator(cpu=True))(model)
        for recording in (raw, replace(raw, std=0.25))
    ]
    assert scored[1]["loss"] == pytest.approx(4 * scored[0]["loss"], rel=1e-3)
    assert scored[1]["nsdr"] == pytest.approx(scored[0]["nsdr"], abs=1e-3)
