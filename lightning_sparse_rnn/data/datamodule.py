"""The corpora as a LightningDataModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_sparse_rnn.data.batches import ColumnBatches
from lightning_sparse_rnn.data.corpus import Corpus, Vocabulary, cached_corpus
from lightning_sparse_rnn.data.lengths import SequenceLengths
from lightning_sparse_rnn.data.sources import check_source, default_cache_dir, load_texts
from lightning_sparse_rnn.utilities.checks import check_whole
from lightning_sparse_rnn.utilities.plain_values import plain
from lightning_sparse_rnn.utilities.trainer_state import next_batch

__all__ = ["TextDataModule"]

# So many times `bptt` steps are read at once in evaluation. Nothing depends on it but how often weights are laid out.
AT_ONCE_IN_EVALUATION = 4


class TextDataModule(pl.LightningDataModule):
    """Text for word-level language models, in time-major batches `(inputs, targets)` of shape (T, B).

    The training text is cut into `batch_size` columns per process, so a run on k processes with
    `batch_size=n` reads what one process with `batch_size=k * n` reads. Validation and test text are not
    split: every process evaluates all of it, so that all have the same metrics, and a number does not depend
    on how many processes computed it.

    A run resumed from a checkpoint of the middle of an epoch goes on with the next batch. Checkpoints know the
    vocabulary, and are refused beside text with another one.

    Args:
        source: "pydoc" (the language reference of the running Python; no download), "ptb", "wikitext-2" or
            "folder".
        root: folder that holds the files. "folder" needs one; "ptb" and "wikitext-2" are downloaded
            without one; "pydoc" has no files.
        batch_size: columns of the training text per process.
        eval_batch_size: columns of the validation text. Perplexity depends on it, a little: the state of
            every column starts from zero.
        test_batch_size: columns of the test text. None: as many as in validation.
        bptt: time steps of a batch, or the base of drawn lengths; evaluation reads `4 * bptt` steps at once.
        lengths: "fixed", or "drawn" for training lengths drawn at random about `bptt`; see `SequenceLengths`.
        max_extra: with drawn lengths: no batch is longer than `bptt + max_extra`. None: no limit.
        train_lines: train on the first lines only. The vocabulary is still that of the whole text.
        cache_dir: folder for downloads and tokenised text. None: the user's cache folder.
        seed: seed of the drawn lengths.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> from pathlib import Path
        >>> from lightning_sparse_rnn.data import TextDataModule
        >>> for part in ("train", "valid", "test"):
        ...     _ = Path(f"{part}.txt").write_text("to be or not to be" + chr(10))
        >>> data = TextDataModule("folder", ".", batch_size=1, eval_batch_size=1, bptt=3, cache_dir="cache")
        >>> data.vocab_size
        6
    """

    def __init__(
        self,
        source: str = "pydoc",
        root: str | Path | None = None,
        batch_size: int = 20,
        eval_batch_size: int = 20,
        test_batch_size: int | None = None,
        bptt: int = 35,
        lengths: str = "fixed",
        max_extra: int | None = None,
        train_lines: int | None = None,
        cache_dir: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_source(source, root)
        sizes = {
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "test_batch_size": test_batch_size,
            "train_lines": train_lines,
        }
        check_whole(**{name: size for name, size in sizes.items() if size is not None})
        self._train_lengths = SequenceLengths(bptt, lengths, max_extra, seed)
        self._eval_lengths = SequenceLengths(AT_ONCE_IN_EVALUATION * bptt)
        self._corpus: Corpus | None = None
        self.save_hyperparameters()
        # Checkpoints hold plain values only: no paths, and no numbers of NumPy.
        self.hparams.update({name: plain(value) for name, value in self.hparams.items()})

    @property
    def corpus(self) -> Corpus:
        """The text in ids; read when first asked for."""
        self.setup()
        assert self._corpus is not None
        return self._corpus

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the training text."""
        return self.corpus.vocabulary

    @property
    def vocab_size(self) -> int:
        """How many different ids there are."""
        return len(self.vocabulary)

    def prepare_data(self) -> None:
        """Download and tokenise what is not there yet, in one process; the others find it done."""
        self._read()

    def setup(self, stage: str | None = None) -> None:
        """Read the corpus, in every process."""
        if self._corpus is None:
            self._corpus = self._read()

    def train_dataloader(self) -> ColumnBatches:
        """This process's columns of the training text."""
        trainer = self.trainer
        return self._batches(
            "training",
            self.corpus.train,
            "batch_size",
            self._train_lengths,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            position=self._position if trainer is not None else None,
        )

    def val_dataloader(self) -> ColumnBatches:
        """The whole validation text, in every process."""
        return self._batches("validation", self.corpus.valid, "eval_batch_size", self._eval_lengths)

    def test_dataloader(self) -> ColumnBatches:
        """The whole test text, in every process."""
        own = self.hparams["test_batch_size"] is not None
        size = "test_batch_size" if own else "eval_batch_size"
        return self._batches("test", self.corpus.test, size, self._eval_lengths)

    def _batches(self, part: str, ids: Tensor, size: str, lengths: SequenceLengths, **options: Any) -> ColumnBatches:
        """A text in as many columns as the option `size` says; an error names both."""
        try:
            return ColumnBatches(ids, self.hparams[size], lengths, device=self._device, **options)
        except ValueError as error:
            raise ValueError(f"The {part} text, in columns by `{size}`: {error}") from error

    def state_dict(self) -> dict[str, Any]:
        """What makes a checkpoint's weights mean something: which word has which id."""
        return {"vocabulary": self.vocabulary.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make sure that a checkpoint is of this text.

        Raises:
            ValueError: if its vocabulary was another one.
        """
        if state_dict["vocabulary"] != self.vocabulary.fingerprint:
            where = self.hparams["root"] or self.hparams["source"]
            raise ValueError(
                f"Expected the text that this checkpoint was trained on, got one in which words have other ids: "
                f"{where} has changed since, or is another. Give the training text as it was."
            )

    @property
    def _device(self) -> torch.device | None:
        """The device of the trainer that reads: texts of language models are small beside its memory."""
        return self.trainer.strategy.root_device if self.trainer is not None else None

    def _read(self) -> Corpus:
        folder = Path(self.hparams["cache_dir"] or default_cache_dir()).expanduser()
        corpus = cached_corpus(load_texts(self.hparams["source"], self.hparams["root"], folder), folder)
        lines = self.hparams["train_lines"]
        return corpus if lines is None else corpus.with_train_lines(lines)

    def _position(self) -> tuple[int, int]:
        """The epoch and the batch in it that the trainer processes next."""
        assert self.trainer is not None
        return next_batch(self.trainer)
