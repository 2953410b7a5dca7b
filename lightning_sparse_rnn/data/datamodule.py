"""The corpora as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_sparse_rnn.data.batches import ColumnBatches
from lightning_sparse_rnn.data.corpus import Corpus, Vocabulary, cached_corpus
from lightning_sparse_rnn.data.lengths import SequenceLengths
from lightning_sparse_rnn.data.part_order import PartOrder
from lightning_sparse_rnn.data.sources import SHARES, check_shares, check_source, load_texts
from lightning_sparse_rnn.data.texts import EOS
from lightning_sparse_rnn.data.tokens import TOKENS
from lightning_sparse_rnn.utilities.caching import cache_folder
from lightning_sparse_rnn.utilities.checks import check_whole
from lightning_sparse_rnn.utilities.plain_values import plain
from lightning_sparse_rnn.utilities.trainer_state import next_batch

__all__ = ["TextDataModule"]

# So many times `bptt` steps are read at once in evaluation. Nothing depends on it but how often weights are laid out.
AT_ONCE_IN_EVALUATION = 4
# Share of a text from which on unknown tokens change its perplexity by a per cent or more. Where training never sees
# any, each costs ten nats at least, words and characters alike, and so 0.001 of them e^0.01 in perplexity.
_MANY_UNKNOWN, _MOSTLY = 0.001, 0.5


class TextDataModule(pl.LightningDataModule):
    """Text for language models, in time-major batches `(inputs, targets)` of shape (T, B).

    The training text is cut into `batch_size` columns per process, so a run on k processes with
    `batch_size=n` reads what one process with `batch_size=k * n` reads. Validation and test text are not
    split: every process evaluates all of it, so that all have the same metrics, and a number does not depend
    on how many processes computed it.

    A run resumed from a checkpoint of the middle of an epoch goes on with the next batch. Checkpoints have the
    vocabulary, and are refused beside text with another one.

    Args:
        source: "pydoc" (the language reference of the running Python; no download), "ptb", "wikitext-2" or
            "folder".
        root: folder that holds the files, or one file, which is then cut into three parts. "folder" needs one; "ptb"
            and "wikitext-2" are downloaded without one; "pydoc" has no files. Files may be compressed with gzip.
        batch_size: columns of the training text per process.
        eval_batch_size: columns of the validation text. Perplexity depends on it, a little: the state of
            every column starts from zero.
        test_batch_size: columns of the test text. None: as many as in validation.
        bptt: time steps of a batch, or the base of drawn lengths; evaluation reads `4 * bptt` steps at once.
        lengths: "fixed", or "drawn" for training lengths drawn at random about `bptt`; see `SequenceLengths`.
        max_extra: with drawn lengths: no batch is longer than `bptt + max_extra`. None: no limit.
        train_lines: train on the first lines only. The vocabulary is still that of the whole text.
        cache_dir: folder for downloads and tokenised text. None: the user's cache folder.
        seed: seed of the drawn lengths and orders.
        tokens: how text is cut: "words", which stand between white space; "characters"; or "bpe", pieces of words found
            by byte-pair encoding, for which the package `tokenizers` has to be installed.
        min_count: how often a word or character must be in the training text to be known; rarer ones are `<unk>`.
        max_vocabulary: how many tokens to know at most, the most frequent ones. With "bpe": how many pieces to find,
            None for 8000.
        shares: with one file, how much of it is training, validation and test text; None: 0.8, 0.1 and 0.1.
        shuffle_parts: cut the training text into so many contiguous parts, at least 2, and read them in another order
            in every epoch; see `PartOrder`. None: as it stands.

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
        tokens: str = "words",
        min_count: int = 1,
        max_vocabulary: int | None = None,
        shares: Sequence[float] | None = None,
        shuffle_parts: int | None = None,
    ) -> None:
        super().__init__()
        check_source(source, root)
        check_shares(shares or SHARES)
        if tokens not in TOKENS:
            raise ValueError(f"Expected `tokens` to be one of {', '.join(TOKENS)}, got {tokens!r}.")
        if tokens == "bpe" and min_count != 1:
            raise ValueError(f"Expected no `min_count` with pieces of words, got {min_count}. Set `max_vocabulary`.")
        sizes = {
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "test_batch_size": test_batch_size,
            "train_lines": train_lines,
            "min_count": min_count,
            "max_vocabulary": max_vocabulary,
        }
        check_whole(**{name: size for name, size in sizes.items() if size is not None})
        self._train_lengths = SequenceLengths(bptt, lengths, max_extra, seed)
        self._part_order = None if shuffle_parts is None else PartOrder(shuffle_parts, seed)
        self._eval_lengths = SequenceLengths(AT_ONCE_IN_EVALUATION * bptt)
        self._corpus: Corpus | None = None
        self._vocabulary: Vocabulary | None = None  # that of the training text, if it is none from elsewhere
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

    @property
    def unknown_shares(self) -> dict[str, float]:
        """Of "train", "valid" and "test", the share of tokens that are `<unk>`."""
        return self.corpus.unknown_shares

    @property
    def characters_per_token(self) -> dict[str, float]:
        """Of "valid" and "test", how many characters a token has, if tokens are no words; otherwise nothing."""
        if self.vocabulary.kind == "words":
            return {}
        texts = {"valid": self.corpus.valid, "test": self.corpus.test}
        if self.vocabulary.kind == "characters":  # also those that are written as <unk>
            return dict.fromkeys(texts, 1.0)
        return {part: len(self.vocabulary.decode(ids)) / max(1, len(ids)) for part, ids in texts.items()}

    def read_only(self, vocabulary: Vocabulary, test: str) -> None:
        """Take a test text alone, read with a vocabulary from elsewhere, such as a checkpoint's."""
        nothing = torch.zeros(0, dtype=torch.int64)
        self._corpus = Corpus(vocabulary, nothing, nothing, vocabulary.encode(test))

    def read_with(self, vocabulary: Vocabulary) -> None:
        """Read the texts with a vocabulary from elsewhere, such as a checkpoint's, and not with the training text's.

        Raises:
            ValueError: its tokens are of another kind than `tokens`.
        """
        if vocabulary.kind != self.hparams["tokens"]:
            raise ValueError(
                f"Expected a vocabulary of {self.hparams['tokens']}, as `tokens` says, got one of {vocabulary.kind}."
            )
        self._vocabulary, self._corpus = vocabulary, None

    def prepare_data(self) -> None:
        """Download and tokenise what is not there yet, in one process; the others find it done."""
        if self._corpus is None:
            self._read()

    def setup(self, stage: str | None = None) -> None:
        """Read the corpus, in every process."""
        if self._corpus is None:
            self._corpus = self._read()
            _warn_of_unknown(self._corpus)

    def train_dataloader(self) -> ColumnBatches:
        """This process's columns of the training text."""
        trainer = self.trainer
        return self._batches(
            "training",
            self.corpus.train,
            "batch_size",
            self._train_lengths,
            order=self._part_order,
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
        """What makes a checkpoint's weights mean something: which token has which id, and how text is cut.

        Beside that stands what the text is known by, and whether the vocabulary was given by :meth:`read_with`, if it
        was.
        """
        given = {} if self._vocabulary is None else {"vocabulary_given": True}
        known = {"vocabulary": self.vocabulary.fingerprint, "trained_on": self.corpus.trained_on}
        return {**known, "text": self.vocabulary.state, **given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make sure that a checkpoint is of this text.

        Raises:
            ValueError: if its vocabulary was another one; or a fit is to go on that began with another training or
                validation text.
        """
        where = self.hparams["root"] or self.hparams["source"]
        if state_dict["vocabulary"] != self.vocabulary.fingerprint:
            raise ValueError(
                "Expected the text that this checkpoint was trained on, got one in which "
                f"{self.vocabulary.called} have other ids: {where} has changed since, or is another. Give the training "
                "text as it was."
            )
        goes_on = self.trainer is not None and self.trainer.state.fn == "fit"
        if goes_on and state_dict.get("trained_on", self.corpus.trained_on) != self.corpus.trained_on:
            raise ValueError(
                f"Expected the text that this run began with: the training or validation text of {where} has changed "
                "since, or is another. Put it back as it was, or train on with these weights in a run of another name, "
                "begun with init_from=FOLDER."
            )

    @classmethod
    def vocabulary_in(cls, checkpoint: Mapping[str, Any]) -> tuple[Vocabulary | None, bool]:
        """Return the vocabulary that a checkpoint's weights are of, and whether it was given by :meth:`read_with`.

        Checkpoints of before they had one, or of other data, have ``None``.
        """
        state = checkpoint.get(cls.__qualname__, {})
        known = Vocabulary.from_state(state["text"]) if "text" in state else None
        return known, "vocabulary_given" in state

    @property
    def _device(self) -> torch.device | None:
        """The device of the trainer that reads: texts of language models are small beside its memory."""
        return self.trainer.strategy.root_device if self.trainer is not None else None

    def _read(self) -> Corpus:
        folder = Path(self.hparams["cache_dir"] or cache_folder()).expanduser()
        texts = load_texts(self.hparams["source"], self.hparams["root"], folder, self.hparams["shares"])
        if self.hparams["tokens"] != "characters" and (ends := texts.train.count(EOS)):
            rank_zero_warn(
                f"The training text has {ends} times {EOS}, which stands for a line's end and is added to each: the "
                f"model learns two where there is one. Remove {EOS} from the files."
            )
        options = {"kind": self.hparams["tokens"], **{n: self.hparams[n] for n in ("min_count", "max_vocabulary")}}
        # What is not asked for is no part of the cache's key, so that text tokenised long ago is found.
        if self._vocabulary is None:
            usual = {"kind": "words", "min_count": 1, "max_vocabulary": None}
            corpus = cached_corpus(texts, folder, **{n: v for n, v in options.items() if v != usual[n]})
        else:
            corpus = Corpus(self._vocabulary, *(self._vocabulary.encode(text) for text in texts))
        lines = self.hparams["train_lines"]
        return corpus if lines is None else corpus.with_train_lines(lines)

    def _position(self) -> tuple[int, int]:
        """The epoch and the batch in it that the trainer processes next."""
        assert self.trainer is not None
        return next_batch(self.trainer)


def _warn_of_unknown(corpus: Corpus) -> None:
    """Warn of `<unk>` in evaluation where training has none, and where most of the training text is nothing else."""
    shares, called = corpus.unknown_shares, corpus.vocabulary.called
    if shares["train"] >= _MOSTLY:
        rank_zero_warn(
            f"{shares['train']:.0%} of the training text is <unk>, and perplexity is mostly of that: the vocabulary "
            f"has {len(corpus.vocabulary) - 2} {called}. Look at data.min_count, data.max_vocabulary and the text."
        )
    if not shares["train"] and max(shares["valid"], shares["test"]) >= _MANY_UNKNOWN:
        rank_zero_warn(
            f"{called.capitalize()} that the training text does not have are {shares['valid']:.1%} of the validation "
            f"text and {shares['test']:.1%} of the test text. They are read as <unk>, which training never sees, and "
            f"perplexity rests on them. Let rare {called} of training be <unk> too: data.min_count=2 or "
            "data.max_vocabulary=N."
        )
