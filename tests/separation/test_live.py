import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import snr
from htdemucs import LiveSeparator, SeparationError, Separator, Timing
from htdemucs.separation.normalization import RunningStats

relaxed = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TIMING = Timing(hop=0.02, look_ahead=0.01, crossfade=0.005)  # of segments of 100 samples


def noise(length):
    return torch.randn(2, length, generator=torch.Generator().manual_seed(3)) * 0.1 + 0.02


def streamed(live, blocks):
    pieces = [*(live.push(block) for block in blocks), live.finish()]
    return torch.stack([torch.cat([p[name] for p in pieces], dim=-1) for name in live.stems])


@relaxed
@given(
    length=st.integers(1, 300),
    cut=st.integers(1, 300),
    hop=st.integers(1, 60),
    look_ahead=st.integers(0, 30),
    crossfade=st.integers(0, 10),
    compute=st.integers(0, 200),
)
def test_the_delay_is_exact_and_constant(
    identity, length, cut, hop, look_ahead, crossfade, compute
):
    """The output of an identity is silence for `delay` samples, and then the mixture."""
    milliseconds = (hop, look_ahead, min(crossfade, hop), compute)
    live = LiveSeparator(
        Separator(identity, shifts=0), Timing(*(value / 1000 for value in milliseconds))
    )
    assert live.delay == sum(milliseconds)
    assert live.timing.delay == pytest.approx(live.delay / live.sample_rate)
    waveform = noise(length)
    stems = streamed(live, waveform.split(cut, dim=-1))
    assert stems.shape == (2, 2, live.delay + length)
    assert not stems[..., : live.delay].any()
    torch.testing.assert_close(stems[0, :, live.delay :], waveform, rtol=1e-4, atol=1e-5)
    assert live.passthrough == 0


@pytest.mark.parametrize("timing", [Timing(0.2, 0.1, 0.05), Timing(0.11, 0.0, 0.11, compute=0.3)])
def test_the_output_equals_offline_runs_of_the_same_windows_to_the_bit(tiny_model, timing):
    separator, waveform = Separator(tiny_model, shifts=0), noise(9_011)
    live = LiveSeparator(separator, timing)
    streams = [
        streamed(LiveSeparator(separator, timing), waveform.split(cut, dim=-1))
        for cut in (777, 9_011)
    ]
    rate, length = separator.sample_rate, separator.segment_length
    hop, ahead, fade = (round(s * rate) for s in (timing.hop, timing.look_ahead, timing.crossfade))
    rise = ((torch.arange(fade) + 0.5) / fade * 2**20).round() / 2**20
    track = torch.cat([torch.zeros(2, length), waveform, torch.zeros(2, live.delay)], dim=-1)
    expected = torch.zeros(4, 2, track.shape[-1])
    stats, ends = RunningStats(), range(length + hop, track.shape[-1] + 1, hop)
    for end in ends:
        stats.update(track[:, end - hop : end])
        normalization = stats.normalization()
        window = normalization.apply(track[:, end - length : end])
        output = normalization.undo(separator.run_network(window))
        first, last = end - ahead - fade - hop, end - ahead
        weight = torch.ones(last - first)
        weight[:fade] = rise
        weight[len(weight) - fade :] = torch.minimum(weight[len(weight) - fade :], 1 - rise)
        used = slice(length - ahead - len(weight), length - ahead)
        expected[..., first:last] += weight * output[..., used]
    expected = expected[..., length : length + waveform.shape[-1]]
    for stems in streams:
        assert torch.equal(stems[..., live.delay :], expected)


def test_the_caller_may_reuse_its_buffer(identity):
    waveform, buffer = noise(700), torch.zeros(2, 70)
    live = LiveSeparator(Separator(identity, shifts=0), TIMING)
    pieces = []
    for block in waveform.split(70, dim=-1):
        buffer.copy_(block)
        pieces.append(live.push(buffer)["once"])
    stem = torch.cat(pieces, dim=-1)[:, live.delay :]
    torch.testing.assert_close(stem, waveform[:, : -live.delay], rtol=1e-4, atol=1e-5)


def test_memory_does_not_grow_with_the_stream(identity):
    live = LiveSeparator(Separator(identity, shifts=0), Timing(0.02, 0.01, 0.005, compute=0.05))
    sizes = []
    for _ in range(300):
        live.push(torch.randn(2, 7))
        sizes.append((len(live._history._blocks), live._sum.shape[-1]))
    assert max(sizes[100:]) <= max(sizes[:100])


def test_more_look_ahead_is_closer_to_the_separation_of_the_whole(tiny_model):
    waveform = noise(9_000)
    whole = torch.stack(list(Separator(tiny_model, shifts=0).separate(waveform, 8000).values()))
    stems = {}
    for look_ahead in (0.0, 0.4):
        live = LiveSeparator(Separator(tiny_model, shifts=0), Timing(0.1, look_ahead, 0.02))
        stems[look_ahead] = streamed(live, [waveform])[..., live.delay :]
    assert snr(whole, stems[0.4]) > snr(whole, stems[0.0])


@pytest.mark.parametrize(
    ("timing", "message"),
    [
        (Timing(0.0, 0.1, 0.0), "hop must be above 0"),
        (Timing(0.02, float("nan"), 0.0), "impossible"),
        (Timing(0.02, -0.01, 0.0), "impossible"),
        (Timing(0.02, 0.0, 0.03), "crossfade must not be longer"),
        (Timing(0.05, 0.05, 0.01), "longer than the segment of 0.1 s"),
    ],
)
def test_impossible_timings_are_refused(identity, timing, message):
    with pytest.raises(SeparationError, match=message):
        LiveSeparator(Separator(identity, shifts=0), timing)


def test_invalid_blocks_and_separators_with_shifts_are_refused(identity):
    live = LiveSeparator(Separator(identity, shifts=0), TIMING)
    for block in (torch.zeros(1, 5), torch.zeros(5), torch.full((2, 5), float("nan"))):
        with pytest.raises(SeparationError, match=r"a block must be \(2, L\)"):
            live.push(block)
    with pytest.raises(SeparationError, match="set shifts to 0"):
        LiveSeparator(Separator(identity, shifts=1), TIMING)
