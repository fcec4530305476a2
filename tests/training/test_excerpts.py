from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from htdemucs.training.dataloader import ExcerptSampler


def plan(lengths=(100, 300), weights=(1.0, 1.0), remix=1.0, group=4, seed=0, length=50):
    return ExcerptSampler(
        lengths, weights, length=length, remix=remix, remix_group=group, seed=seed
    )


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=5),
    st.integers(1, 200),
    st.integers(0, 2**31),
    st.integers(0, 10**6),
)
def test_excerpts_lie_inside_their_tracks(lengths, length, seed, step):
    made = plan(lengths, [1.0] * len(lengths), seed=seed, length=length)
    for example in range(4):
        excerpt = made.excerpt(step, example, source=1)
        assert 0 <= excerpt.start <= max(0, lengths[excerpt.recording] - length)


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(1, 6))
def test_remixing_permutes_a_group(seed, step, group):
    made, whole = plan(group=group, seed=seed), plan(group=group, seed=seed, remix=0.0)
    for source in range(3):
        mixed = [made.excerpt(step, n, source).origin for n in range(2 * group)]
        assert sorted(mixed[:group]) == list(range(group))
        assert sorted(mixed[group:]) == list(range(group, 2 * group))
        assert [whole.excerpt(step, n, source).origin for n in range(group)] == list(range(group))
        # What is drawn is the same, whoever gets it.
        drawn = {made.excerpt(step, n, source) for n in range(group)}
        assert drawn == {whole.excerpt(step, n, source) for n in range(group)}


def test_half_of_the_groups_are_mixed_at_a_half():
    made = plan(remix=0.5)
    mixed = sum(
        any(made.excerpt(step, n, s).origin != n for n in range(4) for s in range(4))
        for step in range(400)
    )
    assert 150 < mixed < 250


def test_longer_and_heavier_tracks_are_drawn_more_often():
    made = plan([100, 300, 100, 100], [1, 1, 2, 0])
    count = Counter(made.excerpt(step, 0, 0).recording for step in range(1200))
    assert 150 < count[0] < 250
    assert 520 < count[1] < 680
    assert 320 < count[2] < 480
    assert count[3] == 0


def test_a_seed_is_a_run():
    first, again, other = plan(seed=1), plan(seed=1), plan(seed=2)
    places = [(step, n, s) for step in range(5) for n in range(4) for s in range(4)]
    assert [first.excerpt(*p) for p in places] == [again.excerpt(*p) for p in places]
    assert [first.excerpt(*p) for p in places] != [other.excerpt(*p) for p in places]
