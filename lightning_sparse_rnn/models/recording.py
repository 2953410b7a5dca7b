"""Whether the passes of a language model run as CUDA graphs, and if not, why."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from lightning_sparse_rnn.models.kernels.linear import made_into_a_graph
from lightning_sparse_rnn.models.kernels.recorded_pass import Pass, PassFunction, RecordedPasses
from lightning_sparse_rnn.models.kernels.state import State
from lightning_sparse_rnn.models.kernels.untouched import GLOBAL_HOOKS, MODULE_HOOKS
from lightning_sparse_rnn.models.stacked import GRU, LSTM

__all__ = ["PassRecorder"]

_DEVICE = "cuda"
# Hooks are called by no replay.
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class PassRecorder:
    """Runs a module's passes over batches: recorded where that is right, or else kernel by kernel.

    Where they could be expected to be recorded and are not, one line says why. Copies of it, and of the module that has
    it, begin without recordings.

    Args:
        wanted: whether to record at all.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self._passes: RecordedPasses | None = None
        self._failed = False
        self._said: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return PassRecorder, (self._wanted,)

    def run(
        self,
        module: pl.LightningModule,
        function: PassFunction,
        made_of: tuple[Any, ...],
        tokens: Tensor,
        targets: Tensor,
        state: State,
    ) -> Pass:
        """``function(tokens, targets, state)``, which beside them depends on ``module.network`` and ``made_of``."""
        if not self._wanted or self._failed or tokens.device.type != _DEVICE or made_into_a_graph():
            return function(tokens, targets, state)
        if reason := reason_against(module):
            self._say(reason)
            return function(tokens, targets, state)
        if self._passes is None:
            self._passes = RecordedPasses(tokens.device)
        weights = [*module.parameters(), *module.buffers()]
        try:
            return self._passes(function, weights, (*made_of, *plain_values(module.network)), tokens, targets, state)
        except RuntimeError as error:  # out of memory, or something that cannot be recorded
            self._failed = True
            self._passes = None
            rank_zero_warn(f"Batches run kernel by kernel, which is slower and right all the same: {error}")
            return function(tokens, targets, state)

    def clear(self) -> None:
        """Give back the memory of all recordings."""
        self._passes, self._failed = None, False

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            rank_zero_info(f"Batches run kernel by kernel and not as CUDA graphs, since {reason}.")


def reason_against(module: pl.LightningModule) -> str | None:
    """Why the passes of this module are not to be recorded, or None."""
    trainer = module._trainer
    if trainer is not None and (trainer.world_size > 1 or trainer.strategy.model is not module):
        return f"{type(trainer.strategy).__name__} has work of its own to do in them"
    if torch.is_anomaly_enabled():
        return "anomalies are looked for"
    if any(getattr(torch_module, name) for name in GLOBAL_HOOKS):
        return "all modules have hooks, which no graph would call"
    network: Any = module.network
    # Ours, which draws for itself what is between layers.
    own = network.layers if isinstance(network, (LSTM, GRU)) else None
    for name, part in module.named_modules():
        if any(getattr(part, hooks) for hooks in MODULE_HOOKS):
            return f"{name or 'the module'} has hooks, which no graph would call"
        if part._compiled_call_impl is not None or type(part).__name__ == "OptimizedModule":
            return f"{name or 'the module'} is compiled"
        if part is not own and _draws_by_cudnn(part):
            return f"{name} leaves dropout between its layers to cuDNN, whose random state cannot be saved"
    for name, parameter in module.named_parameters():
        if any(getattr(parameter, hooks, None) for hooks in _TENSOR_HOOKS):
            return f"{name} has hooks, which no graph would call"
    return None


def plain_values(network: Any) -> tuple[Any, ...]:
    """All numbers and switches that a network is made of: sizes, rates of dropout, whether it is training."""
    values = (value for part in network.modules() for value in vars(part).values())
    return tuple(value for value in values if isinstance(value, (bool, int, float)))


def _draws_by_cudnn(part: nn.Module) -> bool:
    return isinstance(part, nn.RNNBase) and part.num_layers > 1 and part.dropout > 0
