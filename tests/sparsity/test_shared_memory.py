"""Parameters that are the same memory without being one parameter."""

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.sparsity import SparseTopology


def two(first: torch.Tensor, second: torch.Tensor) -> nn.ParameterDict:
    return nn.ParameterDict({"first": nn.Parameter(first), "second": nn.Parameter(second)})


def test_tied_by_data_is_refused_and_told_how_to_tie() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(9, 4), "decoder": nn.Linear(4, 9)})
    module["decoder"].weight.data = module["embedding"].weight.data
    before = module["decoder"].weight.detach().clone()
    said = r"embedding\.weight and decoder\.weight share their memory .*`module\.decoder\.weight = module\.embedding"
    for exclude in (None, "embedding.*"):
        with pytest.raises(ValueError, match=said):
            SparseTopology(module, 0.5, exclude=exclude)
    assert torch.equal(module["decoder"].weight, before)
    module["decoder"].weight = module["embedding"].weight
    assert SparseTopology(module, 0.5).live_weights == 18


def test_a_part_of_another_is_refused() -> None:
    whole = torch.randn(6, 5)
    for part in (whole[2:4], whole[:, 1:3], whole.t(), whole.view(5, 6), whole.view(torch.int32).view(torch.float32)):
        with pytest.raises(ValueError, match="first and second share their memory"):
            SparseTopology(two(whole, part), 0.5)


def test_side_by_side_in_one_buffer_is_no_sharing() -> None:
    whole = torch.randn(6, 5)
    for first, second in (
        (whole[:3], whole[3:]),
        (whole[:, :2], whole[:, 2:]),
        (whole[::2], whole[1::2]),
        (whole[:2, :2], whole[2:, 2:]),
    ):
        whole.fill_(1.0)
        topology = SparseTopology(two(first, second), 0.5)
        assert all(torch.equal(parameter != 0, mask.bool()) for parameter, mask in topology.masks.items())
