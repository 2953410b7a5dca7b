"""The tables a run leaves behind, and what they need to survive an interruption."""

from __future__ import annotations

import csv
import io
import math
import operator
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_sparse_rnn.callbacks.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.runs.companions import companion
from lightning_sparse_rnn.runs.folder import CONFIG, METRICS, TOPOLOGY, masks_after, masks_at_start
from lightning_sparse_rnn.sparsity.mask_files import save_masks
from lightning_sparse_rnn.utilities.whole_files import write_csv, write_text

__all__ = ["ConfigFile", "RunRecord"]

_KEPT_TOPOLOGIES = 10
_METRICS = ("epoch", "step", "train_loss", "train_ppl", "val_loss", "val_ppl", "lr", "averaging", "sparsity", "seconds")
_TOPOLOGY = (
    "update",
    "epoch",
    "step",
    "rate",
    "tensor",
    "gate",
    "total",
    "live",
    "density",
    "pruned",
    "regrown",
    "explored",
)


class ConfigFile(Callback):
    """Writes ``config.yaml`` when training begins: what could not even be made is no run to go on with, or to report.

    Args:
        folder: where the file goes; it must exist.
        config: what stands in it.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self._folder = folder
        self._config = config

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        write_text(self._folder / CONFIG, self._config)


class RunRecord(Checkpoint):
    """Writes ``metrics.csv``, one row per epoch, ``topology.csv``, one row per update, tensor and gate, and ``masks/``.

    The files go to the Trainer's ``default_root_dir``, which must exist. In ``metrics.csv`` the column ``averaging`` is
    1 where averaged weights were validated.

    The rows are part of every checkpoint, so that a resumed run's tables are those of a run that was not interrupted.
    It is a ``Checkpoint`` because Lightning calls those last at an epoch's end, when the metrics are complete; list it
    before the callbacks that save the model.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._folder = Path()
        self._topology: SelfishSparseCallback | None = None
        self._written: list[dict[str, Any]] = []  # the updates whose rows this session has written
        self._averaging: NonMonotonicAveraging | None = None
        self._seconds_before = 0.0
        self._started: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder, self._written = Path(trainer.default_root_dir), []
        self._topology = companion(trainer, SelfishSparseCallback)
        self._averaging = companion(trainer, NonMonotonicAveraging)

    @property
    def seconds(self) -> float:
        """Training time so far in seconds, validation included, summed over all sessions.

        What was spent on steps that an interruption lost does not count.
        """
        return self._seconds_before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows], "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._seconds_before = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.rows or self._topology is None or masks_at_start(self._folder).exists():
            return
        # Not before the first step, which some methods allocate their masks in.
        if not self._topology.topology.awaits_gradients and not self._has_moved:
            self._save_masks(masks_at_start(self._folder))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name in _METRICS}
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                **metrics,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "averaging": int(self._averaging is not None and self._averaging.validates_averages),
                "sparsity": 0.0 if self._topology is None else self._topology.topology.sparsity,
                "seconds": round(self.seconds, 3),
            }
        )
        # What Lightning itself does not log; how sparse a sparse run is, its own callback does.
        row = self.rows[-1]
        logged = {"lr": row["lr"], "averaging": row["averaging"]}
        if self._topology is None:
            logged["sparsity/overall"] = row["sparsity"]
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step - 1)
        self._write()
        if self._topology is not None:
            self._keep_masks(trainer)

    @property
    def _has_moved(self) -> bool:
        """Whether the topology is another than the one that the run began with."""
        return self._topology is not None and len(self._topology.updates) > 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds_before, self._started = self.seconds, None

    def topology_rows(self) -> list[dict[str, Any]]:
        """Return the rows of ``topology.csv``; those of update 0 are the topology the run began with."""
        if self._topology is None:
            return []
        return list(_topology_rows(self._topology.updates, self._topology.topology.gate_sizes))

    def _keep_masks(self, trainer: Trainer) -> None:
        """Keep about ten of the run's topologies, and the last: for distances between them."""
        epochs = _epochs(trainer)
        every = max(1, math.ceil(epochs / _KEPT_TOPOLOGIES))
        last = trainer.current_epoch == epochs - 1
        if trainer.current_epoch % every == 0 or last:
            self._save_masks(masks_after(self._folder, trainer.current_epoch))
        if trainer.current_epoch == 0 and not self._has_moved:  # updates go by epochs, and it has just been kept
            self._remove_start()

    @rank_zero_only
    def _save_masks(self, path: Path) -> None:
        assert self._topology is not None
        topology = self._topology.topology
        path.parent.mkdir(exist_ok=True)
        save_masks(path, {name: topology.masks[parameter] for name, parameter in topology.parameters.items()})

    @rank_zero_only
    def _remove_start(self) -> None:
        masks_at_start(self._folder).unlink(missing_ok=True)

    @rank_zero_only
    def _write(self) -> None:
        write_csv(self._folder / METRICS, _METRICS, self.rows)
        if self._topology is not None:
            self._write_topology(self._topology)

    def _write_topology(self, topology: SelfishSparseCallback) -> None:
        """Add the updates that this session has not written yet; in a session's beginning, write all there are.

        So a long run does not write its whole history each epoch, and a resumed one has no rows of what was lost.
        """
        path, updates, before = self._folder / TOPOLOGY, topology.updates, len(self._written)
        if before and path.exists() and all(map(operator.is_, updates, self._written)) and len(updates) >= before:
            text = io.StringIO(newline="")
            rows = _topology_rows(updates[before:], topology.topology.gate_sizes)
            csv.DictWriter(text, _TOPOLOGY, lineterminator="\n").writerows(rows)
            with path.open("a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
        else:
            write_csv(path, _TOPOLOGY, self.topology_rows())
        self._written = list(updates)


def _epochs(trainer: Trainer) -> int:
    """Return after how many epochs training ends, as far as that can be told at the end of one of them; 0 if never."""
    ends = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs]
    if trainer.max_steps != -1 and trainer.global_step:
        ends.append(math.ceil(trainer.max_steps * (trainer.current_epoch + 1) / trainer.global_step))
    return min(ends, default=0)


def _topology_rows(
    updates: Sequence[dict[str, Any]], sizes: Mapping[str, Mapping[str, int]]
) -> Iterator[dict[str, Any]]:
    for update in updates:
        for tensor, gates in update["live"].items():
            for gate, live in gates.items():
                total = sizes[tensor][gate]
                yield {
                    **{name: update[name] for name in ("update", "epoch", "step", "rate")},
                    "tensor": tensor,
                    "gate": gate,
                    "total": total,
                    "live": live,
                    "density": live / total,
                    "pruned": update["pruned"][tensor][gate],
                    "regrown": update["regrown"][tensor][gate],
                    "explored": update["explored"][tensor][gate],
                }
