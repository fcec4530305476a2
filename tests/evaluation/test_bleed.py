import pytest
import torch

from htdemucs.evaluation.bleed import BANDS, N_FFT, BleedMeter, mel_filters

RATE = 8000


def levels(signal):
    """(C, L) -> (C, BANDS, T), from the whole signal."""
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    options = {"hop_length": 1024, "window": window, "return_complex": True}
    spectrogram = torch.stft(signal.double(), N_FFT, pad_mode="constant", **options).abs()
    decibels = 20 * (mel_filters(RATE).double() @ spectrogram).clamp(min=1e-10).log10()
    return decibels.maximum(decibels.max() - 80)


def expected(reference, estimate):
    difference = levels(estimate) - levels(reference)
    higher, lower = difference[difference > 0], -difference[difference < 0]
    return [100 / (1 + float(x.mean() if x.numel() else 0)) for x in (higher, lower)]


@pytest.mark.parametrize("length", [100, 3 * RATE, 2 * RATE + 5000])
def test_blocks_give_what_the_whole_signal_gives(length):
    generator = torch.Generator().manual_seed(0)
    references, noise = torch.randn(2, 2, 2, length, generator=generator)
    references[0] *= torch.linspace(0, 1, length) ** 8  # the loudest level is at the end
    rows = torch.stack([references + 0.1 * noise, references.roll(7, -1) * 0.5])
    meter = BleedMeter(RATE)
    for reference, estimates in zip(references.split(RATE, -1), rows.split(RATE, -1), strict=True):
        meter.push(reference, estimates)
    found = meter.scores()
    meter.close()
    for i, row in enumerate(rows):
        for j, (reference, estimate) in enumerate(zip(references, row, strict=True)):
            assert found[:, i, j].tolist() == pytest.approx(expected(reference, estimate), abs=0.02)


def test_more_is_bleed_and_less_is_not_full():
    signal = torch.randn(1, 2, RATE, generator=torch.Generator().manual_seed(0))
    meter = BleedMeter(RATE)
    meter.push(signal, torch.stack([signal, 10 ** (6 / 20) * signal, 10 ** (-9 / 20) * signal]))
    bleedless, fullness = meter.scores()[..., 0].tolist()
    meter.close()
    assert bleedless == pytest.approx([100, 100 / 7, 100], abs=0.01)
    assert fullness == pytest.approx([100, 100, 100 / 10], abs=0.01)


def test_the_filters_are_slaneys():
    """The bins of the highest value, and those values, of librosa.filters.mel at 44.1 kHz."""
    filters = mel_filters(44_100)
    assert filters.shape == (BANDS, N_FFT // 2 + 1)
    peaks = filters.argmax(1)
    assert peaks[[0, 127, 255, 383, 511]].tolist() == [1, 93, 259, 726, 2032]
    assert filters[[127, 255, 383, 511]].amax(1).tolist() == pytest.approx(
        [0.07328653, 0.03633212, 0.01569964, 0.00554736], abs=1e-7
    )
