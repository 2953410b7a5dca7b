"""The picture of a run, drawn from its folder's tables and again while it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from lightning_sparse_rnn.runs.companions import companion
from lightning_sparse_rnn.runs.folder import PICTURE, kept_masks, masks_at_start
from lightning_sparse_rnn.runs.record import RunRecord
from lightning_sparse_rnn.runs.results import unigram_of
from lightning_sparse_rnn.sparsity.mask_files import load_masks
from lightning_sparse_rnn.utilities.extras import extra
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["RunPicture", "draw_picture"]

# Drawing takes at most this share of a run's time, and the first picture comes after so many seconds.
_SHARE, _FIRST_AFTER = 0.01, 30.0


class RunPicture(Checkpoint):
    """Draws ``run.png`` anew at the end of epochs, as often as takes no more than a hundredth of the run's time.

    A picture that fails is said and not tried again: no run ends by it. It is a ``Checkpoint`` because Lightning calls
    those last at an epoch's end; list it after the ``RunRecord``.

    Args:
        about: what run it is, in one line.
    """

    def __init__(self, about: str) -> None:
        self._about = about
        self._unigram: float | None = None
        self._next: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unigram = unigram_of(getattr(trainer, "datamodule", None))
        self._next = time.monotonic() + _FIRST_AFTER

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = time.monotonic()
        if self._next is None or began < self._next:
            return
        record = companion(trainer, RunRecord)
        assert record is not None
        try:
            draw_picture(Path(trainer.default_root_dir), record, self._about, self._unigram)
        except Exception as error:
            rank_zero_info(f"{PICTURE} is not drawn while training: {error}")
            self._next = None
        else:
            ended = time.monotonic()
            self._next = ended + (ended - began) / _SHARE


def draw_picture(
    folder: Path, record: RunRecord, about: str, unigram: float | None = None, test: float | None = None
) -> Any:
    """Draw ``run.png`` into a run's folder, whole or not at all, and return the figure.

    Args:
        folder: the run's folder.
        record: what has been recorded of it.
        about: what run it is, in one line.
        unigram: test perplexity of a unigram model.
        test: the run's test perplexity, once it is known.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    with extra("report", f"The picture {PICTURE}"):
        from lightning_sparse_rnn.runs.picture import draw_run
    start, kept = masks_at_start(folder), kept_masks(folder)
    shown = [("at the start", start)] if start.exists() else []
    if kept:
        shown.append((f"after epoch {kept[-1][0]}", kept[-1][1]))
    try:
        masks = [(which, load_masks(path)) for which, path in shown]
    except ValueError:  # a damaged file costs this part of the picture alone
        masks = []
    figure = draw_run(record.rows, record.topology_rows(), masks, about=about, unigram=unigram, test=test)
    with replacing(folder / PICTURE) as file:
        figure.savefig(file, format="png", dpi=150)
    return figure
