"""A step of the optimizer alone, beside those of torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD

from benchmarks.floors import Floors
from benchmarks.models import LEARNING_RATE, SPARSITY, WEIGHT_DECAY, DenseLSTM, averaging
from benchmarks.setting import Setting
from benchmarks.turns import Figure, compare, take_turns
from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["measure", "with_gradients"]

FUSED = "`torch.optim.SGD(fused=True)`"


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Compare steps on the same parameters and gradients."""
    module = with_gradients(setting)
    parameters, topology = list(module.parameters()), SparseTopology(module, SPARSITY)
    plain = SNTASGD(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    plain.set_masks(topology.masks)
    options = {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
    steps = {
        FUSED: SGD(parameters, **options, fused=True).step,
        "`torch.optim.SGD(foreach=True)`": SGD(parameters, **options, foreach=True).step,
        "`torch.optim.SGD(foreach=False)`": SGD(parameters, **options, foreach=False).step,
        "`SNTASGD`, before the trigger": plain.step,
        "`SNTASGD`, averaging": averaging(parameters, topology).step,
    }
    weights = setting.size.weights
    moved = {name: floors.moving(weights, 3, "weight and gradient read, weight written") for name in steps}
    moved["`SNTASGD`, before the trigger"] = floors.moving(weights, 4, "and the mask read")
    moved["`SNTASGD`, averaging"] = floors.moving(weights, 6, "and the sum read and written")
    return compare("optimizer step", take_turns(steps, setting), FUSED, moved)


def with_gradients(setting: Setting) -> nn.Module:
    """A network whose weights have small random gradients."""
    torch.manual_seed(0)
    module = DenseLSTM(setting.size).to(setting.device)
    for parameter in module.parameters():
        parameter.grad = 1e-5 * torch.randn_like(parameter)
    return module
