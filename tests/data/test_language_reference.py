import sys

import pytest

from lightning_sparse_rnn.data.corpus import Corpus
from lightning_sparse_rnn.data.language_reference import language_reference, split_topics
from lightning_sparse_rnn.data.texts import Texts

# Every number twice: a word seen once in train would be unknown.
LINES = [f"{number} is the number of this line, long enough to be looked at: {number}" for number in range(40)]
NUMBERS = list(map(str, range(40)))


def numbers(text: str) -> set[str]:
    return {token for token in text.split() if token in NUMBERS}


def test_is_the_same_at_every_call() -> None:
    assert language_reference() == language_reference()


def test_sizes() -> None:
    corpus = Corpus.from_texts(language_reference())
    sizes = {part: len(getattr(corpus, part)) for part in Texts._fields}
    total = sum(sizes.values())
    assert total > 50_000
    for part, share in {"train": 0.8, "valid": 0.1, "test": 0.1}.items():
        assert sizes[part] / total == pytest.approx(share, abs=0.04)
    # Unknown words are met in training, and do not make up the evaluation.
    unknown = [float((getattr(corpus, part) == 0).float().mean()) for part in Texts._fields]
    assert unknown[0] > 0.005
    assert max(unknown) < 0.1


def test_no_paragraph_is_in_two_of_the_texts() -> None:
    texts = language_reference()
    train, valid, test = ({line for line in text.splitlines() if len(line) >= 60} for text in texts)
    assert len(valid) > 50
    assert len(test) > 50
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_hardly_a_paragraph_stands_twice() -> None:
    paragraphs = [line for text in language_reference() for line in text.splitlines() if len(line) >= 60]
    assert len(set(paragraphs)) > 0.97 * len(paragraphs)


def test_a_topic_inside_another_is_left_out() -> None:
    inner = "\n".join(LINES[:10])
    texts = split_topics({"inner": inner, "outer": inner + "\n\n" + "\n".join(LINES[10:20]), "else": LINES[30]})
    tokens = " ".join(texts).split()
    assert tokens.count("line") == 21


def test_topics_that_share_a_line_stay_together() -> None:
    # A chain: a and b share a line, b and c another; d, e, f stand alone. Indentation does not matter.
    topics = {
        "a": "\n".join(LINES[0:6]),
        "b": "\n".join("   " + line for line in LINES[5:11]),
        "c": "\n".join(LINES[10:16]),
        **{name: "\n".join(LINES[start : start + 2]) for name, start in zip("def", (20, 30, 35), strict=True)},
    }
    train, valid, test = map(numbers, split_topics(topics))
    assert not train & valid | train & test | valid & test
    chain = set(NUMBERS[:16])
    assert sorted(len(part & chain) for part in (train, valid, test)) == [0, 0, 16]


def test_words_seen_once_in_train_are_unknown_and_rules_dropped() -> None:
    topic = "Heading, heading\n****************\n\n" + "a, b\n" + "| ---- | ====\n" + "A b c"
    assert split_topics({"topic": topic}).train == "heading , heading\na , b\na b <unk>\n"


def test_a_python_without_its_reference_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(FileNotFoundError, match=r"pydoc_data\.topics"):
        language_reference()
