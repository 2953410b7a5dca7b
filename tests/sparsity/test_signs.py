"""The signs that weights are born with."""

import torch
from torch import nn

from lightning_sparse_rnn.sparsity.signs import Signs


def test_first_signs_are_the_weights_own_and_only_the_newborn_draw_new_ones() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -1.0, 0.0, -0.5] * 250))
    signs, again = Signs({"w": weight}, seed=1), Signs({"w": weight}, seed=1)
    own = (weight >= 0).clone()
    assert torch.equal(signs.flat()["w"], own)
    born = torch.arange(1000) < 600
    for each in (signs, again):
        each.draw({"w": born}, number=3)
    drawn = signs.flat()["w"]
    assert torch.equal(drawn[~born], own[~born])
    assert torch.equal(drawn, again.flat()["w"])
    assert 240 < int(drawn[born].sum()) < 360  # five standard deviations of a fair coin are 61
    fresh = Signs({"w": weight}, seed=2)
    fresh.load_state_dict(signs.state_dict())
    assert torch.equal(fresh.flat()["w"], drawn)
    fresh.load_state_dict({})
    assert torch.equal(fresh.flat()["w"], drawn)
