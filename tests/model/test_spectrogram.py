import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import snr
from htdemucs.model.spectrogram import Spectrogram


@given(length=st.integers(1, 5000), n_fft=st.sampled_from([64, 256, 1024]))
def test_any_length_has_one_frame_a_hop_and_an_inverse_of_its_length(length, n_fft):
    spectrogram = Spectrogram(n_fft)
    waveform = torch.randn(1, 2, length, generator=torch.Generator().manual_seed(length))
    frames = spectrogram(waveform)
    assert frames.shape == (1, 4, n_fft // 2, -(-length // (n_fft // 4)))
    assert spectrogram.inverse(frames, length).shape == waveform.shape


def test_samples_under_four_frames_come_back():
    spectrogram = Spectrogram(1024)
    t = torch.arange(20_000) / 44_100
    waveform = torch.sin(2 * torch.pi * 440 * t)[None, None]
    back = spectrogram.inverse(spectrogram(waveform), 20_000)
    inside = slice(spectrogram.edge, -spectrogram.edge)
    assert snr(waveform[..., inside], back[..., inside]) > 100
    assert back.abs().max() < 1.01


def test_equals_the_framework_stft_on_interior_frames():
    spectrogram = Spectrogram(256)
    waveform = torch.randn(1, 1, 64 * 20)
    ours = spectrogram(waveform)[0, 0, :, 4:-4]
    # Frame i of ours is centred on sample 64 i + 32; torch centres its frames on 64 i.
    theirs = torch.stft(
        waveform[0, 0, 32:], 256, 64, window=torch.hann_window(256), normalized=True,
        return_complex=True,
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs.real[:-1, 4 : 4 + ours.shape[1]], rtol=0, atol=1e-5)


def test_energy_is_kept_by_the_orthonormal_transform():
    """Four squared Hann windows sum to 3/2; the mirrored bins hold the other half of the energy."""
    waveform = torch.randn(1, 1, 256 * 400)
    spectrum = Spectrogram(1024)(waveform)
    energy = 2 * spectrum.square().sum() / (1.5 * waveform.square().sum())
    assert abs(float(energy) - 1) < 0.01
