import gc
import hashlib
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lightning_sparse_rnn.data.corpus import Corpus
from lightning_sparse_rnn.data.published import PUBLISHED, PublishedCorpus
from lightning_sparse_rnn.data.sources import load_texts
from lightning_sparse_rnn.data.texts import Texts

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PARTS = {"train": "a b\n", "valid": "a\n", "test": "b\n"}
NAMES = {part: f"toy.{part}.txt" for part in PARTS}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without a word; "cut" files end early."""

    def log_message(self, *args: object) -> None:
        pass

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        data = source.read()
        outputfile.write(data[: len(data) // 2] if "cut" in self.path else data)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    for part, text in PARTS.items():
        (folder / NAMES[part]).write_text(text)
    return folder


@pytest.fixture
def server(site: Path, monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    with warnings.catch_warnings():  # pooch leaves the connection of a failed download to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def toy(server: ThreadingHTTPServer, path: str = "") -> PublishedCorpus:
    sums = {part: hashlib.sha256(text.encode()).hexdigest() for part, text in PARTS.items()}
    url = f"http://127.0.0.1:{server.server_port}{path}"
    return PublishedCorpus("toy", url, {part: (NAMES[part], sums[part]) for part in PARTS})


def names_every_file(message: str, corpus: PublishedCorpus) -> bool:
    return "data.root=FOLDER" in message and all(
        name in message and sha256 in message for name, sha256 in corpus.files.values()
    )


def test_download_gives_the_texts_and_keeps_the_files(server, site, tmp_path) -> None:
    folder = tmp_path / "cache" / "toy"
    assert toy(server).download(folder) == Texts(**PARTS)
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES.values())
    shutil.rmtree(site)
    assert toy(server).download(folder) == Texts(**PARTS)


def test_a_damaged_download_is_fetched_again(server, tmp_path) -> None:
    toy(server).download(tmp_path / "toy")
    (tmp_path / "toy" / NAMES["valid"]).write_text("damaged")
    assert toy(server).download(tmp_path / "toy") == Texts(**PARTS)


def test_a_wrong_checksum_leaves_nothing(server, site, tmp_path) -> None:
    (site / NAMES["train"]).write_text("other text\n")
    corpus = toy(server)
    with pytest.raises(ConnectionError, match=re.escape(corpus.files["train"][1])) as error:
        corpus.download(tmp_path / "toy")
    assert names_every_file(str(error.value), corpus)
    assert list((tmp_path / "toy").iterdir()) == []


def test_a_missing_file_leaves_nothing(server, site, tmp_path) -> None:
    (site / NAMES["train"]).unlink()
    corpus = toy(server)
    with pytest.raises(ConnectionError, match="404") as error:
        corpus.download(tmp_path / "toy")
    assert names_every_file(str(error.value), corpus)
    assert list((tmp_path / "toy").iterdir()) == []


def test_a_connection_cut_in_the_middle_leaves_nothing(server, site, tmp_path) -> None:
    shutil.copytree(site, site / "cut")
    with pytest.raises(ConnectionError, match="Could not download"):
        toy(server, "/cut").download(tmp_path / "toy")
    assert list((tmp_path / "toy").iterdir()) == []


def test_without_a_server_the_error_names_the_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    gone = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gone.server_close()
    corpus = toy(gone)
    with pytest.raises(ConnectionError, match=NAMES["train"]) as error:
        corpus.download(tmp_path / "toy")
    assert names_every_file(str(error.value), corpus)
    assert list((tmp_path / "toy").iterdir()) == []


@pytest.mark.parametrize("inside", [".", "toy"])
def test_read_finds_the_files_in_both_layouts(server, site, tmp_path, inside: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(site, root / inside)
    assert toy(server).read(root) == Texts(**PARTS)


def test_read_names_what_is_missing_and_what_is_there(server, site) -> None:
    (site / NAMES["test"]).unlink()
    corpus = toy(server)
    with pytest.raises(FileNotFoundError, match=rf"Expected {NAMES['test']} in .* holds {NAMES['train']}") as error:
        corpus.read(site)
    assert names_every_file(str(error.value), corpus)


def test_read_refuses_another_text(server, site) -> None:
    (site / NAMES["valid"]).write_text("other\n")
    found = hashlib.sha256(b"other\n").hexdigest()
    with pytest.raises(ValueError, match="'folder'") as error:
        toy(server).read(site)
    for expected in (NAMES["valid"], found, toy(server).files["valid"][1]):
        assert expected in str(error.value)


@pytest.mark.parametrize(
    ("source", "folder", "vocabulary", "tokens"),
    [
        ("ptb", "ptb", 10_000, (929_589, 73_760, 82_430)),
        ("wikitext-2", "wikitext-2", 33_278, (2_088_628, 217_646, 245_569)),
    ],
)
def test_published_counts(source: str, folder: str, vocabulary: int, tokens: tuple[int, ...]) -> None:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"needs the files of {source} in {SHARED / folder}")
    texts = load_texts(source, SHARED)
    assert load_texts(source, SHARED / folder) == texts
    corpus = Corpus.from_texts(texts)
    assert len(corpus.vocabulary) == vocabulary
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == tokens
    # Published text has its unknown words written out: none is left over.
    for part, text in zip(("train", "valid", "test"), texts, strict=True):
        assert int((getattr(corpus, part) == 0).sum()) == text.split().count("<unk>")


def test_addresses_and_sums_are_well_formed() -> None:
    for corpus in PUBLISHED.values():
        assert set(corpus.files) == set(Texts._fields)
        assert corpus.url.startswith("https://raw.githubusercontent.com/")
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for _, sha256 in corpus.files.values())
