"""Runs that begin with the weights of a checkpoint: fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lightning_sparse_rnn.checkpoints.fits import check_fits
from lightning_sparse_rnn.checkpoints.reading import find_last_good, load_checkpoint
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.folder import BEST, CHECKPOINTS, LAST
from lightning_sparse_rnn.utilities.making import make

__all__ = ["InitialWeights", "initial_weights"]

# A network that was trained densely has hardly a weight that is exactly zero.
_SPARSE_FROM = 0.01
# Options of a text that say which words it has, and what leaves that open.
_OF_VOCABULARIES = {"min_count": 1, "max_vocabulary": None}
# Allocations that look at what the weights are worth, and draw nothing.
_BY_WORTH = ("nonzero", "snip")
# What says how a new topology begins.
_OF_NEW = ("sparsity", "allocation", "initial_sparsity", "initial_scale")


def initial_weights(config: DictConfig, folder: Path) -> InitialWeights | None:
    """Return what a run is to begin with, or has begun with: ``None`` if its weights are drawn at random.

    Args:
        config: the run's. ``init_from`` names a checkpoint, or the folder of a run, of which it is the best one.
        folder: the run's. Once it has a checkpoint of its own, that is read, and the other need not be there any more.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, or holds other objects than tensors and plain values.
    """
    if config.get("init_from") is None:
        return None
    own = find_last_good(folder / CHECKPOINTS)
    given = Path(config.init_from)
    if own is None and given.is_dir() and not (given / BEST).exists():
        raise FileNotFoundError(
            f"Expected init_from to be the folder of a run with a {BEST}, or a checkpoint, got {given}, which has "
            f"none. A run has it once an epoch has been validated; {given / LAST}, if it is there, is the last epoch's."
        )
    path = own or (given / BEST if given.is_dir() else given)
    return InitialWeights(path, load_checkpoint(path), begins=own is None)


@dataclass(frozen=True)
class InitialWeights:
    """A checkpoint, and what a run takes from it. Nothing that the file names is made.

    Args:
        path: of the file.
        saved: what is in it.
        begins: whether the run begins with it. If not, it is the run's own, and the Trainer loads weights and topology.
    """

    path: Path
    saved: Mapping[str, Any]
    begins: bool

    def read(self, data: Any) -> None:
        """Let ``data`` read its text with the vocabulary that the weights are of.

        Raises:
            ValueError: the checkpoint has none, or its tokens are of another kind.
        """
        if not isinstance(data, TextDataModule):
            return  # shapes will show whether it fits
        vocabulary, _ = TextDataModule.vocabulary_in(self.saved)
        if vocabulary is None:
            raise ValueError(
                f"{self.path} has no vocabulary, without which its weights say nothing: it was written before "
                "checkpoints had one, or outside of sparse-rnn-train."
            )
        data.read_with(vocabulary)
        unused = [name for name, usual in _OF_VOCABULARIES.items() if data.hparams[name] != usual]
        if unused and self.begins:
            options = " and ".join(f"data.{name}" for name in unused)
            rank_zero_info(f"The vocabulary is that of {self.path}, without regard to {options}.")
        shares = [f"{share:.1%} of the {part} text" for part, share in data.unknown_shares.items() if share]
        if shares and self.begins:
            called = data.vocabulary.called.capitalize()
            rank_zero_info(f"{called} that {self.path} does not know are read as <unk>: {', '.join(shares)}.")

    def method(self, method: DictConfig) -> Any:
        """Make the method's callback with the checkpoint's topology: its masks, or else the weights that are not zero.

        Raises:
            ValueError: the checkpoint is dense and the method would draw which weights to keep, or it is sparse and the
                method begins with another sparsity.
        """
        target = str(method["_target_"])
        state = self.saved.get("callbacks", {}).get(target.rpartition(".")[2])
        ramped = method.get("initial_sparsity") is not None
        if not self.begins:
            made_with = {} if ramped or not state else {"sparsity": state["options"]["sparsity"]}
            if made_with and state["options"]["allocation"] == "nonzero":
                made_with["allocation"] = "nonzero"
            return make(method, **made_with)
        if not state and not _is_sparse(self.saved["state_dict"]):
            if method.get("initial_sparsity") != 0 and method.get("allocation") not in _BY_WORTH:
                raise ValueError(
                    f"The weights in {self.path} are dense, and this method draws at random which of them to keep. "
                    "Expected method=gmp, which prunes the smallest step by step, method=snip, or method=dense."
                )
            return make(method)
        if ramped:
            raise ValueError(
                f"The weights in {self.path} are sparse already, and this method begins with "
                f"initial_sparsity={method.initial_sparsity}. Expected a method that keeps the sparsity, such as "
                "method=selfish or method=static."
            )
        rank_zero_info(
            "The topology is that of the checkpoint."
            if state
            else f"{self.path.name} holds weights alone: those that are not zero are live."
        )
        if not state:
            return make(method, allocation="nonzero")
        options = {str(key): value for key, value in method.items() if key not in ("_target_", *_OF_NEW)}
        return make({"_target_": f"{target}.from_checkpoint", "path": str(self.path), **options})

    def load(self, model: pl.LightningModule) -> None:
        """Put the checkpoint's weights into ``model``, where the run begins with them.

        Raises:
            ValueError: they are of another network; the message says which options make it that one.
        """
        if not self.begins:
            return
        try:
            check_fits(self.saved, model)
        except ValueError as error:
            raise ValueError(f"{error}{self._hint(model)}") from None
        model.load_state_dict(self.saved["state_dict"])
        rank_zero_info(f"The run begins with the weights of {self.path}.")

    def _hint(self, model: pl.LightningModule) -> str:
        theirs = self.saved.get("hyper_parameters", {}).get("network")
        ours = model.hparams.get("network")
        if not isinstance(theirs, Mapping) or not isinstance(ours, Mapping):
            return ""
        here = dict(flat(ours))
        other = [f"model.network.{key}={value}" for key, value in flat(theirs) if here.get(key) != value]
        return f" Its options are {' '.join(other)}." if other else ""


def _is_sparse(weights: Mapping[str, Any]) -> bool:
    matrices = [each for each in weights.values() if isinstance(each, Tensor) and each.dim() > 1]
    live = [(int(each.count_nonzero()), each.numel()) for each in matrices]
    # A tensor that is zero as a whole was made so.
    total = sum(size for count, size in live if count)
    return total - sum(count for count, _ in live) > _SPARSE_FROM * total
