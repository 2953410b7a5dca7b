import re

import pytest

from lightning_sparse_rnn.data import sources
from lightning_sparse_rnn.data.language_reference import language_reference
from lightning_sparse_rnn.data.published import PUBLISHED
from lightning_sparse_rnn.data.sources import check_shares, load_texts
from lightning_sparse_rnn.data.texts import Texts

TEXTS = Texts("a b\n", "a\n", "b\n")


def write(folder, names=("train.txt", "valid.txt", "test.txt")):  # type: ignore[no-untyped-def]
    for name, text in zip(names, TEXTS, strict=True):
        (folder / name).write_text(text)
    return folder


def test_pydoc_is_the_language_reference() -> None:
    assert load_texts("pydoc") == language_reference()


def test_downloads_go_to_the_source_s_own_folder(tmp_path, monkeypatch) -> None:
    folders = []
    monkeypatch.setattr(type(PUBLISHED["ptb"]), "download", lambda self, folder: folders.append(folder) or TEXTS)
    assert load_texts("ptb", cache_dir=tmp_path) == TEXTS
    monkeypatch.setattr(sources, "cache_folder", lambda: tmp_path / "user")
    load_texts("wikitext-2")
    assert folders == [tmp_path / "ptb", tmp_path / "user" / "wikitext-2"]


@pytest.mark.parametrize(
    "names", [("train.txt", "valid.txt", "test.txt"), ("my.train.txt", "my.valid.txt", "test.txt")]
)
def test_folder(tmp_path, names) -> None:
    assert load_texts("folder", write(tmp_path, names)) == TEXTS


def test_folder_prefers_the_plain_name(tmp_path) -> None:
    write(tmp_path)
    (tmp_path / "old.train.txt").write_text("other\n")
    assert load_texts("folder", tmp_path) == TEXTS


def test_folder_expands_the_home_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(write(tmp_path)))
    assert load_texts("folder", "~") == TEXTS


def test_folder_reads_a_byte_order_mark_and_foreign_line_ends(tmp_path) -> None:
    write(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa b\r\n")
    assert load_texts("folder", tmp_path) == TEXTS


def test_folder_lists_what_is_there_when_a_file_is_missing(tmp_path) -> None:
    write(tmp_path)
    (tmp_path / "valid.txt").rename(tmp_path / "dev.txt")
    (tmp_path / "more").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"valid\.txt or NAME\.valid\.txt in .*dev\.txt, more/, test\.txt, train"
    ):
        load_texts("folder", tmp_path)


def test_folder_that_is_none(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_texts("folder", tmp_path / "gone")


def test_folder_with_two_candidates(tmp_path) -> None:
    write(tmp_path, ("a.train.txt", "valid.txt", "test.txt"))
    (tmp_path / "b.train.txt").write_text("b\n")
    with pytest.raises(ValueError, match=r"one file of train text.* got a\.train\.txt, b\.train\.txt"):
        load_texts("folder", tmp_path)


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_folder_with_an_empty_file(tmp_path, content: bytes) -> None:
    (write(tmp_path) / "test.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / 'test.txt'))}, but the file is empty"):
        load_texts("folder", tmp_path)


def test_folder_with_text_in_another_encoding(tmp_path) -> None:
    (write(tmp_path) / "test.txt").write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"UTF-8 text in .*test\.txt"):
        load_texts("folder", tmp_path)


def test_unknown_source_lists_the_known() -> None:
    with pytest.raises(ValueError, match="pydoc, ptb, wikitext-2, folder, got 'wikitext2'"):
        load_texts("wikitext2")


def test_root_must_go_with_the_source(tmp_path) -> None:
    with pytest.raises(ValueError, match="folder of text with source 'folder', got none"):
        load_texts("folder")
    with pytest.raises(ValueError, match="no `root` with source 'pydoc'"):
        load_texts("pydoc", tmp_path)


def test_shares_must_go_with_one_file(tmp_path) -> None:
    write(tmp_path)
    for source, root, where in (("folder", tmp_path, str(tmp_path)), ("pydoc", None, "source 'pydoc'")):
        with pytest.raises(ValueError, match=f"Expected no `shares` with {re.escape(where)}: they are of one file"):
            load_texts(source, root, shares=[0.8, 0.1, 0.1])
    (tmp_path / "one").write_text("a b c d\n" * 10)
    assert load_texts("folder", tmp_path / "one", shares=[0.8, 0.1, 0.1]) == load_texts("folder", tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_texts("folder", tmp_path / "gone", shares=[0.8, 0.1, 0.1])


@pytest.mark.parametrize("shares", [0.5, "0.8", [0.5, 0.5], [0.8, 0.2, 0.0], [0.8, 0.1, "0.1"], [0.8, 0.1, 0.2]])
def test_shares_are_three_that_make_one(shares) -> None:
    with pytest.raises(ValueError, match=r"Expected `shares` as three numbers above 0 that make 1, got "):
        check_shares(shares)


def test_a_file_too_short_for_three_texts(tmp_path) -> None:
    (tmp_path / "one").write_text("a\n")
    with pytest.raises(ValueError, match="Expected a text that can be cut into three, got one of 2 characters"):
        load_texts("folder", tmp_path / "one")
