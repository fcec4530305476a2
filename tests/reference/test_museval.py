"""The SDR of BSS Eval v4 equals that of the museval package."""

import importlib.metadata
import importlib.util
import warnings

import numpy as np
import pytest
import torch

from htdemucs.evaluation import museval_frames, museval_sdr

RATE = 2000
FILTERS = 16  # taps of museval's distortion filters, which cost most of its time


@pytest.fixture(scope="module")
def bss_eval():
    """Return museval's metrics without importing the rest, which needs a system ffmpeg."""
    pytest.importorskip("scipy")
    try:
        files = importlib.metadata.files("museval")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("museval is not installed")
    [path] = [file.locate() for file in files if str(file) == "museval/metrics.py"]
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)

    def frames(references, estimates, filters_len=FILTERS):
        arrays = (x.transpose(1, 2).double().numpy() for x in (references, estimates))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # log10 of 0
            return module.bss_eval(*arrays, window=RATE, hop=RATE, filters_len=filters_len)[0]

    return frames


def pair(seed, length, stems=3, channels=2):
    """Return coloured stems, and estimates of them with leaks, filtering and noise."""
    generator = torch.Generator().manual_seed(seed)
    stems = torch.randn(stems, channels, length, generator=generator, dtype=torch.float64)
    references = stems + 0.9 * stems.roll(1, -1)
    leaks = 0.2 * references.roll(1, 0) + 0.1 * references.roll(3, -1)
    noise = 0.05 * torch.randn(references.shape, generator=generator, dtype=torch.float64)
    return references, references + leaks + noise


def check(bss_eval, references, estimates, **options):
    expected = bss_eval(references, estimates, **options)
    frames = museval_frames(references, estimates, RATE).numpy()
    np.testing.assert_allclose(frames, expected, rtol=0, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        medians = np.nanmedian(np.where(np.isinf(expected), np.nan, expected), axis=1)
    np.testing.assert_allclose(museval_sdr(references, estimates, RATE), medians, atol=1e-6, rtol=0)
    return expected


@pytest.mark.parametrize("length", [600, 1999, 2000, 2001, 3999, 4000, 9000])
def test_any_length_agrees(bss_eval, length):
    check(bss_eval, *pair(length, length))


@pytest.mark.parametrize(("stems", "channels"), [(1, 2), (2, 1), (4, 2)])
def test_any_number_of_stems_and_channels_agrees(bss_eval, stems, channels):
    check(bss_eval, *pair(7, 5000, stems, channels))


def test_filters_of_the_usual_length_agree(bss_eval):
    check(bss_eval, *pair(8, 2 * RATE, stems=2), filters_len=512)


def test_silent_frames_agree(bss_eval):
    references, estimates = pair(1, 5 * RATE + 700)
    references[0, :, RATE : 2 * RATE] = 0
    estimates[2, :, 2 * RATE : 3 * RATE] = 0
    references[1, :, 3 * RATE : 3 * RATE + 900] = 0  # silent for a part only
    expected = check(bss_eval, references, estimates)
    assert np.isnan(expected).any(0).tolist() == [False, True, True, False, False]


def test_opposite_channels_are_silent_to_museval(bss_eval):
    references, estimates = pair(2, 3 * RATE)
    references[1, 1, :RATE] = -references[1, 0, :RATE]
    expected = check(bss_eval, references, estimates)
    assert np.isnan(expected[:, 0]).all()


def test_frames_without_error_are_infinite_in_both(bss_eval):
    references, _ = pair(3, 3 * RATE)
    assert np.isinf(check(bss_eval, references, references.clone())).all()


def test_nearly_perfect_and_hopeless_estimates_agree(bss_eval):
    references, _ = pair(4, 3 * RATE)
    noise = torch.randn(references.shape, dtype=torch.float64)
    for scale in (1e-6, 1e-3, 1e3):
        check(bss_eval, references, references + scale * noise)


def test_museval_refuses_a_silent_stem_and_here_it_is_undefined(bss_eval):
    references, estimates = pair(5, 2 * RATE)
    references[0] = 0
    with pytest.raises(ValueError, match="silent"):
        bss_eval(references, estimates)
    assert museval_sdr(references, estimates, RATE).isnan().all()
