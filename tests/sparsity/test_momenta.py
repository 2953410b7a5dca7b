"""The running mean of gradients, by hand."""

import torch
from torch import nn

from lightning_sparse_rnn.sparsity.momenta import Momenta


def test_a_mean_moves_a_tenth_of_the_way_where_there_is_a_gradient() -> None:
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    momenta = Momenta({"first": first, "second": second})
    first.grad = torch.tensor([10.0, -1.0])
    second.grad = torch.tensor([2.0], dtype=torch.bfloat16)
    momenta.observe([first])
    torch.testing.assert_close(momenta.by_name()["first"], torch.tensor([1.0, -0.1]))
    assert momenta.by_name()["second"].tolist() == [0.0]  # was not among the parameters stepped
    assert momenta.by_name()["second"].dtype == torch.float32
    momenta.observe([first, second])
    torch.testing.assert_close(momenta.by_name()["first"], torch.tensor([1.9, -0.19]))
    other = Momenta({"first": first})
    other.load_state_dict(momenta.state_dict())
    assert torch.equal(other.by_name()["first"], momenta.by_name()["first"])
