import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf.errors import MissingMandatoryValue
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_sparse_rnn.data import PartOrder, TextDataModule
from lightning_sparse_rnn.data.published import PUBLISHED

CONF = Path(__file__).resolve().parents[2] / "conf"

# torch's own deprecation, met wherever pytorch-lightning 2.6 makes a loader.
TREE_SPEC = ".*LeafSpec.*"
pytestmark = pytest.mark.filterwarnings(f"ignore:{TREE_SPEC}:FutureWarning")

Seen = list[tuple[int, list[list[int]]]]


class Recorder(pl.LightningModule):
    """Writes down the epoch and the inputs of every batch it is trained and evaluated on."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.folder = folder
        self.seen: dict[str, Seen] = {"train": [], "valid": [], "test": []}

    def record(self, part: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        assert torch.equal(inputs[1:], targets[:-1])
        self.seen[part].append((self.current_epoch, inputs.tolist()))
        return self.weight * 1.0

    def setup(self, stage: str) -> None:
        if self.folder is not None:  # in a process of its own, without pytest's filters
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", TREE_SPEC, FutureWarning)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.record("train", batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.record("valid", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.record("test", batch)

    def on_train_end(self) -> None:
        if self.folder is not None:
            torch.save(self.seen, self.folder / f"seen-{self.global_rank}.pt")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    options = {"max_epochs": 3, "enable_checkpointing": "callbacks" in options, "accelerator": "cpu"} | options
    return pl.Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **options
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder of text in which every token is another, so that equal batches are the same place."""
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "train.txt").write_text("".join(f"a{number} b{number} c{number}\n" for number in range(50)))
    (folder / "valid.txt").write_text("a1 b1 c1\n" * 12)
    (folder / "test.txt").write_text("c2 b2 a2\n" * 10)
    return folder


def data(text: Path, **options: Any) -> TextDataModule:
    options = {"batch_size": 4, "eval_batch_size": 3, "test_batch_size": 1, "bptt": 7} | options
    return TextDataModule("folder", str(text), cache_dir=str(text / "cache"), **options)


@pytest.mark.parametrize("lengths", ["fixed", "drawn"])
def test_training_reads_every_epoch_whole_and_evaluation_all_text(text, tmp_path, lengths: str) -> None:
    module, datamodule = Recorder(), data(text, lengths=lengths)
    trainer(tmp_path).fit(module, datamodule=datamodule)
    trainer(tmp_path).test(module, datamodule=datamodule, verbose=False)
    corpus = datamodule.corpus
    columns = corpus.train.view(4, 50).t()
    for epoch in range(3):
        rows = [row for number, batch in module.seen["train"] if number == epoch for row in batch]
        assert torch.equal(torch.tensor(rows), columns[:-1])
    rows = [row for number, batch in module.seen["valid"] if number == 2 for row in batch]
    assert torch.equal(torch.tensor(rows), corpus.valid.view(3, 16).t()[:-1])
    rows = [row for _, batch in module.seen["test"] for row in batch]
    assert torch.equal(torch.tensor(rows), corpus.test.view(40, 1)[:-1])


def test_drawn_lengths_differ_from_epoch_to_epoch(text, tmp_path) -> None:
    module = Recorder()
    trainer(tmp_path).fit(module, datamodule=data(text, lengths="drawn"))
    lengths = [[len(batch) for number, batch in module.seen["train"] if number == epoch] for epoch in range(3)]
    assert lengths[0] != lengths[1] != lengths[2]


def test_shuffled_parts_are_read_in_another_order_in_every_epoch_and_evaluation_as_it_stands(text, tmp_path) -> None:
    module, datamodule = Recorder(), data(text, shuffle_parts=8, seed=1)
    trainer(tmp_path).fit(module, datamodule=datamodule)
    corpus = datamodule.corpus
    read = []
    for epoch in range(3):
        rows = [row for number, batch in module.seen["train"] if number == epoch for row in batch]
        read.append(torch.tensor(rows))
        assert torch.equal(read[-1], PartOrder(8, 1).read(corpus.train, epoch).view(4, 50).t()[:-1])
    assert not torch.equal(read[0], read[1])
    rows = [row for number, batch in module.seen["valid"] if number == 2 for row in batch]
    assert torch.equal(torch.tensor(rows), corpus.valid.view(3, 16).t()[:-1])


class AtEpochEnd(ModelCheckpoint):
    """Another class, because Lightning allows one ModelCheckpoint of a kind only."""


@pytest.mark.parametrize("options", [{"lengths": "fixed"}, {"lengths": "drawn", "shuffle_parts": 6}])
@pytest.mark.parametrize("limits", [{}, {"max_epochs": -1, "max_steps": 15}, {"limit_train_batches": 3}])
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
def test_a_resumed_run_reads_what_the_uninterrupted_one_reads(text, tmp_path, options: dict, limits: dict) -> None:
    checkpoints = tmp_path / "checkpoints"
    saving: dict[str, Any] = {"dirpath": checkpoints, "save_top_k": -1, "auto_insert_metric_name": False}
    callbacks = [
        ModelCheckpoint(filename="step{step}", every_n_train_steps=1, **saving),
        AtEpochEnd(filename="end{step}", save_on_train_epoch_end=True, **saving),
    ]
    whole = Recorder()
    trainer(tmp_path, callbacks=callbacks, **limits).fit(whole, datamodule=data(text, **options))
    expected = whole.seen["train"]
    paths = sorted(checkpoints.iterdir())
    assert len(paths) >= len(expected) + 2
    for path in paths:
        steps = torch.load(path, weights_only=True)["global_step"]
        resumed = Recorder()
        trainer(tmp_path, **limits).fit(resumed, datamodule=data(text, **options), ckpt_path=path)
        assert resumed.seen["train"] == expected[steps:], path.name


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
def test_resuming_in_mid_epoch_with_another_batch_size_is_refused(text, tmp_path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=3)
    trainer(tmp_path, callbacks=[checkpoint], limit_train_batches=4, max_epochs=1).fit(
        Recorder(), datamodule=data(text)
    )
    path = checkpoint.best_model_path
    with pytest.raises(ValueError, match=r"columns 4 \(now 5\)"):
        trainer(tmp_path).fit(Recorder(), datamodule=data(text, batch_size=5), ckpt_path=path)


@pytest.mark.slow
def test_two_processes_share_the_training_columns_and_evaluate_everything(text, tmp_path) -> None:
    trainer(tmp_path, max_epochs=2, strategy="ddp_spawn", devices=2).fit(
        Recorder(tmp_path), datamodule=data(text, batch_size=2, lengths="drawn", shuffle_parts=5)
    )
    alone = Recorder()
    trainer(tmp_path, max_epochs=2).fit(alone, datamodule=data(text, batch_size=4, lengths="drawn", shuffle_parts=5))
    ranks = [torch.load(tmp_path / f"seen-{rank}.pt", weights_only=True) for rank in range(2)]
    together = [
        (epoch, [a + b for a, b in zip(left, right, strict=True)])
        for (epoch, left), (_, right) in zip(*(rank["train"] for rank in ranks), strict=True)
    ]
    assert together == alone.seen["train"]
    assert ranks[0]["valid"] == ranks[1]["valid"] == alone.seen["valid"]


def test_a_checkpoint_is_refused_beside_text_in_which_words_have_other_ids(text, tmp_path) -> None:
    module, datamodule = Recorder(), data(text)
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(module, datamodule=datamodule)
    for weights_only in (True, False):
        fitted.save_checkpoint(tmp_path / "run.ckpt", weights_only=weights_only)
        trainer(tmp_path).test(module, datamodule=data(text), ckpt_path=tmp_path / "run.ckpt", verbose=False)
    train = text / "train.txt"
    train.write_text("".join(reversed(train.read_text().splitlines(keepends=True))))
    with pytest.raises(ValueError, match=r"one in which words have other ids: .* has changed since"):
        trainer(tmp_path).test(module, datamodule=data(text), ckpt_path=tmp_path / "run.ckpt", verbose=False)
    with pytest.raises(ValueError, match="one in which words have other ids"):
        trainer(tmp_path, max_epochs=2).fit(module, datamodule=data(text), ckpt_path=tmp_path / "run.ckpt")


def test_a_run_does_not_go_on_with_another_text(text, tmp_path) -> None:
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(Recorder(), datamodule=data(text))
    fitted.save_checkpoint(tmp_path / "run.ckpt")
    trainer(tmp_path, max_epochs=2).fit(Recorder(), datamodule=data(text), ckpt_path=tmp_path / "run.ckpt")
    train = text / "train.txt"
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join([*lines, lines[-1]]))  # no new word
    with pytest.raises(ValueError, match="Expected the text that this run began with: the training or validation text"):
        trainer(tmp_path, max_epochs=2).fit(Recorder(), datamodule=data(text), ckpt_path=tmp_path / "run.ckpt")
    # Its words have the ids that the weights are of: a test does not read the rest.
    trainer(tmp_path).test(Recorder(), datamodule=data(text), ckpt_path=tmp_path / "run.ckpt", verbose=False)


@pytest.mark.parametrize(
    ("tokens", "lines", "said"),
    [
        ("words", 1, r"Words that the training text does not have are 25\.0% of the validation text and 0\.0% of the "),
        ("words", 200, r"Words .* are 0\.1% of the validation text .* Let rare words of training be <unk> too"),
        ("words", 300, None),  # 1 of 1200 tokens, which perplexity does not rest on
        ("characters", 100, r"Characters .* are 0\.1% of .* Let rare characters of training be <unk> too"),
        ("characters", 200, None),
    ],
)
def test_unknown_tokens_are_warned_of_by_what_they_are_where_they_matter(
    text, tokens: str, lines: int, said: str | None
) -> None:
    (text / "valid.txt").write_text("a1 b1 ö\n" + "a1 b1 c1\n" * (lines - 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        length = 4 * lines if tokens == "words" else 9 * lines - 1
        assert data(text, tokens=tokens).unknown_shares["valid"] == pytest.approx(1 / length)
    found = [str(each.message) for each in caught if "does not have" in str(each.message)]
    assert len(found) == (said is not None)
    assert not found or re.match(said or "", found[0])


def test_hyperparameters_given_as_paths_and_numpys_numbers_are_saved_plain(text, tmp_path) -> None:
    datamodule = TextDataModule("folder", text, batch_size=np.int64(2), eval_batch_size=2, bptt=4, cache_dir=tmp_path)
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(Recorder(), datamodule=datamodule)
    fitted.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert {name: type(saved[name]) for name in ("root", "cache_dir", "batch_size")} == {
        "root": str,
        "cache_dir": str,
        "batch_size": int,
    }


def test_a_text_that_is_too_short_is_named(text) -> None:
    with pytest.raises(ValueError, match="The test text, in columns by `test_batch_size`: Expected a text of at least"):
        data(text, test_batch_size=10_000).test_dataloader()
    with pytest.raises(
        ValueError, match="The training text, in columns by `batch_size`: Expected `shuffle_parts` of at"
    ):
        data(text, shuffle_parts=51).train_dataloader()
    with pytest.raises(ValueError, match="The validation text, in columns by `eval_batch_size`: Expected"):
        data(text, eval_batch_size=10_000).val_dataloader()


def test_vocabulary_is_there_before_a_trainer(text) -> None:
    datamodule = data(text, train_lines=2)
    assert datamodule.vocab_size == 2 + 150
    assert datamodule.vocabulary.decode(datamodule.corpus.train) == "a0 b0 c0\na1 b1 c1\n"
    assert datamodule.vocab_size == data(text).vocab_size


def test_setup_reads_what_prepare_data_left(text) -> None:
    data(text).prepare_data()
    [path] = (text / "cache").iterdir()
    state = torch.load(path, weights_only=True)
    torch.save(state | {"test": state["test"][:4]}, path)
    datamodule = data(text)
    datamodule.setup("fit")
    assert len(datamodule.corpus.test) == 4


def test_test_columns_default_to_those_of_validation(text) -> None:
    [(inputs, _)] = data(text, test_batch_size=None, bptt=50).test_dataloader()
    assert inputs.shape == (12, 3)


def test_hyperparameters_are_plain(text) -> None:
    datamodule = data(text)
    assert {type(value) for value in datamodule.hparams.values()} <= {str, int, type(None)}
    assert TextDataModule(**datamodule.hparams).hparams == datamodule.hparams


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "brown"}, "one of pydoc, ptb, wikitext-2, folder, got 'brown'"),
        ({"source": "folder"}, "got none. Give it as `root`"),
        ({"root": "text"}, "no `root` with source 'pydoc', got text"),
        ({"batch_size": 0}, "`batch_size` to be a whole number of at least 1, got 0"),
        ({"eval_batch_size": 0}, "`eval_batch_size` to be a whole number of at least 1, got 0"),
        ({"test_batch_size": -1}, "`test_batch_size` to be a whole number of at least 1, got -1"),
        ({"train_lines": 0}, "`train_lines` to be a whole number of at least 1, got 0"),
        ({"bptt": 0}, "`bptt` to be a whole number of at least 1, got 0"),
        ({"bptt": 35.0}, r"`bptt` to be a whole number of at least 1, got 35\.0"),
        ({"bptt": None}, "`bptt` to be a whole number of at least 1, got None"),
        ({"lengths": "random"}, "one of fixed, drawn, got 'random'"),
        ({"max_extra": 20}, "no `max_extra` with fixed lengths"),
        ({"shuffle_parts": 1}, "`shuffle_parts` to be a whole number of at least 2, got 1"),
        ({"shuffle_parts": "20"}, "`shuffle_parts` to be a whole number of at least 2, got '20'"),
        ({"seed": -1}, "`seed` to be a whole number of at least 0, got -1"),
    ],
)
def test_bad_options_are_refused_when_it_is_made(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextDataModule(**options)


def configured(name: str, *overrides: str) -> TextDataModule:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(f"data/{name}", ["+seed=3", *overrides]).data)


@pytest.mark.parametrize(("name", "source"), [("ptb", "ptb"), ("wikitext2", "wikitext-2")])
def test_configs_of_the_published_corpora_state_the_defaults(name: str, source: str) -> None:
    datamodule = configured(name, "data.root=text")
    assert dict(datamodule.hparams) == dict(TextDataModule(source, "text", seed=3).hparams)


@pytest.mark.parametrize("name", ["pydoc", "folder"])
def test_configs_of_small_text_differ_in_the_batches(name: str) -> None:
    root = None if name == "pydoc" else "text"
    datamodule = configured(name, *([f"data.root={root}"] if root else []))
    small = {"batch_size": 10, "eval_batch_size": 10, "bptt": 20}
    assert dict(datamodule.hparams) == {**TextDataModule(name, root, seed=3).hparams, **small}


def test_published_configs_need_no_folder_and_the_folder_config_does() -> None:
    assert {configured("ptb").hparams["source"], configured("wikitext2").hparams["source"]} == set(PUBLISHED)
    with pytest.raises(MissingMandatoryValue, match="root"):
        configured("folder")
