import torch

from htdemucs.training.rng import generator, seed_torch


def test_draws_depend_on_seed_purpose_and_place():
    places = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a", 1, 0)]
    drawn = [generator(*place).random() for place in places]
    assert len(set(drawn)) == len(places)
    assert drawn == [generator(*place).random() for place in places]
    seed_torch(3, "x", 1)
    first = torch.rand(3)
    seed_torch(3, "x", 1)
    assert torch.equal(first, torch.rand(3))
