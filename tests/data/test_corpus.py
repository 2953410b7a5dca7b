import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.data import corpus as corpus_module
from lightning_sparse_rnn.data.corpus import Corpus, Vocabulary, cached_corpus, unigram_perplexity
from lightning_sparse_rnn.data.texts import Texts

TEXTS = Texts(train=" the cat sat \n\n the dog \n", valid="the bird\n", test="a cat\n")

words = st.text(alphabet="abcé<>\u00a0", min_size=1, max_size=4).filter(lambda word: word.split() == [word])
lines = st.lists(words, max_size=6).map(" ".join)
texts = st.lists(lines, min_size=1, max_size=8).map(lambda each: "".join(f"{line}\n" for line in each))


def test_ids_follow_first_appearance_after_unknown_and_end_of_line() -> None:
    vocabulary = Vocabulary.from_text("b a b\nc\n")
    assert vocabulary.tokens == ("<unk>", "<eos>", "b", "a", "c")
    assert vocabulary.encode("b a b\nc\n").tolist() == [2, 3, 2, 1, 4, 1]
    assert len(vocabulary) == 5
    assert "c" in vocabulary
    assert "d" not in vocabulary


def test_unknown_tokens_are_unk() -> None:
    vocabulary = Vocabulary.from_text("a\n")
    assert vocabulary.decode(vocabulary.encode("a x\ny\n")) == "a <unk>\n<unk>\n"


@given(texts)
def test_decode_undoes_encode(text: str) -> None:
    vocabulary = Vocabulary.from_text(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(texts)
def test_every_line_ends_in_one_eos(text: str) -> None:
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    # The slow, obvious way.
    expected = []
    for line in text.split("\n")[:-1]:
        expected += [vocabulary.id(word) for word in line.split()] + [vocabulary.id("<eos>")]
    assert ids.tolist() == expected
    assert ids.dtype == torch.int64


def test_a_last_line_without_line_break_and_any_white_space_make_no_difference() -> None:
    vocabulary = Vocabulary.from_text("a b\n\nc\n")
    assert torch.equal(vocabulary.encode("\ta  b \n \n c"), vocabulary.encode("a b\n\nc\n"))


def test_vocabulary_is_made_from_the_training_text_alone() -> None:
    corpus = Corpus.from_texts(TEXTS)
    assert set(corpus.vocabulary.tokens) == {"<unk>", "<eos>", "the", "cat", "sat", "dog"}
    assert corpus.vocabulary.decode(corpus.valid) == "the <unk>\n"
    assert corpus.vocabulary.decode(corpus.test) == "<unk> cat\n"


def test_train_lines_keeps_the_vocabulary() -> None:
    corpus = Corpus.from_texts(TEXTS)
    first = corpus.with_train_lines(2)
    assert first.vocabulary.decode(first.train) == "the cat sat\n\n"
    assert first.vocabulary == corpus.vocabulary
    assert torch.equal(corpus.with_train_lines(3).train, corpus.train)


@pytest.mark.parametrize("count", [0, 4])
def test_train_lines_beyond_the_text_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the 3 lines of the training text, got {count}"):
        Corpus.from_texts(TEXTS).with_train_lines(count)


def assert_same(one: Corpus, other: Corpus) -> None:
    assert one.vocabulary == other.vocabulary
    for part in Texts._fields:
        assert torch.equal(getattr(one, part), getattr(other, part))
        assert getattr(other, part).dtype == torch.int64


def test_text_is_tokenised_once(tmp_path, monkeypatch) -> None:
    first = cached_corpus(TEXTS, tmp_path / "new")
    monkeypatch.setattr(corpus_module, "split", lambda *_: pytest.fail("tokenised again"))
    assert_same(cached_corpus(TEXTS, tmp_path / "new"), first)
    [path] = (tmp_path / "new").iterdir()
    assert set(torch.load(path, weights_only=True)) == {"tokens", "kind", "pieces", "train", "valid", "test"}


def test_every_text_has_its_own_cache(tmp_path) -> None:
    others = [TEXTS._replace(**{part: "the dog\n"}) for part in Texts._fields]
    for each in (TEXTS, *others):
        assert_same(cached_corpus(each, tmp_path), Corpus.from_texts(each))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "ids"])
def test_a_damaged_cache_is_made_anew(tmp_path, damage: str) -> None:
    expected = cached_corpus(TEXTS, tmp_path)
    [path] = tmp_path.iterdir()
    if damage == "ids":
        state = torch.load(path, weights_only=True)
        torch.save(state | {"tokens": state["tokens"][:3]}, path)
    elif damage == "other":
        torch.save({"weights": torch.zeros(2)}, path)
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 300])
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        assert_same(cached_corpus(TEXTS, tmp_path), expected)
    assert_same(cached_corpus(TEXTS, tmp_path), expected)  # without a warning


def test_a_write_that_fails_leaves_nothing_and_costs_only_the_cache(tmp_path, monkeypatch) -> None:
    def full_disk(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert_same(cached_corpus(TEXTS, tmp_path), Corpus.from_texts(TEXTS))
    assert list(tmp_path.iterdir()) == []


def test_unigram_perplexity_by_hand() -> None:
    # Counts 3, 1, 0 and one added to each: 4/7, 2/7, 1/7.
    value = unigram_perplexity(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2]), 3)
    assert value == pytest.approx((7 / 4 * 7 / 2 * 7) ** (1 / 3))


def test_unigram_perplexity_of_uniform_text_is_the_vocabulary() -> None:
    assert unigram_perplexity(torch.arange(10), torch.arange(10), 10) == pytest.approx(10)


def test_unigram_perplexity_needs_text() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        unigram_perplexity(torch.arange(3), torch.arange(0), 3)
