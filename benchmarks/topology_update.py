"""An update of the topology by each method that makes any, and its handing over to the optimizer."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from benchmarks.floors import Floors
from benchmarks.models import LEARNING_RATE
from benchmarks.optimizer_step import with_gradients
from benchmarks.setting import Setting
from benchmarks.turns import Figure
from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["measure", "updating_methods"]

_OF_A_TOPOLOGY = ("sparsity", "allocation", "pruning", "growth", "redistribution", "include", "exclude", "seed")
_RATE = 0.5
_LESS_DENSE = 0.85  # of what is live, where a method grows sparser


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Measure all methods on one network, and the paper's at three rates."""
    module = with_gradients(setting)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    figures = []
    for name, callback in updating_methods().items():
        rates = (0.8, _RATE, 0.1) if name == "selfish" else (_RATE,)
        for rate in rates:
            with torch.no_grad():
                for parameter, value in zip(module.parameters(), start, strict=True):
                    parameter.copy_(value)
            what = f"{name}, rate {rate}" if len(rates) > 1 else name
            figures.append(_measure(what, callback, module, rate, setting, floors))
    return figures


def updating_methods() -> dict[str, dict[str, Any]]:
    """Return, of each method in ``conf/method`` that changes its topology while training, what its topology is."""
    methods = {}
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for path in sorted((Path(CONFIG_DIR) / "method").glob("*.yaml")):
            config = compose("train", [f"method={path.stem}"]).method
            if config.get("update_every_n_epochs") or config.get("update_every_n_steps"):
                options = {name: config[name] for name in _OF_A_TOPOLOGY}
                # A method that gets sparser is measured where it starts.
                if ramps := config.initial_sparsity is not None:
                    options["sparsity"] = config.initial_sparsity
                methods[path.stem] = {**options, "ramps": ramps}
    return methods


def _measure(
    what: str, options: dict[str, Any], module: nn.Module, rate: float, setting: Setting, floors: Floors
) -> Figure:
    ramps = options["ramps"]
    topology = SparseTopology(module, **{name: value for name, value in options.items() if name != "ramps"})
    optimizer = SNTASGD(module.parameters(), LEARNING_RATE)
    optimizer.set_masks(topology.masks)
    optimizer.restart()
    updates, handovers = [], []
    for turn in range(setting.repeats + 1):
        _train(topology)
        topology.observe(module.parameters())
        optimizer.step()
        gradients = {parameter: parameter.grad for parameter in topology.masks}
        density = _LESS_DENSE * (1.0 - topology.sparsity) if ramps else None
        begin = setting.now()
        update = topology.update(rate, density=density, gradients=gradients if "gradients" in topology.needs else None)
        end = setting.now()
        optimizer.set_masks(topology.masks, update.born)
        if turn:
            updates.append(end - begin)
            handovers.append(setting.now() - end)
    floor = floors.moving(
        setting.size.sparse_weights,
        4 + len(topology.needs - {"signs"}),
        "weight, mask and what the rules look at read, weight and mask written",
    )
    more = {"handing_over_seconds": statistics.median(handovers)}
    return Figure("topology update", what, statistics.median(updates), None, None, *floor, more)


@torch.no_grad()
def _train(topology: SparseTopology) -> None:
    """Move all live weights, the newborn away from zero, as an epoch of training would."""
    for parameter, mask in topology.masks.items():
        parameter.add_(torch.randn_like(parameter).mul_(mask), alpha=0.05)
