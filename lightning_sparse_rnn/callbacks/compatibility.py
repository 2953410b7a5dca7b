"""What the callbacks refuse to run beside, so that nothing is silently wrong."""

from __future__ import annotations

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch.optim import Optimizer

from lightning_sparse_rnn.sparsity.clock import UpdateClock
from lightning_sparse_rnn.utilities.trainer_state import ancestors, limits

__all__ = ["refuse_endless", "refuse_optimizer", "refuse_unsupported", "warn_of_companions"]

# By name: `lightning.pytorch` has classes of its own under the same names, and some exist only in newer versions.
_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAFSDPStrategy"}
_CALLBACKS = {
    "ModelPruning": "it masks weights by parametrizations of its own",
    "StochasticWeightAveraging": "it averages weights over changes of the topology, which leaves no weight at zero",
    "WeightAveraging": "it averages weights over changes of the topology, which leaves no weight at zero",
}
_OPTIMIZERS = {
    "LBFGS": "it evaluates the model several times in a step, with inactive weights that are not zero",
    "CPUOffloadOptimizer": "it steps weights of its own on the CPU, which masks do not reach",
    "Rprop": "it keeps a step size for each weight, and has none for one that is regrown",
}


def refuse_optimizer(optimizer: Optimizer) -> None:
    """Raise if sparse training would be wrong with this optimizer.

    Raises:
        MisconfigurationException: says why.
    """
    for name in _OPTIMIZERS.keys() & ancestors(optimizer):
        raise MisconfigurationException(f"Sparse training does not go with {name}: {_OPTIMIZERS[name]}.")


def refuse_unsupported(callback: Callback, trainer: Trainer) -> None:
    """Raise if the run has a strategy or another callback that ``callback`` would be wrong with.

    Raises:
        MisconfigurationException: says which one, why, and what to do.
    """
    own = type(callback).__name__
    if names := _SHARDED & ancestors(trainer.strategy):
        raise MisconfigurationException(
            f"{own} needs whole parameters on every process, and {names.pop()} shards them. Use `strategy='ddp'`."
        )
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if other is not callback and isinstance(other, type(callback)):
            raise MisconfigurationException(
                f"Expected one {own}, got a {type(other).__name__} beside it, which is one too. Remove one of the two."
            )
        for name in _CALLBACKS.keys() & ancestors(other):
            raise MisconfigurationException(
                f"{own} cannot run beside {type(other).__name__}: {_CALLBACKS[name]}. Remove one of the two; "
                "for averaged weights use SNTASGD with NonMonotonicAveraging."
            )


def refuse_endless(clock: UpdateClock, trainer: Trainer) -> None:
    """Raise if a schedule goes by the share of training that is done, and the run has no end.

    Raises:
        MisconfigurationException: says which schedule, and what to do.
    """
    given = limits(trainer)
    unknown = clock.within_epochs and given["epochs"] == 1 and trainer.num_training_batches == float("inf")
    if not clock.updates or any(end > 0 for name, end in given.items() if not (unknown and name == "epochs")):
        return
    if clock.schedule.ends and not unknown:
        raise MisconfigurationException(
            f"The {clock.schedule.name} schedule of the prune rate ends with the last optimizer step, and this "
            "Trainer has no end: set `max_epochs` or `max_steps`, or take `schedule='constant'`."
        )
    if clock.ramp is not None:
        raise MisconfigurationException(
            "The sparsity is to be reached at a share of training, and this Trainer has no end that is known: set "
            "`max_epochs`, `max_steps` or `max_time`; of a single epoch the loader has to know its length."
        )


def warn_of_companions(clock: UpdateClock, trainer: Trainer) -> None:
    """Say what the run lacks, or what in it will not do what it seems to."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    kinds = [ancestors(callback) for callback in callbacks]
    averages = any("SNTASGD" in ancestors(optimizer) for optimizer in trainer.optimizers)
    if averages and not any("NonMonotonicAveraging" in kind for kind in kinds):
        rank_zero_warn(
            "SNTASGD starts to average when its trigger fires, and no callback feeds it: add "
            "NonMonotonicAveraging(monitor=...) to the Trainer's callbacks. If your module calls "
            "`optimizer.observe(loss)` after each validation, all is well."
        )
    saves_best = [
        callback
        for callback, kind in zip(callbacks, kinds, strict=True)
        if "ModelCheckpoint" in kind and "SparseModelCheckpoint" not in kind and callback.monitor is not None
    ]
    if clock.ramp is not None and clock.ramp.first < clock.ramp.last and saves_best:
        rank_zero_warn(
            f"ModelCheckpoint(monitor={saves_best[0].monitor!r}) may keep as best a model of before the sparsity was "
            f"reached. Take lightning_sparse_rnn.SparseModelCheckpoint, for which only models of sparsity "
            f"{clock.ramp.last:g} count, in its place."
        )
