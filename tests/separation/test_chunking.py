import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htdemucs.separation.chunking import GridOptions, OverlapAdd, SegmentGrid, triangle


def constant_windows(segment_length, stride):
    """Every window is as long as a segment."""
    return GridOptions(segment_length, stride, lambda _: segment_length, segment_length // 2)


def segments(track, options, start, cuts):
    grid = SegmentGrid(options, start)
    found = []
    for block in track.split(cuts, dim=-1):
        found += grid.push(block)
    return found + list(grid.flush())


@given(
    length=st.integers(1, 300),
    segment_length=st.integers(1, 60),
    stride=st.integers(1, 60),
    lead=st.integers(0, 30),
    cuts=st.integers(1, 301),
)
def test_grid_covers_the_track_with_centred_windows(length, segment_length, stride, lead, cuts):
    track = torch.arange(1.0, length + 1)[None]
    stride = min(stride, segment_length)
    found = segments(track, constant_windows(segment_length, stride), -lead, cuts)
    assert [s.start for s in found] == list(range(-lead, length, stride))
    padded = torch.nn.functional.pad(track, (lead + segment_length, 2 * segment_length))
    for segment in found:
        assert segment.length == min(segment_length, length - segment.start)
        assert segment.window.shape == (1, segment_length)
        begin = segment.start - (segment_length - segment.length) // 2 + lead + segment_length
        assert torch.equal(segment.window, padded[:, begin : begin + segment_length])


@given(
    length=st.integers(1, 300),
    segment_length=st.integers(1, 60),
    step=st.integers(1, 40),
    lead=st.integers(0, 30),
    cuts=st.integers(1, 301),
)
def test_windows_wider_than_their_segments_have_the_audio_around_them(
    length, segment_length, step, lead, cuts
):
    def window(n):
        return 7 + step * -(-n // step)

    track = torch.arange(1.0, length + 1)[None]
    options = GridOptions(segment_length, segment_length, window, margin=(7 + step) // 2)
    around = segment_length + 7 + step
    padded = torch.nn.functional.pad(track, (lead + around, around))
    for segment in segments(track, options, -lead, cuts):
        begin = segment.start - (window(segment.length) - segment.length) // 2 + lead + around
        assert torch.equal(segment.window, padded[:, begin : begin + window(segment.length)])


@given(
    length=st.integers(1, 300),
    segment_length=st.integers(2, 60),
    overlap=st.floats(0, 0.95),
    lead=st.integers(0, 30),
    cuts=st.integers(1, 301),
)
def test_adding_unchanged_segments_gives_the_track(length, segment_length, overlap, lead, cuts):
    track = torch.randn(1, 2, length, generator=torch.Generator().manual_seed(length))
    stride = max(1, int((1 - overlap) * segment_length))
    add = OverlapAdd(segment_length, stride, -lead)
    out = []
    for segment in segments(track[0], constant_windows(segment_length, stride), -lead, cuts):
        edge = (segment_length - segment.length) // 2
        output = segment.window[None, :, edge : edge + segment.length]
        out.append(add.push(segment.start, output))
        held = add._sum.shape[-1]
        assert held <= segment_length
    out.append(add.flush())
    torch.testing.assert_close(torch.cat(out, dim=-1), track, rtol=1e-5, atol=1e-5)


def test_triangle_peaks_in_the_middle():
    assert triangle(5).tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    assert triangle(4).tolist() == [0.5, 1.0, 1.0, 0.5]
    assert triangle(1).tolist() == [1.0]


def test_an_empty_stream_gives_nothing():
    assert list(SegmentGrid(constant_windows(10, 5)).flush()) == []
    assert OverlapAdd(10, 5).flush() is None
