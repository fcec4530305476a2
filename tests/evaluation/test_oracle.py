from itertools import pairwise

import pytest
import torch

from evaluation_data import noise
from htdemucs.evaluation import nsdr
from htdemucs.evaluation.dataset import Frame
from htdemucs.evaluation.oracle import HOP_LENGTH, N_FFT, ideal_ratio_masks


def masked(mixture, stems, cuts=()):
    bounds = [0, *cuts, mixture.shape[-1]]
    frames = [Frame(mixture[..., a:b], stems[..., a:b]) for a, b in pairwise(bounds)]
    return torch.cat(list(ideal_ratio_masks(frames)), dim=-1)


@pytest.fixture
def stems():
    low, high = noise(0, 10_000), noise(1, 10_000)
    low = low.cumsum(-1)  # a stem of mostly low frequencies
    return torch.stack([low - low.mean(-1, keepdim=True), high])


def by_definition(mixture, stems):
    """With torch's own STFT pair, over the whole track."""
    window = torch.hann_window(N_FFT)
    options = {"n_fft": N_FFT, "hop_length": HOP_LENGTH, "window": window}

    def stft(x):
        padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % HOP_LENGTH))
        return torch.stft(padded, **options, pad_mode="constant", return_complex=True)

    power = torch.stack([stft(stem).abs() ** 2 for stem in stems])
    shares = power / power.sum(0).clamp(min=1e-30)
    length = mixture.shape[-1]
    padded = length + -length % HOP_LENGTH
    found = [torch.istft(share * stft(mixture), **options, length=padded) for share in shares]
    return torch.stack(found)[..., :length]


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 2048, 9999])
def test_it_is_the_ideal_ratio_mask(stems, length):
    stems = stems[..., :length]
    mixture = stems.sum(0)
    torch.testing.assert_close(
        masked(mixture, stems), by_definition(mixture, stems), rtol=0, atol=2e-5
    )


def test_blocks_change_nothing(stems):
    mixture = stems.sum(0)
    whole = masked(mixture, stems)
    for cuts in ((1,), (1000, 2000, 2001), (1024, 4096), (9999,)):
        torch.testing.assert_close(masked(mixture, stems, cuts), whole, rtol=0, atol=1e-6)


def test_what_belongs_to_no_stem_is_not_given_to_one(stems):
    """A mixture of two stems, of which the folder holds one: the other takes its share."""
    alone = masked(stems.sum(0), stems[:1])
    both = masked(stems.sum(0), stems)
    torch.testing.assert_close(alone, both[:1], rtol=0, atol=1e-4)


def test_masks_add_up_to_the_mixture(stems):
    torch.testing.assert_close(masked(stems.sum(0), stems).sum(0), stems.sum(0), atol=1e-4, rtol=0)


def test_it_is_far_better_than_the_mixture(stems):
    mixture = stems.sum(0)
    gain = nsdr(stems, masked(mixture, stems)) - nsdr(stems, mixture.expand_as(stems))
    assert (gain > 3).all()


def test_silence_stays_silence():
    silence = torch.zeros(2, 2, 5000)
    assert not masked(silence[0], silence).any()
