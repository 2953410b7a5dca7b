"""What a run shows while it trains: a bar in a terminal, and one line per epoch elsewhere."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, TQDMProgressBar
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_sparse_rnn.callbacks.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.runs.companions import companion
from lightning_sparse_rnn.utilities.counting import counted
from lightning_sparse_rnn.utilities.durations import duration, rough_duration

__all__ = ["EpochLines", "PerplexityProgressBar", "TimeLeft"]

_SECONDS = 2.0


class PerplexityProgressBar(TQDMProgressBar):
    """One bar per epoch, which stays, with perplexities, the sparsity, and the epochs and the time that are left.

    Args:
        refresh_rate: after how many batches it is drawn again. Where they are slow, it is after two seconds.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._left = TimeLeft()
        self._drawn = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._left.begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        epochs = trainer.max_epochs or 0
        of_all = f" of {epochs}" if epochs > 0 else ""
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch + 1}{of_all}")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = {
            name.replace("_", " "): f"{value:.1f}" if isinstance(value, float) else value
            for name, value in super().get_metrics(trainer, pl_module).items()
            if name != "v_num"
        }
        sparse = companion(trainer, SelfishSparseCallback)
        if sparse is not None:
            metrics["sparsity"] = f"{sparse.topology.sparsity:.1%}"
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        if left := self._left.said(trainer, batches.processed / max(1.0, trainer.num_training_batches)):
            metrics["left"] = left
        return metrics

    def _should_update(self, current: int, total: int) -> bool:
        # Of a large network on a CPU twenty batches take minutes, in which a bar that stands still looks broken.
        now = time.monotonic()
        late = self.is_enabled and now - self._drawn >= _SECONDS
        if due := late or super()._should_update(current, total):
            self._drawn = now
        return due


class EpochLines(Checkpoint):
    """One plain line per epoch, for logs that nobody watches: perplexities, sparsity, and what is left.

    It is a ``Checkpoint`` because Lightning calls those last at an epoch's end, when the metrics are complete.
    """

    def __init__(self) -> None:
        self._left = TimeLeft()
        self._epoch_began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._left.begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began = time.monotonic()

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = trainer.callback_metrics
        averaging, sparse = companion(trainer, NonMonotonicAveraging), companion(trainer, SelfishSparseCallback)
        names = [name for name in ("train_ppl", "val_ppl") if name in logged]
        parts = [f"{name.replace('_', ' ')} {float(logged[name]):.2f}" for name in names]
        if averaging is not None and averaging.validates_averages and "val_ppl" in names:
            parts[-1] += " (averaged weights)"
        if sparse is not None:
            parts.append(f"sparsity {sparse.topology.sparsity:.1%}")
        parts.append(duration(time.monotonic() - self._epoch_began))
        done, epochs = trainer.current_epoch + 1, trainer.max_epochs
        how_many = f"{done} of {counted(epochs, 'epoch')}" if epochs and epochs > 0 else counted(done, "epoch")
        left = self._left.said(trainer, 1.0)
        print(f"After {how_many}: {', '.join(parts)}{left and f'; {left} left'}", flush=True)


class TimeLeft:
    """How much of a run is left, by what this session of it has taken so far."""

    def __init__(self) -> None:
        self._began = 0.0
        self._share = 0.0

    def begin(self, trainer: Trainer) -> None:
        """Take note that training begins, or goes on."""
        self._began, self._share = time.monotonic(), _share(trainer, 0.0) or 0.0

    def said(self, trainer: Trainer, inside: float) -> str:
        """Return in words how many epochs come after this one, and the time until the end; nothing if that is unknown.

        Args:
            trainer: one that trains.
            inside: the share of its epoch that is done.
        """
        share = _share(trainer, inside)
        if share is None or share >= 1.0:
            return ""
        epochs = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        parts = [counted(epochs, "epoch")] if epochs > 0 else []
        if share > self._share:
            spent = time.monotonic() - self._began
            parts.append(rough_duration(spent * (1.0 - share) / (share - self._share)))
        return ", ".join(parts)


def _share(trainer: Trainer, inside: float) -> float | None:
    """Return the share of a run that is done, in [0, 1]; ``None`` where it has no end in epochs or steps."""
    shares = []
    if trainer.max_epochs and trainer.max_epochs > 0:
        shares.append((trainer.current_epoch + inside) / trainer.max_epochs)
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    return max(shares, default=None)
