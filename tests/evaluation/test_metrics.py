import math

import pytest
import torch

from htdemucs.evaluation import ScoreMeter, museval_frames, museval_sdr, nsdr, si_sdr

RATE = 1000


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    references = torch.randn(3, 2, 4 * RATE + 321, generator=generator, dtype=torch.float64)
    errors = torch.randn(references.shape, generator=generator, dtype=torch.float64)
    return references, references + torch.tensor([0.1, 0.5, 2.0])[:, None, None] * errors


def test_nsdr_is_the_challenge_formula(pair):
    references, estimates = pair
    expected = [
        10 * math.log10((float((r**2).sum()) + 1e-7) / (float(((r - e) ** 2).sum()) + 1e-7))
        for r, e in zip(references, estimates, strict=True)
    ]
    torch.testing.assert_close(nsdr(references, estimates), torch.tensor(expected).double())


def test_one_stem_gives_one_number_and_batches_give_many(pair):
    """(C, L) for validation during training; (B, S, C, L) too, in any precision."""
    references, estimates = pair
    for score in (nsdr, si_sdr):
        stems = score(references, estimates)
        assert float(score(references[1], estimates[1])) == pytest.approx(stems[1].item())
        batch = score(references.expand(2, 3, -1, -1), estimates.expand(2, 3, -1, -1))
        torch.testing.assert_close(batch, stems.expand(2, 3))
        half = score(references.bfloat16(), estimates.bfloat16())
        assert half.dtype == torch.float64
        torch.testing.assert_close(half, stems, atol=0.1, rtol=0)


def test_other_shapes_are_refused_and_not_broadcast():
    for score in (nsdr, si_sdr):
        with pytest.raises(ValueError, match=r"\[2, 5\] and \[1, 5\] differ"):
            score(torch.zeros(2, 5), torch.zeros(1, 5))


def test_nsdr_of_silence_and_of_perfection_is_finite():
    silence, sound = torch.zeros(1, 2, RATE), torch.ones(1, 2, RATE)
    assert nsdr(silence, silence).tolist() == [0.0]
    assert nsdr(sound, sound).item() == pytest.approx(10 * math.log10(2000 / 1e-7))
    assert nsdr(silence, sound).item() == pytest.approx(-10 * math.log10(2000 / 1e-7))


def test_si_sdr_does_not_hear_scale(pair):
    references, estimates = pair
    scores = si_sdr(references, estimates)
    for scale in (0.01, 3.0, -1.0):
        torch.testing.assert_close(si_sdr(references, scale * estimates), scores)
    for r, e, score in zip(references, estimates, scores, strict=True):
        target = (r * e).sum() / (r * r).sum() * r
        expected = 10 * torch.log10((target**2).sum() / ((e - target) ** 2).sum())
        assert score.item() == pytest.approx(expected.item())


def test_si_sdr_where_it_is_undefined_or_infinite():
    silence, sound = torch.zeros(1, 2, RATE), torch.ones(1, 2, RATE)
    assert si_sdr(silence, sound).isnan().all()
    assert si_sdr(sound, silence).isnan().all()
    assert si_sdr(sound, sound).item() == math.inf


def test_good_estimates_keep_their_digits():
    """At 140 dB, a float64 energy of the estimate alone would have lost the error."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(1, 1, 10 * RATE, generator=generator, dtype=torch.float64)
    error = torch.randn(reference.shape, generator=generator, dtype=torch.float64)
    assert si_sdr(reference, reference + 1e-7 * error).item() == pytest.approx(140, abs=0.2)


def test_frames_leave_out_the_incomplete_last_second(pair):
    references, estimates = pair
    frames = museval_frames(references, estimates, RATE)
    assert frames.shape == (3, 4)
    second = slice(RATE, 2 * RATE)
    r, e = references[2, :, second], estimates[2, :, second]
    expected = 10 * torch.log10((r**2).sum() / ((e - r) ** 2).sum())
    assert frames[2, 1].item() == pytest.approx(expected.item())
    assert museval_frames(references[..., :321], estimates[..., :321], RATE).shape == (3, 1)


def test_a_silent_stem_silences_the_frame_for_all(pair):
    references, estimates = pair
    references[1, :, RATE : 2 * RATE] = 0
    estimates[2, 0, 3 * RATE : 4 * RATE] = -estimates[2, 1, 3 * RATE : 4 * RATE]  # adds up to 0
    frames = museval_frames(references, estimates, RATE)
    assert frames.isnan().any(0).tolist() == [False, True, False, True]
    assert frames.isnan().all(0).tolist() == [False, True, False, True]
    expected = frames[:, [0, 2]].mean(1)
    torch.testing.assert_close(museval_sdr(references, estimates, RATE), expected)


def test_infinite_frames_are_left_out_and_counted(pair):
    references, estimates = pair
    estimates[0, :, :RATE] = references[0, :, :RATE]
    meter = ScoreMeter(RATE)
    for r, e in zip(references.split(RATE, -1), estimates.split(RATE, -1), strict=True):
        meter.push(r, e)
    first, second, _ = meter.scores()
    assert [math.isinf(sdr) for sdr in first.frames] == [True, False, False, False]
    assert all(map(math.isfinite, second.frames))
    frames = museval_frames(references, estimates, RATE)
    assert first.museval_sdr == pytest.approx(frames[0, 1:].sort().values[1].item())


def test_nothing_but_silence_or_perfection_is_undefined(pair):
    references, _ = pair
    assert museval_sdr(references, references, RATE).isnan().all()
    assert museval_sdr(references, torch.zeros_like(references), RATE).isnan().all()


def test_a_meter_gives_what_the_functions_give(pair):
    references, estimates = pair
    meter = ScoreMeter(RATE)
    for r, e in zip(references.split(RATE, -1), estimates.split(RATE, -1), strict=True):
        meter.push(r, e)
    scores = meter.scores()
    for name, values in (
        ("nsdr", nsdr(references, estimates)),
        ("si_sdr", si_sdr(references, estimates)),
        ("museval_sdr", museval_sdr(references, estimates, RATE)),
    ):
        assert [getattr(s, name) for s in scores] == pytest.approx(values.tolist(), abs=1e-10)


def test_a_meter_refuses_frames_of_other_lengths():
    meter = ScoreMeter(RATE)
    with pytest.raises(ValueError, match="differ"):
        meter.push(torch.zeros(1, 2, 5), torch.zeros(1, 2, 6))
    with pytest.raises(ValueError, match="1000 samples"):
        meter.push(torch.zeros(1, 2, RATE + 1), torch.zeros(1, 2, RATE + 1))
    meter.push(torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="the last one fewer"):
        meter.push(torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))


@pytest.mark.parametrize("level", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-3, 0.5, 1, 1 + 1e-9, 3, 1e6, 1e12])
def test_si_sdr_is_exact_at_every_scale(scale, level):
    """Noise that is orthogonal to the reference has exactly its own level."""
    generator = torch.Generator().manual_seed(0)
    reference, noise = torch.randn(2, 1, 4, 1000, generator=generator, dtype=torch.float64)
    noise -= (noise * reference).sum() / reference.square().sum() * reference
    noise *= level * (reference.square().sum() / noise.square().sum()).sqrt()
    estimate = scale * (reference + noise)
    expected = pytest.approx(-20 * math.log10(level), abs=1e-4)
    assert si_sdr(reference, estimate).item() == expected
    meter = ScoreMeter(300)
    for start in range(0, 1000, 300):
        part = slice(start, start + 300)
        meter.push(reference[..., part], estimate[..., part])
    assert meter.scores()[0].si_sdr == expected


@pytest.mark.parametrize("scale", [1e-12, 1e-9, 0.1, 3, 1e12])
def test_si_sdr_of_another_level_is_limited_by_rounding_only(scale):
    reference = torch.randn(2, 5000, dtype=torch.float64)
    assert si_sdr(reference, scale * reference).item() > 300
