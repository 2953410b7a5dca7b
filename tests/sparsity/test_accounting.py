"""What a run would cost where zeros are free, by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.models import (
    AWDLSTM,
    GRU,
    AWDLSTMMoS,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
    StackedLSTM,
)
from lightning_sparse_rnn.sparsity.accounting import account, uses_per_token


def by_name(module: nn.Module) -> dict[str, float]:
    uses = uses_per_token(module)
    return {name: uses[parameter] for name, parameter in module.named_parameters() if parameter.dim() >= 2}


def test_embeddings_are_looked_up_and_all_else_is_multiplied_with_once() -> None:
    for network in (StackedLSTM(9, 4, 4), GRU(9, 4, 4), RecurrentHighwayNetwork(9, 4, 4, 3, tied=False)):
        uses = by_name(network)
        assert uses.pop("embedding.weight") == 0.0
        assert set(uses.values()) == {1.0}


@pytest.mark.parametrize("network", [AWDLSTM, OrderedNeuronsLSTM])
def test_a_tied_weight_is_a_decoder_once(network: Any) -> None:
    sizes = {"embedding_size": 10, "hidden_size": 10, "last_size": 10, "num_layers": 2}
    assert set(by_name(network(9, **sizes, tied=True)).values()) == {1.0}


@pytest.mark.parametrize("tied", [True, False])
def test_a_mixture_multiplies_with_the_decoder_for_every_expert(tied: bool) -> None:
    network = AWDLSTMMoS(9, 4, 5, last_size=6, num_layers=2, experts=3, tied=tied)
    module = nn.ModuleDict({"network": network})  # below another module, as in a LightningModule
    uses = by_name(module)
    assert uses.pop("network.embedding.weight" if tied else "network.decoder.weight") == 3.0
    if not tied:
        assert uses.pop("network.embedding.weight") == 0.0
    assert set(uses.values()) == {1.0}


def flops_by_counting(network: nn.Module, tokens: torch.Tensor) -> int:
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        output = network(tokens)
        network.log_probs(output.hidden)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("steps", [5, 12])  # from 8 on, a CPU lays weights out for them
def test_the_uses_are_those_of_a_forward_pass(steps: int) -> None:
    network = RecurrentHighwayNetwork(9, 4, 4, 3).eval()
    uses = uses_per_token(network)
    multiplications = sum(uses[p] * p.numel() for p in network.parameters() if p.dim() >= 2)
    assert flops_by_counting(network, torch.randint(9, (steps, 2))) == 2 * multiplications * 2 * steps


SIZES = {"decoder": {"all": 100}, "rnn": {"input": 50, "forget": 50}, "embedding": {"all": 1000}}
USES = {"decoder": 3.0, "rnn": 1.0, "embedding": 0.0}  # dense: 400 multiplications a token


def topology(update: int, step: int, decoder: int, rnn: int, regrown: int, explored: int) -> dict[str, Any]:
    return {
        "update": update,
        "step": step,
        "live": {"decoder": {"all": decoder}, "rnn": {"input": rnn, "forget": 0}, "embedding": {"all": 0}},
        "regrown": {"decoder": {"all": regrown}, "rnn": {"input": 0, "forget": 0}, "embedding": {"all": 0}},
        "explored": {"decoder": {"all": explored}, "rnn": {"input": 0, "forget": 0}, "embedding": {"all": 0}},
    }


RUN = [topology(0, 0, 20, 40, 0, 60), topology(1, 10, 30, 10, 8, 70), topology(2, 20, 10, 10, 5, 120)]


@pytest.mark.parametrize(
    ("gradients", "dense_steps"), [("never", [0, 0, 0]), ("updates", [0, 1, 1]), ("always", [10, 10, 20])]
)
def test_costs_by_hand(gradients: str, dense_steps: list[int]) -> None:
    found = account(RUN, SIZES, USES, steps=40, gradients=gradients)
    assert found["inference_flops"] == pytest.approx(40 / 400)
    cost = 0
    for steps, sparse, dense in zip([10, 10, 20], [100, 100, 40], dense_steps, strict=True):
        cost += (steps - dense) * 3 * sparse + dense * (2 * sparse + 400)
    assert found["training_flops"] == pytest.approx(cost / (40 * 3 * 400))
    assert found["explored"] == pytest.approx(120 / 1200)
    assert found["turnover"] == pytest.approx((8 / 40 + 5 / 20) / 2)


def test_a_topology_that_never_changed() -> None:
    found = account(RUN[:1], SIZES, USES, steps=7, gradients="updates")
    assert found == {
        "inference_flops": 100 / 400,
        "training_flops": pytest.approx(100 / 400),
        "explored": 60 / 1200,
        "turnover": 0.0,
    }
