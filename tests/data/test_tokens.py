"""Words, characters and pieces of words: which are known, and that text comes back."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.data import Corpus, TextDataModule, Vocabulary
from lightning_sparse_rnn.data import tokens as tokens_module
from lightning_sparse_rnn.data.sources import load_texts
from lightning_sparse_rnn.data.texts import EOS, UNKNOWN, Texts, read_text
from lightning_sparse_rnn.data.tokens import choose, split
from lightning_sparse_rnn.models import LanguageModel

# Lightning 2.6's own, with the newest torch.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

TEXT = "the cat sat\n\nthe dög ran\nthe cat ran"


def test_characters() -> None:
    assert split("ab c\n\nd", "characters") == ["a", "b", " ", "c", EOS, EOS, "d", EOS]
    vocabulary = Vocabulary.from_text(TEXT, "characters")
    assert vocabulary.tokens[:5] == (UNKNOWN, EOS, "t", "h", "e")
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT + "\n"
    assert vocabulary.decode(vocabulary.encode("tax")) == "ta<unk>\n"


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_every_text_comes_back_from_its_characters(text: str) -> None:
    vocabulary = Vocabulary.from_text(text, "characters")
    expected = text if not text or text.endswith("\n") else text + "\n"
    assert vocabulary.decode(vocabulary.encode(text)) == expected


@pytest.mark.parametrize(
    ("min_count", "max_vocabulary", "known"),
    [
        (1, None, ["a", "b", "c", "d"]),
        (2, None, ["a", "b", "c"]),
        (3, None, ["c"]),
        (9, None, []),
        (1, 5, ["a", "b", "c"]),
        (1, 4, ["a", "c"]),
        (2, 3, ["c"]),
        (1, 1, []),
        (1, 100, ["a", "b", "c", "d"]),
    ],
)
def test_which_tokens_are_known(min_count: int, max_vocabulary: int | None, known: list[str]) -> None:
    text = f"a b c {UNKNOWN} {UNKNOWN}\nc a b c\nd\n".split()
    assert choose(text, min_count, max_vocabulary) == known
    vocabulary = Vocabulary.from_text("a b c\nc a b c\nd\n", "words", min_count, max_vocabulary)
    assert list(vocabulary.tokens) == [UNKNOWN, EOS, *known]


def test_rare_words_are_unknown_in_training_too() -> None:
    texts = Texts("the cat\nthe dog\n", "the cow\n", "a dog\n")
    corpus = Corpus.from_texts(texts)
    assert corpus.unknown_shares == {"train": 0.0, "valid": pytest.approx(1 / 3), "test": pytest.approx(1 / 3)}
    corpus = Corpus.from_texts(texts, min_count=2)
    assert corpus.unknown_shares == pytest.approx({"train": 2 / 6, "valid": 1 / 3, "test": 2 / 3})
    assert corpus.vocabulary.decode(corpus.train) == "the <unk>\nthe <unk>\n"


def test_a_vocabulary_is_kept_in_plain_values(tmp_path: Path) -> None:
    for kind in ("words", "characters"):
        vocabulary = Vocabulary.from_text(TEXT, kind)
        torch.save(vocabulary.state, tmp_path / "state")
        other = Vocabulary.from_state(torch.load(tmp_path / "state", weights_only=True))
        assert other == vocabulary
        assert other.fingerprint == vocabulary.fingerprint
        assert torch.equal(other.encode(TEXT), vocabulary.encode(TEXT))
    same_tokens = Vocabulary(vocabulary.tokens)
    assert same_tokens != vocabulary
    for bad in ({}, {**vocabulary.state, "kind": "letters"}, {**vocabulary.state, "tokens": [1]}):
        with pytest.raises(ValueError, match="Expected a vocabulary as it was saved"):
            Vocabulary.from_state(bad)


class TestPieces:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("tokenizers")

    def test_every_text_comes_back(self) -> None:
        vocabulary = Vocabulary.from_text(TEXT * 20, "bpe", max_vocabulary=270)
        assert len(vocabulary) == 270
        for text in (TEXT, "quite öther words, 日本, 🎈\n", "  two  spaces \n\n"):
            ids = vocabulary.encode(text)
            assert not (ids == 0).any()
            assert vocabulary.decode(ids) == (text if text.endswith("\n") else text + "\n")
        assert len(vocabulary.encode("the cat\n")) < len("the cat\n")
        again = Vocabulary.from_state(vocabulary.state)
        assert again == vocabulary
        assert again.state == vocabulary.state

    def test_text_comes_as_soon_as_its_last_byte_is_there(self) -> None:
        vocabulary = Vocabulary.from_text("abc", "bpe", max_vocabulary=258)
        parts = list(vocabulary.pieces_of_text(vocabulary.encode("aöb\n").tolist()))
        assert [part for part in parts if part] == ["a", "ö", "b", "\n"]

    def test_as_a_data_module(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("some words and other words\n" * 200)
        options = {"tokens": "bpe", "max_vocabulary": 300, "cache_dir": str(tmp_path)}
        data = TextDataModule("folder", str(tmp_path / "text"), **options)  # type: ignore[arg-type]
        again = TextDataModule("folder", str(tmp_path / "text"), **options)  # type: ignore[arg-type]
        assert 258 < data.vocab_size <= 300
        assert data.vocabulary.decode(data.corpus.test) == "some words and other words\n" * 20
        assert data.vocabulary == again.vocabulary
        length = len("some words and other words\n") * 20 / len(data.corpus.test)
        assert data.characters_per_token["test"] == length

    @pytest.mark.parametrize("options", [{"max_vocabulary": 257}, {"min_count": 2}])
    def test_options_that_do_not_go_with_them(self, tmp_path: Path, options: dict[str, int]) -> None:
        (tmp_path / "text").write_text("some words\n" * 200)
        with pytest.raises(ValueError, match=r"of at least 258|no `min_count` with pieces"):
            TextDataModule("folder", str(tmp_path / "text"), cache_dir=tmp_path, tokens="bpe", **options).setup()  # type: ignore[arg-type]


def test_pieces_without_the_package_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(tokens_module.importlib, "import_module", missing)
    expected = r"Text in pieces of words needs tokenizers. Install it with: pip install 'lightning-sparse-rnn\[bpe\]'"
    with pytest.raises(ModuleNotFoundError, match=expected):
        Vocabulary.from_text(TEXT, "bpe", max_vocabulary=300)


# --------------------------------------------------------------------------------------------------------- the files


def test_one_file_is_cut_at_ends_of_lines(tmp_path: Path) -> None:
    lines = [f"line {number} of it\n" for number in range(1000)]
    (tmp_path / "text").write_text("".join(lines))
    texts = load_texts("folder", tmp_path / "text")
    assert "".join(texts) == "".join(lines)
    assert all(text.endswith("\n") for text in texts)
    assert [len(text) / sum(map(len, texts)) for text in texts] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    texts = load_texts("folder", tmp_path / "text", shares=[0.5, 0.2, 0.3])
    assert [len(text) / sum(map(len, texts)) for text in texts] == pytest.approx([0.5, 0.2, 0.3], abs=0.01)
    (tmp_path / "text").write_text("one line of words " * 500)
    texts = load_texts("folder", tmp_path / "text")
    assert "".join(texts) == "one line of words " * 500
    assert all(text.endswith(" ") for text in texts)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.5, 0.4, 0.2], [1.0, 0.0, 0.0], [1.2, -0.1, -0.1]])
def test_shares_that_are_none(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="Expected `shares` as three numbers above 0 that make 1"):
        TextDataModule(shares=shares)


def test_files_may_be_compressed(tmp_path: Path) -> None:
    for part in Texts._fields:
        (tmp_path / f"{part}.txt.gz").write_bytes(gzip.compress(f"the {part} text\n".encode()))
    assert load_texts("folder", tmp_path).valid == "the valid text\n"
    damaged = (tmp_path / "test.txt.gz").read_bytes()
    for content in (damaged[:-9], b"no gzip at all"):
        (tmp_path / "bad.gz").write_bytes(content)
        with pytest.raises(ValueError, match="Expected text compressed with gzip"):
            read_text(tmp_path / "bad.gz")


# ------------------------------------------------------------------------------------------- what is said and measured


def folder_of(path: Path, train: str, valid: str, test: str) -> str:
    for part, text in zip(Texts._fields, (train, valid, test), strict=True):
        (path / f"{part}.txt").write_text(text * 20)
    return str(path)


def measured(data: TextDataModule, path: Path) -> tuple[dict[str, float], LanguageModel]:
    network = {"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 4, "hidden_size": 4, "dropout": 0.0}
    model = LanguageModel(network, data.vocab_size)
    torch.nn.init.normal_(model.network.decoder.bias)
    trainer = pl.Trainer(
        default_root_dir=path, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    return dict(trainer.test(model, datamodule=data, verbose=False)[0]), model


def test_words_that_training_never_saw_are_told_of_and_measured_apart(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a b c\n", "a b c\n", "a x b\n")
    data = TextDataModule("folder", root, eval_batch_size=1, bptt=3, cache_dir=tmp_path)
    with pytest.warns(UserWarning, match=r"are 0\.0% of the validation text and 25\.0% of the test text.*min_count=2"):
        data.setup()
    metrics, model = measured(data, tmp_path)
    ids = data.corpus.test[:, None]
    with torch.no_grad():
        log_probs = model.network.log_probs(model.network(ids[:-1]).hidden)[:, 0]
    losses = -log_probs.gather(1, ids[1:])[:, 0]
    assert metrics["test_ppl"] == pytest.approx(losses.mean().exp().item(), rel=1e-5)
    assert metrics["test_ppl_known"] == pytest.approx(losses[ids[1:, 0] != 0].mean().exp().item(), rel=1e-5)


def test_nothing_is_said_where_training_has_unknown_words_or_nobody_has(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a b c <unk>\n", "a b c\n", "a x b\n")
    data = TextDataModule("folder", root, eval_batch_size=1, bptt=3, cache_dir=tmp_path)
    assert set(measured(data, tmp_path)[0]) == {"test_loss", "test_ppl"}


def test_a_training_text_that_is_mostly_unknown_is_told(tmp_path: Path) -> None:
    data = TextDataModule("folder", folder_of(tmp_path, "a b c\n", "a b\n", "a\n"), cache_dir=tmp_path, min_count=1000)
    with pytest.warns(UserWarning, match=r"^75% of the training text is <unk>, .* vocabulary has 0 words\. Look at"):
        data.setup()


def test_line_ends_that_are_there_already_are_noticed(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a b c <eos>\n", "a b c\n", "a b\n")
    with pytest.warns(UserWarning, match="The training text has 20 times <eos>, which stands for a line's end"):
        TextDataModule("folder", root, cache_dir=tmp_path).setup()


def test_bits_per_character(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a b c\n", "a b c\n", "a b\n")
    data = TextDataModule("folder", root, eval_batch_size=1, bptt=3, cache_dir=tmp_path, tokens="characters")
    metrics, _ = measured(data, tmp_path)
    assert metrics["test_bpc"] == pytest.approx(metrics["test_loss"] / math.log(2), rel=1e-6)
    assert data.characters_per_token == {"valid": 1.0, "test": 1.0}


def test_a_character_is_one_character_also_where_it_is_unknown(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "aaaa bb cc\n", "a b c\n", "c c\n")
    data = TextDataModule("folder", root, cache_dir=tmp_path, tokens="characters", max_vocabulary=4)
    assert data.unknown_shares["test"] > 0
    assert data.characters_per_token == {"valid": 1.0, "test": 1.0}


def test_the_smallest_vocabulary_knows_no_word(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a b c\n", "a b c\n", "a b\n")
    data = TextDataModule("folder", root, cache_dir=tmp_path, max_vocabulary=1)
    with pytest.warns(UserWarning, match="the vocabulary has 0 words"):
        assert data.vocab_size == 2  # <unk> and <eos>
