"""The picture of a run, drawn while it goes on and again when it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.runs.companions import companion
from lightning_sparse_rnn.runs.folder import PICTURE
from lightning_sparse_rnn.runs.record import RunRecord
from lightning_sparse_rnn.runs.results import unigram_of
from lightning_sparse_rnn.utilities.extras import extra
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["RunPicture", "draw_picture", "in_two_lines"]

# Drawing takes at most this share of the time of training. Until one has been drawn, a picture is taken to need so
# many seconds.
_SHARE, _SECONDS = 0.01, 0.6
_NAMED = ("method", "experiment", "data", "model", "optimizer")
_VALUES = {
    "method.sparsity": "sparsity",
    "method.weights_of_sparsity": "as small as at sparsity",
    "method.prune_rate": "prune rate",
    "method.initial_scale": "initial scale",
    "optimizer.lr": "lr",
    "model.network.num_layers": "layers",
    "model.network.hidden_size": "hidden",
    "model.network.dropout": "dropout",
    "data.batch_size": "batch",
    "data.bptt": "bptt",
}


def in_two_lines(config: DictConfig) -> str:
    """Say what a run's config is about: the names of what was chosen, and below them the values that matter most."""
    chosen = config.get("chosen") or {}
    names = [str(chosen[group]) for group in _NAMED if chosen.get(group)]
    found = {word: OmegaConf.select(config, key) for key, word in _VALUES.items()}
    values = ", ".join(f"{word} {value}" for word, value in found.items() if value not in (None, ""))
    return "\n".join(line for line in (" · ".join([*names, f"seed {config.seed}"]), values) if line)


class RunPicture(Checkpoint):
    """Draws ``run.png`` anew at the ends of epochs, as often as takes no more than a hundredth of training's time.

    A picture that fails is said once and not tried again: no run ends by it. The callback is a ``Checkpoint`` because
    Lightning calls those last at an epoch's end; list it after the ``RunRecord``.

    Args:
        about: lines that say what run it is.
    """

    def __init__(self, about: str) -> None:
        self._about = about
        self._known: dict[str, Any] = {}  # of its results
        self._next: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._known = {"unigram_ppl": unigram_of(getattr(trainer, "datamodule", None))}
        self._next = time.monotonic() + _SECONDS / _SHARE

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = time.monotonic()
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs  # with a picture of its own
        record = companion(trainer, RunRecord)
        if self._next is None or began < self._next or ends or record is None:
            return
        try:
            sparse = companion(trainer, SelfishSparseCallback)
            draw_picture(Path(trainer.default_root_dir), record, self._about, self._known, sparse)
        except Exception as error:
            rank_zero_info(f"{PICTURE} is not drawn while training goes on: {error}")
            self._next = None
        else:
            ended = time.monotonic()
            self._next = ended + (ended - began) / _SHARE


def draw_picture(
    folder: Path,
    record: RunRecord,
    about: str,
    results: Mapping[str, Any],
    sparse: SelfishSparseCallback | None = None,
) -> Any:
    """Draw ``run.png`` into a run's folder, whole or not at all, and return the figure.

    Args:
        folder: the run's.
        record: what has been recorded of it.
        about: lines that say what run it is.
        results: what is known of its results, by the names in ``results.json``.
        sparse: has the topology that is drawn as the last one; ``None`` takes the last that was kept.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    with extra("report", f"The picture {PICTURE}"):
        from matplotlib import rc_context

        from lightning_sparse_rnn.runs.mask_picture import shown_matrix, views
        from lightning_sparse_rnn.runs.picture import ONE_SIZE, draw_run
    topology = record.topology_rows()
    now, shown = None, shown_matrix(topology)
    if sparse is not None and shown is not None:
        mask = sparse.topology.masks[sparse.topology.parameters[shown[0]]]
        now = len(record.rows), {shown[0]: mask.bool().cpu().numpy()}
    with rc_context(ONE_SIZE), replacing(folder / PICTURE) as file:
        figure = draw_run(record.rows, topology, about=about, results=results, masks=views(folder, topology, now))
        figure.savefig(file, format="png", dpi=150)
    return figure
