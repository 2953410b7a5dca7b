"""The Python language reference as a corpus that every machine with Python already has."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Mapping

from lightning_sparse_rnn.data.texts import UNKNOWN, Texts

__all__ = ["language_reference", "split_topics"]

# A line of this many characters that two topics share makes one the copy of a part of the other.
_LONG_LINE = 40
# The lines drawn under headings and in tables.
_RULE = re.compile(r"(?m)^[ *=~^+|-]{3,}$")
# A group of topics with more than this share of all tokens is too large for valid or test.
_LARGE_GROUP = 0.04
_SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def language_reference() -> Texts:
    """The language reference that `help()` shows, as train, valid and test text.

    The texts are those of the running interpreter, the same at every call. A paragraph is a line; words and
    punctuation marks are tokens, in lower case; words seen once in train are written `<unk>`, as published
    corpora have it, so that a model learns to expect unknown words.

    Topics quote one another: "specialnames" holds all of "customization" and "attribute-access". So a topic
    whose long lines (40 characters and more) all stand in a larger one is left out, and topics that still
    share a long line stay on one side of the split: no long line of the reference is in two of the texts.

    Raises:
        FileNotFoundError: if this Python comes without its reference.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise FileNotFoundError(
            "Expected the language reference in the module `pydoc_data.topics`, which this Python lacks."
            " Install the whole standard library, or use another source."
        ) from error
    return split_topics(topics)


def split_topics(topics: Mapping[str, str]) -> Texts:
    """Texts by topic name as train, valid and test text, about 80/10/10 by tokens, overlaps kept together."""
    topics = {name: _RULE.sub("", text) for name, text in topics.items()}
    groups = [
        [paragraph for name in names for paragraph in _paragraphs(topics[name])]
        for names in _independent_groups(topics)
    ]
    sizes = [sum(map(len, group)) for group in groups]
    parts: dict[str, list[list[str]]] = {part: [] for part in _SHARES}
    filled = dict.fromkeys(_SHARES, 0)
    # Large groups first, and to train: each would be most of a smaller part. The rest goes in order of name,
    # each to the part that is furthest behind its share.
    large = [size > _LARGE_GROUP * sum(sizes) for size in sizes]
    for index in sorted(range(len(groups)), key=lambda index: not large[index]):
        part = "train" if large[index] else min(_SHARES, key=lambda part: filled[part] / _SHARES[part])
        parts[part] += groups[index]
        filled[part] += sizes[index]

    counts = Counter(token for paragraph in parts["train"] for token in paragraph)

    def line(paragraph: list[str]) -> str:
        return " ".join(UNKNOWN if counts[token] == 1 else token for token in paragraph) + "\n"

    return Texts(**{part: "".join(map(line, paragraphs)) for part, paragraphs in parts.items()})


def _independent_groups(topics: Mapping[str, str]) -> list[list[str]]:
    """Names of topics that share no long line across groups, those contained in others left out."""
    lines = {
        name: {line.strip() for line in text.splitlines() if len(line.strip()) >= _LONG_LINE}
        for name, text in topics.items()
    }
    kept: list[str] = []
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        if not any(lines[name] and lines[name] <= lines[other] for other in kept):
            kept.append(name)
    groups: list[tuple[set[str], list[str]]] = []  # the long lines of a group, and its topics
    for name in sorted(kept):
        shared, names = set(lines[name]), [name]
        for group in [group for group in groups if group[0] & lines[name]]:
            groups.remove(group)
            shared |= group[0]
            names = group[1] + names
        groups.append((shared, names))
    return [names for _, names in groups]


def _paragraphs(text: str) -> list[list[str]]:
    """The tokens of each paragraph."""
    paragraphs = (re.findall(r"\w+|[^\w\s]", block.lower()) for block in re.split(r"\n\s*\n", text))
    return [paragraph for paragraph in paragraphs if paragraph]
