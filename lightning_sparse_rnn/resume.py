"""What exact resume needs beyond weights, masks and optimizer state: torch's random numbers, as they stood."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["ResumesExactly"]

_KEY = "lightning_sparse_rnn.random_state"


class ResumesExactly(Callback):
    """Saves torch's random state in checkpoints and restores it when training goes on from one.

    Dropout and shuffling then draw what they would have drawn without the interruption. A checkpoint written while a
    batch is being processed, which an exception causes, holds the state from before that batch, since a resumed run
    does the batch again. Processes other than the first go on from a state of their own, made from the first's.
    """

    _before_batch: dict[str, Tensor] | None = None
    _to_restore: dict[str, Tensor] | None = None
    _saved_between_epochs = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy does not drag along the module, whose logging methods Lightning attaches to its callbacks.
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict")}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._before_batch = _random_state(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._before_batch = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = self._before_batch or _random_state(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit" or _KEY not in checkpoint:
            return
        self._to_restore = checkpoint[_KEY]
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        self._saved_between_epochs = epochs["processed"] == epochs["ready"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A loader draws its shuffle when it is opened. After a checkpoint from between two epochs newer versions of
        # Lightning open the next epoch's before `on_train_start`, and only then; older ones open it again afterwards,
        # like all do after other checkpoints.
        opened_once = self._saved_between_epochs and hasattr(trainer.fit_loop, "is_resuming")
        self._restore(trainer, keep=not opened_once)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(trainer)

    def _restore(self, trainer: Trainer, keep: bool = False) -> None:
        if self._to_restore is not None:
            _set_random_state(trainer, self._to_restore)
        if not keep:
            self._to_restore = None


def _random_state(trainer: Trainer) -> dict[str, Tensor]:
    device = trainer.strategy.root_device
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(trainer: Trainer, state: dict[str, Tensor]) -> None:
    if trainer.global_rank:
        digest = hashlib.blake2b(bytes(state["cpu"].tolist()), digest_size=8).digest()
        torch.manual_seed((int.from_bytes(digest, "little") + trainer.global_rank) % 2**63)
        return
    torch.set_rng_state(state["cpu"].cpu())
    device = trainer.strategy.root_device
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
