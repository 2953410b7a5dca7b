"""How text is cut into tokens and put together again: by words, by characters, or by pieces of words."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lightning_sparse_rnn.data.texts import EOS, UNKNOWN
from lightning_sparse_rnn.utilities.extras import extra

__all__ = ["CALLED", "TOKENS", "Pieces", "choose", "join", "learn_pieces", "split", "tokenize"]

#: What tokens are called, by the way in which text is cut.
CALLED = {"words": "words", "characters": "characters", "bpe": "pieces of words"}
#: The ways to cut text.
TOKENS = tuple(CALLED)


def tokenize(text: str) -> list[str]:
    """The tokens of `text`: what stands between white space, and one `<eos>` for each line.

    A blank line is a line; a last line without a line break counts as one.
    """
    return _ended(text).replace("\n", f" {EOS} ").split()


def split(text: str, kind: str, pieces: Pieces | None = None) -> list[str]:
    """`text` in tokens, with one `<eos>` for each line.

    Args:
        text: any text.
        kind: "words", "characters", or "bpe", for which `pieces` says which there are.
        pieces: what `learn_pieces` found.
    """
    if kind == "words":
        return tokenize(text)
    if kind == "characters":
        return [EOS if character == "\n" else character for character in _ended(text)]
    assert pieces is not None
    return pieces.split(_ended(text))


def join(tokens: Iterable[str], kind: str, pieces: Pieces | None = None) -> Iterator[str]:
    """The text of tokens, in parts as they come: words with a space between them, and a line break for each `<eos>`."""
    if kind == "bpe":
        assert pieces is not None
        yield from pieces.join(tokens)
        return
    space = ""
    for token in tokens:
        if token == EOS:
            yield "\n"
            space = ""
        else:
            yield space + token
            space = " " if kind == "words" else ""


def choose(tokens: Sequence[str], min_count: int, max_vocabulary: int | None) -> list[str]:
    """The tokens to know, in order of first appearance; the others are to be `<unk>`.

    Args:
        tokens: those of the training text.
        min_count: how often one must be there.
        max_vocabulary: how many to know at most, the most frequent ones and of equals the earlier; `<unk>` and `<eos>`
            are always known, and count. None: all.
    """
    counts = Counter(tokens)
    for special in (UNKNOWN, EOS):
        counts.pop(special, None)
    known = [token for token, count in counts.most_common() if count >= min_count]
    if max_vocabulary is not None:
        known = known[: max(0, max_vocabulary - 2)]
    chosen = set(known)
    return [token for token in counts if token in chosen]


def learn_pieces(text: str, size: int) -> Pieces:
    """The pieces of words that a text is best written with (Sennrich et al. 2016), of bytes.

    Args:
        text: the training text.
        size: how many tokens there are to be, `<unk>` and `<eos>` among them; fewer where the text has not as many.

    Raises:
        ModuleNotFoundError: the package `tokenizers` is not installed.
        ValueError: there is no room for the 256 bytes.
    """
    if size < 256 + 2:
        raise ValueError(f"Expected `max_vocabulary` of at least 258 with pieces of words, got {size}.")
    library = _library()
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=size - 2, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(text.splitlines(), trainer)
    return Pieces(model.to_str())


class Pieces:
    """Pieces of words, found by byte-pair encoding.

    Args:
        model: what Hugging Face's `tokenizers` wrote, as JSON.

    Raises:
        ModuleNotFoundError: the package `tokenizers` is not installed.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._model = _library().Tokenizer.from_str(model)

    @property
    def tokens(self) -> list[str]:
        """All there are, in the order of their numbers."""
        numbers: dict[str, int] = self._model.get_vocab()
        return sorted(numbers, key=lambda token: numbers[token])

    def split(self, text: str) -> list[str]:
        """Text that ends with a line break in pieces, with one `<eos>` for each line."""
        lines = text.split("\n")[:-1]
        return [piece for line in self._model.encode_batch(lines) for piece in (*line.tokens, EOS)]

    def join(self, tokens: Iterable[str]) -> Iterator[str]:
        """The text of pieces, each part as soon as its last byte is there."""
        waiting: list[str] = []
        for token in tokens:
            if token in (EOS, UNKNOWN):
                yield self._text(waiting) + ("\n" if token == EOS else UNKNOWN)
                waiting = []
                continue
            waiting.append(token)
            if not (text := self._text(waiting)).endswith("\ufffd"):  # the sign for a character that is not whole
                yield text
                waiting = []
        yield self._text(waiting)

    def _text(self, tokens: list[str]) -> str:
        text: str = self._model.decoder.decode(tokens)
        return text


def _ended(text: str) -> str:
    return text + "\n" if text and not text.endswith("\n") else text


def _library() -> Any:
    with extra("bpe", "Text in pieces of words"):
        return importlib.import_module("tokenizers")
