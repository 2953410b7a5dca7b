"""ŵ in the ``state_dict`` of a LightningModule that a Trainer runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from lightning_sparse_rnn.callbacks.running_statistics import RunningStatistics
from lightning_sparse_rnn.optim.sntasgd import SNTASGD
from lightning_sparse_rnn.utilities.trainer_state import batch_is_broken_off

__all__ = ["AveragedStateDict", "averaged", "averages", "revision", "sntasgds"]


class AveragedStateDict:
    """Puts ŵ into the ``state_dict`` of one LightningModule while a Trainer runs it; copies of it do nothing."""

    def __init__(self, trainer: Trainer, module: LightningModule, statistics: RunningStatistics | None) -> None:
        self._trainer: Trainer | None = trainer
        self._module: LightningModule | None = module
        self._statistics = statistics

    def __getstate__(self) -> dict[str, Any]:
        return {"_trainer": None, "_module": None, "_statistics": None}

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
        if self._trainer is None or module is not self._module or self._trainer.state.stage is None:
            return
        for name, average in averages(self._trainer, module, copy=True).items():
            state_dict[prefix + name] = average
        averaging = any(optimizer.averaging for optimizer in sntasgds(self._trainer))
        if self._statistics is not None and averaging:
            for name, value in _statistics_of_averages(self._trainer, self._statistics).items():
                state_dict[prefix + name] = value


def _statistics_of_averages(trainer: Trainer, statistics: RunningStatistics) -> dict[str, Tensor]:
    """The statistics of ŵ as it is now, whatever the parameters show.

    Inside a batch that has been broken off, and inside the computation itself, they are the last ones there are.
    """
    if statistics.computing or statistics.revision == revision(trainer) or batch_is_broken_off(trainer):
        return statistics.averaged() or statistics.training()
    shown = statistics.shown
    with _averages_in_parameters(trainer):
        try:
            statistics.show(revision(trainer), agree=False)
        finally:
            if not shown:
                statistics.put_back()
    return statistics.averaged()


@contextmanager
def _averages_in_parameters(trainer: Trainer) -> Iterator[None]:
    """Copy ŵ into the parameters for a while. Saving is to leave no trace, so the optimizers do not fold their sums."""
    kept: dict[Tensor, Tensor] = {}
    try:
        for optimizer in sntasgds(trainer):
            for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
                kept[parameter] = parameter.detach().clone()
                parameter.data.copy_(optimizer.averaged(parameter, copy=False))
        yield
    finally:
        for parameter, value in kept.items():
            parameter.data.copy_(value)


def revision(trainer: Trainer) -> list[tuple[int, int]]:
    """Equal to an earlier one as long as nothing has changed ŵ."""
    return [optimizer.revision for optimizer in sntasgds(trainer)]


def sntasgds(trainer: Trainer) -> Iterator[SNTASGD]:
    """The optimizers of a run that average."""
    return (optimizer for optimizer in trainer.optimizers if isinstance(optimizer, SNTASGD))


def averages(trainer: Trainer, module: nn.Module, copy: bool) -> dict[str, Tensor]:
    """Return ŵ by every name of the parameters that are being averaged; names of one parameter share its tensor."""
    found: dict[Tensor, Tensor] = {}
    by_name = {}
    for name, optimizer, parameter in averaged(trainer, module):
        if parameter not in found:
            found[parameter] = optimizer.averaged(parameter, copy=copy)
        by_name[name] = found[parameter]
    return by_name


def averaged(
    trainer: Trainer, module: nn.Module, remove_duplicate: bool = False
) -> Iterator[tuple[str, SNTASGD, nn.Parameter]]:
    """Yield every name, or one, of every parameter that is being averaged, with its optimizer."""
    owners = {
        parameter: optimizer
        for optimizer in sntasgds(trainer)
        if optimizer.averaging
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in module.named_parameters(remove_duplicate=remove_duplicate):
        if parameter in owners:
            yield name, owners[parameter], parameter
