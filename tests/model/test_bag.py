import pytest
import torch

from helpers import TINY, awake
from htdemucs import Bag, ConfigError, HTDemucs, HTDemucsConfig


@pytest.fixture
def members(tiny_config):
    return [awake(HTDemucs(tiny_config)).eval() for _ in range(3)]


def test_a_bag_is_the_weighted_mean_of_its_members(members):
    weights = [[1, 0, 2, 0], [0, 1, 1, 1], [1, 0, 1, 3]]
    mixture = torch.randn(2, 2, 4000)
    with torch.no_grad():
        outputs = torch.stack([member(mixture) for member in members])
        whole = Bag(members, weights)(mixture)
    for s in range(4):
        w = torch.tensor([row[s] for row in weights], dtype=torch.float32)
        expected = (w[:, None, None, None] * outputs[:, :, s]).sum(0) / w.sum()
        torch.testing.assert_close(whole[:, s], expected, rtol=1e-5, atol=1e-6)


def test_weights_are_equal_by_default(members):
    mixture = torch.randn(1, 2, 2000)
    with torch.no_grad():
        mean = torch.stack([member(mixture) for member in members]).mean(0)
        torch.testing.assert_close(Bag(members)(mixture), mean, rtol=1e-5, atol=1e-6)


def test_only_the_members_that_a_source_needs_are_run(members):
    identity = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    bag = Bag(members, identity)
    mixture = torch.randn(1, 2, 2000)
    vocals = bag.select_sources(["vocals"])
    assert len(vocals.members) == 1
    assert vocals.sources == ("vocals",)
    two = bag.select_sources(["vocals", "drums"])
    assert len(two.members) == 2
    again = two.select_sources(["drums"])
    assert len(again.members) == 1
    with torch.no_grad():
        whole = bag(mixture)
        torch.testing.assert_close(vocals(mixture)[:, 0], whole[:, 3], rtol=0, atol=0)
        torch.testing.assert_close(two(mixture), whole[:, [3, 0]], rtol=0, atol=0)
        torch.testing.assert_close(again(mixture)[:, 0], whole[:, 0], rtol=0, atol=0)


def test_the_segment_is_the_shortest_of_all(members):
    assert Bag(members).segment == 1
    assert float(Bag(members, segment=0.5).segment) == 0.5
    assert Bag(members, segment=44).segment == 1


def test_impossible_bags_are_refused(members):
    other = HTDemucs(HTDemucsConfig(**TINY | {"sources": ["a", "b", "c", "d"]}))
    with pytest.raises(ConfigError, match="member"):
        Bag([])
    with pytest.raises(ConfigError, match="sources"):
        Bag([members[0], other])
    with pytest.raises(ConfigError, match="rows"):
        Bag(members, [[1, 1, 1, 1]])
    with pytest.raises(ConfigError, match="weight"):
        Bag(members, [[1, 1, 1, 0]] * 3)
    with pytest.raises(ConfigError, match="finite"):
        Bag(members, [[1, 1, 1, float("nan")]] * 3)
    with pytest.raises(ConfigError, match="guitar"):
        Bag(members).select_sources(["guitar"])
    with pytest.raises(ConfigError):
        Bag(members).select_sources([])
