"""A snapshot is what there was when it was taken."""

from typing import NamedTuple

import torch
from lightning_runs import differences
from torch import nn

from lightning_sparse_rnn.checkpoints.snapshots import snapshot


def test_a_snapshot_is_what_there_was_and_shares_what_was_shared() -> None:
    flat = torch.arange(12.0)
    weights = nn.Linear(2, 2).state_dict()
    before = {"all": flat, "part": flat[3:9].view(2, 3).t(), "list": [1, (flat, "a")], "weights": weights}
    before["none"], before["scalar"] = torch.empty(0), torch.tensor(3)
    after = snapshot(before)
    assert differences(before, after) == []
    assert after["part"].untyped_storage().data_ptr() == after["all"].untyped_storage().data_ptr()
    assert after["list"][1][0].data_ptr() == after["all"].data_ptr() != flat.data_ptr()
    assert after["part"].stride() == before["part"].stride()
    assert after["weights"]._metadata == weights._metadata
    flat.zero_()
    before["list"].append(2)
    assert after["all"].sum() == 66.0
    assert len(after["list"]) == 2


class Pair(NamedTuple):
    weights: torch.Tensor
    steps: list[int]


class Losses(list):
    pass


def test_other_containers_are_copied_too() -> None:
    before = {"pair": Pair(torch.ones(2), [1]), "losses": Losses([0.5]), "names": {"a"}}
    after = snapshot(before)
    before["pair"].weights.zero_()
    before["pair"].steps.append(2)
    before["losses"].append(0.25)
    before["names"].add("b")
    assert after["pair"].weights.tolist() == [1.0, 1.0]
    assert after["pair"].steps == [1]
    assert after["losses"] == [0.5]
    assert type(after["losses"]) is Losses
    assert after["names"] == {"a"}


def test_parameters_and_tensors_of_a_graph_are_copied_with_what_they_share() -> None:
    parameter = nn.Parameter(torch.ones(3))
    before = {"own": parameter, "seen": parameter.detach(), "loss": parameter.sum() * 2.0}
    after = snapshot(before)
    with torch.no_grad():
        parameter.zero_()
    assert type(after["own"]) is nn.Parameter
    assert after["own"].tolist() == [1.0, 1.0, 1.0]
    assert after["own"].data_ptr() == after["seen"].data_ptr()
    assert after["loss"].item() == 6.0
    assert not after["loss"].requires_grad
