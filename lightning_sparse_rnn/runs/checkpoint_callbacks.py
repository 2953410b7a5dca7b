"""The two checkpoints of a run: the model that counts, and the one to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn.callbacks.checkpoint import SparseModelCheckpoint
from lightning_sparse_rnn.runs.folder import BEST, LAST

__all__ = ["BestCheckpoint", "LastCheckpoint"]


class _RunCheckpoint(ModelCheckpoint):
    """Writes one file of the run's folder, which is the Trainer's ``default_root_dir``.

    The folder may be moved or copied between two sessions of a run.

    Args:
        name: the file's name in the run's folder.
        **options: those of Lightning's ``ModelCheckpoint``.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._name = Path(name)
        super().__init__(filename=self._name.stem, enable_version_counter=False, **options)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str((Path(trainer.default_root_dir) / self._name).parent.resolve())
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score of a folder that has another path than when it was saved.
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            {
                **state_dict,
                **{name: here(state_dict[name]) for name in paths},
                "best_k_models": {here(path): score for path, score in state_dict["best_k_models"].items()},
                "dirpath": self.dirpath,
            }
        )


class BestCheckpoint(_RunCheckpoint, SparseModelCheckpoint):
    """Keeps ``best.ckpt``: the model of lowest ``monitor`` among those that are as sparse as asked for.

    Args:
        monitor: name of a validation metric.
        mode: ``"min"`` if lower is better, ``"max"`` if higher is.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "min") -> None:
        super().__init__(BEST, monitor=monitor, mode=mode, save_weights_only=True)


class LastCheckpoint(_RunCheckpoint):
    """Keeps ``checkpoints/last.ckpt``: every epoch's end, to resume from, whatever became of the loss."""

    def __init__(self) -> None:
        super().__init__(LAST, save_on_train_epoch_end=True)

    @property
    def state_key(self) -> str:
        # The name by which older checkpoints know it.
        return super().state_key.replace(type(self).__qualname__, "ModelCheckpoint", 1)
