"""How many weights of a module are live, with a topology and without."""

import pytest
import torch
from torch import nn

from lightning_sparse_rnn import SparseTopology, live_weights


def tied() -> nn.Module:
    module = nn.ModuleDict({"embedding": nn.Embedding(20, 5), "rnn": nn.LSTM(5, 5), "decoder": nn.Linear(5, 20)})
    module["decoder"].weight = module["embedding"].weight
    module["norm"] = nn.LayerNorm((2, 5))
    return module


def test_counts_are_those_of_the_topology_and_a_tied_weight_counts_once() -> None:
    module = tied()
    assert live_weights(module) == (300, 300)
    topology = SparseTopology(module, 0.67)
    found = live_weights(module)
    assert found == (topology.live_weights, topology.total_weights) == (99, 300)
    assert found.sparsity == pytest.approx(topology.sparsity)
    assert found.density == pytest.approx(0.33)
    assert str(found) == "99 of 300 weights live (33.0%)"
    assert repr(topology) == "SparseTopology(99 of 300 weights live (33.0%), in 3 tensors)"


def test_a_regrown_weight_is_live_to_the_topology_before_it_is_trained() -> None:
    module = tied()
    topology = SparseTopology(module, 0.67)
    regrown = topology.update(0.5).regrown
    count = sum(count for gates in regrown.values() for count in gates.values())
    assert count > 0
    assert topology.live_weights == 99
    assert live_weights(module).live == 99 - count


def test_patterns_choose_parameters() -> None:
    module = tied()
    with torch.no_grad():
        module["rnn"].weight_hh_l0.zero_()
    assert live_weights(module, include="rnn.*") == (100, 200)
    assert live_weights(module, exclude=["rnn.*"]) == (100, 100)
    with pytest.raises(ValueError, match="matches none of the parameters"):
        live_weights(module, include="lstm.*")
