"""Text as token ids: the vocabulary, the three parts of a corpus, and their cache on disk."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sparse_rnn.data.texts import EOS, UNKNOWN, Texts
from lightning_sparse_rnn.data.tokens import CALLED, TOKENS, Pieces, choose, join, learn_pieces, split
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["Corpus", "Vocabulary", "cached_corpus", "unigram_perplexity"]

# Part of every cache key: raise it when tokenisation or the layout of the cache changes.
_CACHE_FORMAT = 1

#: How many pieces of words there are if nothing else is said.
BPE_SIZE = 8000


class Vocabulary:
    """A two-way table between tokens and the ids 0, 1, 2, …

    `<unk>` is id 0 and `<eos>` id 1, in the text or not; the other tokens follow in the order given.

    Args:
        tokens: the tokens; repetitions are allowed and count once.
        kind: how text is cut into them: "words", "characters" or "bpe".
        pieces: with "bpe", the pieces of words that `learn_pieces` found.

    Examples:
        >>> from lightning_sparse_rnn.data import Vocabulary
        >>> vocabulary = Vocabulary.from_text("to be or not to be")
        >>> vocabulary.tokens
        ('<unk>', '<eos>', 'to', 'be', 'or', 'not')
        >>> vocabulary.encode("to sleep").tolist()
        [2, 0, 1]
    """

    def __init__(self, tokens: Iterable[str], kind: str = "words", pieces: Pieces | None = None) -> None:
        self.tokens: tuple[str, ...] = tuple(dict.fromkeys((UNKNOWN, EOS, *tokens)))
        self.kind, self.pieces = kind, pieces
        self._ids = {token: index for index, token in enumerate(self.tokens)}

    @classmethod
    def from_text(
        cls, text: str, kind: str = "words", min_count: int = 1, max_vocabulary: int | None = None
    ) -> Vocabulary:
        """The vocabulary of `text`, in order of first appearance.

        Args:
            text: the training text.
            kind: how it is cut: "words", "characters" or "bpe".
            min_count: how often a word or character must be there to be known. Pieces all are.
            max_vocabulary: how many tokens to know at most. None: all, or `BPE_SIZE` pieces.
        """
        if kind == "bpe":
            pieces = learn_pieces(text, BPE_SIZE if max_vocabulary is None else max_vocabulary)
            return cls(pieces.tokens, kind, pieces)
        return cls(choose(split(text, kind), min_count, max_vocabulary), kind)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary whose `state` was saved.

        Raises:
            ValueError: if it is none.
        """
        try:
            tokens, kind, model = state["tokens"], state["kind"], state["pieces"]
            if kind not in TOKENS or not all(type(token) is str for token in tokens):
                raise ValueError(f"it is of the kind {kind!r}, or has tokens that are no text")
            return cls(tokens, kind, None if model is None else Pieces(model))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Expected a vocabulary as it was saved, got another thing: {error}.") from error

    @property
    def state(self) -> dict[str, Any]:
        """All that it takes to read and write text, in plain values."""
        model = None if self.pieces is None else self.pieces.model
        return {"tokens": list(self.tokens), "kind": self.kind, "pieces": model}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.tokens)

    @property
    def called(self) -> str:
        """What messages call its tokens: words, characters or pieces of words."""
        return CALLED[self.kind]

    @property
    def fingerprint(self) -> str:
        """Equal for vocabularies of the same tokens with the same ids, cut in the same way, and for no others."""
        parts = ["\n".join(self.tokens)]
        if self.kind != "words":
            parts += [self.kind, "" if self.pieces is None else self.pieces.model]
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    def id(self, token: str) -> int:
        """The id of `token`; that of `<unk>` for a token not in the vocabulary."""
        return self._ids.get(token, 0)

    def split(self, text: str) -> list[str]:
        """`text` in tokens, known or not, with one `<eos>` for each line."""
        return split(text, self.kind, self.pieces)

    def encode(self, text: str) -> Tensor:
        """`text` as ids: 1-D, int64, one `<eos>` for each line."""
        tokens = self.split(text)
        ids = self._ids
        return torch.from_numpy(np.fromiter((ids.get(token, 0) for token in tokens), dtype=np.int64, count=len(tokens)))

    def decode(self, ids: Tensor) -> str:
        """Text of a 1-D tensor of ids: words with one space between them, a line break for `<eos>`.

        `decode(encode(text))` is `text`, but for unknown tokens, written `<unk>`, a line break at its end, and, where
        tokens are words, white space made uniform.
        """
        return "".join(self.pieces_of_text(ids.tolist()))

    def pieces_of_text(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids, in parts as they come."""
        return join((self.tokens[index] for index in ids), self.kind, self.pieces)


@dataclass(frozen=True, eq=False)
class Corpus:
    """A vocabulary and three texts in its ids, each a 1-D int64 tensor.

    Examples:
        >>> from lightning_sparse_rnn.data import Corpus
        >>> from lightning_sparse_rnn.data.texts import Texts
        >>> corpus = Corpus.from_texts(Texts(train="to be or not to be", valid="to be", test="to sleep"))
        >>> corpus.train.tolist(), corpus.test.tolist()
        ([2, 3, 4, 5, 2, 3, 1], [2, 0, 1])
    """

    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor

    @classmethod
    def from_texts(cls, texts: Texts, **options: Any) -> Corpus:
        """Encode three texts with the vocabulary of the training text alone.

        Args:
            texts: the texts.
            options: how they are cut, and which tokens are known; see `Vocabulary.from_text`.
        """
        vocabulary = Vocabulary.from_text(texts.train, **options)
        return cls(vocabulary, *(vocabulary.encode(text) for text in texts))

    @cached_property
    def trained_on(self) -> str:
        """Equal for corpora of the same ids in training and validation text, and for no others."""
        digest = hashlib.blake2b(digest_size=16)
        for ids in (self.train, self.valid):
            digest.update(f"{len(ids)} ".encode() + ids.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def unknown_shares(self) -> dict[str, float]:
        """Of each text, the share of tokens that are `<unk>`."""
        texts = {part: getattr(self, part) for part in Texts._fields}
        return {part: int((ids == 0).sum()) / max(1, len(ids)) for part, ids in texts.items()}

    def with_train_lines(self, lines: int) -> Corpus:
        """The same corpus with the first `lines` lines of its training text; the vocabulary stays.

        Raises:
            ValueError: if the training text has fewer lines.
        """
        ends = (self.train == self.vocabulary.id(EOS)).nonzero().flatten()
        if not 1 <= lines <= len(ends):
            raise ValueError(
                f"Expected `train_lines` between 1 and the {len(ends)} lines of the training text, got {lines}."
            )
        return replace(self, train=self.train[: int(ends[lines - 1]) + 1])


def cached_corpus(texts: Texts, folder: Path, **options: Any) -> Corpus:
    """The corpus of `texts`, tokenised once and from then on read from `folder`.

    `options` are those of `Vocabulary.from_text`.

    The file's name holds a hash of the texts and of the cache's format, so a file is never out of date, only
    unused. It is whole or not there, so processes may share the folder. A file that cannot be read is made
    anew, and a folder that cannot be written to is done without, both with a warning.
    """
    path = folder / f"corpus-{_content_key(texts, options)}.pt"
    if path.exists():
        try:
            return _read(path)
        except Exception as error:  # whatever a damaged file can raise: the text itself is at hand
            warnings.warn(
                f"The tokenised corpus {path} cannot be read ({error}). Tokenising the text again.", stacklevel=2
            )
    corpus = Corpus.from_texts(texts, **options)
    try:
        _write(corpus, path)
    except OSError as error:
        warnings.warn(f"The tokenised corpus cannot be kept: {error}. Set `cache_dir`.", stacklevel=2)
    return corpus


def _content_key(texts: Texts, options: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(f"format {_CACHE_FORMAT}".encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    if options:
        digest.update(repr(sorted(options.items())).encode())
    return digest.hexdigest()[:32]


def _write(corpus: Corpus, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        **corpus.vocabulary.state,
        # Half the bytes of int64, and no vocabulary passes 2**31.
        **{part: getattr(corpus, part).to(torch.int32) for part in Texts._fields},
    }
    with replacing(path) as file:
        torch.save(state, file)


def _read(path: Path) -> Corpus:
    state = torch.load(path, weights_only=True)
    vocabulary = Vocabulary.from_state({"kind": "words", "pieces": None, **state})  # written before there were others
    parts = [state[part].to(torch.int64) for part in Texts._fields]
    if any(part.dim() != 1 or ((part < 0) | (part >= len(vocabulary))).any() for part in parts):
        raise ValueError("its ids do not fit its vocabulary")
    return Corpus(vocabulary, *parts)


def unigram_perplexity(train_ids: Tensor, test_ids: Tensor, vocab_size: int) -> float:
    """Test perplexity of add-one smoothed token frequencies: what a model that ignores context reaches.

    p(v) = (count of v in `train_ids` + 1) / (len(`train_ids`) + `vocab_size`)

    Args:
        train_ids: 1-D int64, the text that is counted.
        test_ids: 1-D int64, the text that is predicted, at least one token.
        vocab_size: number of different ids.

    Raises:
        ValueError: if `test_ids` is empty.

    Examples:
        >>> import torch
        >>> from lightning_sparse_rnn.data import unigram_perplexity
        >>> unigram_perplexity(torch.tensor([0, 0, 1]), torch.tensor([0]), vocab_size=2)  # p(0) = (2 + 1)/(3 + 2)
        1.666...
    """
    if test_ids.numel() == 0:
        raise ValueError("Expected at least one token in `test_ids`, got none.")
    counts = torch.bincount(train_ids, minlength=vocab_size).double() + 1
    log_probabilities = (counts / counts.sum()).log()
    return float((-log_probabilities[test_ids].mean()).exp())
