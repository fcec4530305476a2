import pytest
import torch

from htdemucs.audio import Spool
from htdemucs.errors import AudioError


def test_blocks_come_back_exactly_and_again(tmp_path, noise):
    waveform = noise(10_000)
    with Spool(tmp_path / "new") as spool:
        for block in waveform.tensor_split([0, 17, 4_000, 4_000], dim=1):
            spool.write(block)
        for block_length in (999, 10_000, 20_000):
            blocks = list(spool.blocks(block_length))
            assert all(block.shape == (2, block_length) for block in blocks[:-1])
            assert torch.equal(torch.cat(blocks, dim=1), waveform)
        assert spool.length == 10_000
        assert spool.peak == waveform.abs().max()


def test_reading_and_writing_may_alternate(tmp_path, noise):
    waveform = noise(300)
    with Spool(tmp_path) as spool:
        spool.write(waveform[:, :100])
        first, second = spool.blocks(60), spool.blocks(50)
        assert torch.equal(next(first), waveform[:, :60])
        assert torch.equal(next(second), waveform[:, :50])
        spool.write(waveform[:, 100:])
        assert torch.equal(next(first), waveform[:, 60:100])
        assert torch.equal(torch.cat(list(spool.blocks(128)), dim=1), waveform)


def test_non_finite_samples_are_kept_but_have_no_peak(tmp_path):
    samples = torch.tensor([[0.5, float("nan"), float("-inf"), -2.0]])
    with Spool(tmp_path) as spool:
        assert spool.peak == 0
        spool.write(samples)
        assert spool.peak == 2
        [block] = spool.blocks(10)
    assert torch.equal(block.isnan(), samples.isnan())
    assert block[0, 2] == float("-inf")


def test_the_file_goes_with_the_spool(tmp_path, noise):
    def interrupted():
        with Spool(tmp_path) as spool:
            spool.write(noise(1_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_an_unusable_folder_is_an_audio_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match="cannot hold temporary files"):
        Spool(tmp_path / "file")


def test_blocks_must_agree_in_channels(tmp_path):
    with Spool(tmp_path) as spool:
        spool.write(torch.zeros(2, 5))
        with pytest.raises(AudioError, match="a block has 1 channels, those before 2"):
            spool.write(torch.zeros(1, 5))
