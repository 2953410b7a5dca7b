"""What the callbacks refuse to run beside, so that nothing is silently wrong."""

from __future__ import annotations

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from lightning_sparse_rnn.utilities.trainer_state import ancestors

__all__ = ["refuse_optimizer", "refuse_unsupported"]

# By name: `lightning.pytorch` has classes of its own under the same names, and some exist only in newer versions.
_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAFSDPStrategy"}
_CALLBACKS = {
    "ModelPruning": "it masks weights by parametrizations of its own",
    "StochasticWeightAveraging": "it averages weights over changes of the topology, which leaves no weight at zero",
    "WeightAveraging": "it averages weights over changes of the topology, which leaves no weight at zero",
}
_OPTIMIZERS = {
    "LBFGS": "it evaluates the model several times in a step, with inactive weights that are not zero",
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
        for name in _CALLBACKS.keys() & ancestors(other):
            raise MisconfigurationException(
                f"{own} cannot run beside {type(other).__name__}: {_CALLBACKS[name]}. Remove one of the two; "
                "for averaged weights use SNTASGD with NonMonotonicAveraging."
            )
