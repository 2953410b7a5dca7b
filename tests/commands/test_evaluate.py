"""Testing, generating, exporting and reporting from a folder that others made."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packed_modules import sparse
from torch import nn

from lightning_sparse_rnn.commands import evaluate, export, generate, report
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.inference.build import kernel
from lightning_sparse_rnn.inference.compression import compress_where_it_pays
from lightning_sparse_rnn.inference.recurrent import PackedRecurrent
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs import testing
from tests.helpers.trained_checkpoints import save_checkpoint

# Lightning 2.6's own, with the newest torch.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

NETWORK = {"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 4, "hidden_size": 4, "dropout": 0.0}
OPTIMIZER = {"_target_": "torch.optim.SGD", "lr": 1.0}
MODEL = {
    "_target_": "lightning_sparse_rnn.models.LanguageModel",
    "_recursive_": False,
    "network": NETWORK,
    "optimizer": OPTIMIZER,
}
TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "precision": "32-true"}


@pytest.fixture
def folder(text: Path, tmp_path: Path) -> Path:
    """A run's folder as far as testing and generating read it."""
    options = {"source": "folder", "root": str(text), "bptt": 5, "cache_dir": str(tmp_path / "cache")}
    data = TextDataModule(**options)  # type: ignore[arg-type]
    model = LanguageModel(NETWORK, data.vocab_size, OPTIMIZER)
    save_checkpoint(tmp_path / "best.ckpt", model, data)
    config = {
        "model": MODEL,
        "trainer": TRAINER,
        "data": {"_target_": "lightning_sparse_rnn.data.TextDataModule", **options},
        "method": {"_target_": "lightning_sparse_rnn.SelfishSparseCallback", "sparsity": 0.5},
        "matmul_precision": "highest",
        "seed": 1,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def change(folder: Path, name: str, value: Any) -> None:
    """Set one value, by its dotted name, in a folder's config."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    *groups, last = name.split(".")
    place = config
    for group in groups:
        place = place[group]
    place[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def perplexity(capsys: pytest.CaptureFixture[str], *arguments: str) -> float:
    evaluate.main(arguments)
    result: float = json.loads(capsys.readouterr().out)["test_ppl"]
    return result


def test_an_honest_folder_is_tested(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = perplexity(capsys, str(folder))
    assert 25 < first < 40  # of about 32 tokens, untrained
    # What testing does not make may be anything, as rules and loggers of one's own are.
    change(folder, "method", {"_target_": "numpy.savetxt", "growth": "my_package.my_rule", "root": "${oc.env:HOME}"})
    change(folder, "logger", {"_target_": "my_package.Logger"})
    assert perplexity(capsys, str(folder)) == first


@pytest.mark.parametrize(
    "name",
    [
        "trainer",
        "trainer.max_epochs",
        "trainer.logger",
        "data",
        "data.root",
        "model",
        "model.network",
        "model.network.hidden_size",
        "model.optimizer",
        "model.ar",
        "model.scheduler",
        "matmul_precision",
    ],
)
def test_a_config_that_acts_is_refused(folder: Path, name: str) -> None:
    trap = folder / "trap"
    acts = {"_target_": "torch.save", "obj": 1, "f": str(trap)}
    for value in (acts, [acts], {"a": [acts]}, "${oc.env:HOME}"):
        change(folder, name, value)
        with pytest.raises(SystemExit, match="sparse-rnn-test: "):
            evaluate.main([str(folder)])
        assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trainer._target_", "pytorch_lightning.trainer.trainer.os.system", "as its `trainer`"),
        ("data._target_", "lightning_sparse_rnn.data.TextDataModule.from_datasets", "as its `data`"),
        ("model._target_", "lightning_sparse_rnn.models.LSTM", "as its `model`"),
        ("model._recursive_", True, "Expected `model._recursive_` to be false"),
        ("model._args_", [1], "got the key '_args_'"),
        ("model.network._partial_", True, "got the key '_partial_'"),
        ("model.network.num_layers", 10**9, "num_layers=1000000000"),
        ("model.network.hidden_size", 10**4, "of another model than this LSTM"),
        ("model.network.hidden_size", -1, "`hidden_size` to be a whole number of at least 1"),
    ],
)
def test_what_the_config_may_not_say(folder: Path, name: str, value: Any, message: str) -> None:
    change(folder, name, value)
    with pytest.raises(SystemExit, match=message):
        evaluate.main([str(folder)])


def test_what_is_typed_is_trusted_and_so_is_the_config_if_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = perplexity(capsys, str(folder))
    monkeypatch.setenv("COLUMNS_OF_TEXT", "3")
    same = "model._target_=lightning_sparse_rnn.models.language_model.LanguageModel"
    assert perplexity(capsys, str(folder), same) == first
    assert perplexity(capsys, str(folder), "+data.eval_batch_size=${oc.decode:${oc.env:COLUMNS_OF_TEXT}}") != first
    change(folder, "model._target_", "lightning_sparse_rnn.models.language_model.LanguageModel")
    with pytest.raises(SystemExit, match="--trust"):
        evaluate.main([str(folder)])
    assert perplexity(capsys, str(folder), "--trust") == first


def test_a_config_with_an_object_in_it_is_refused(folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text() + f"acts: !!python/object/apply:os.system ['touch {folder / 'trap'}']\n")
    with pytest.raises(SystemExit, match=r"python/object/apply:os.system"):
        evaluate.main([str(folder)])
    path.write_text("- a list\n")
    with pytest.raises(SystemExit, match="Expected the settings of a run"):
        evaluate.main([str(folder)])


class Acts:
    """An object that says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the file acted",)


@pytest.mark.parametrize("command", [evaluate.main, generate.main, export.main])
def test_a_checkpoint_that_acts_is_refused(folder: Path, command: Callable[[list[str]], None]) -> None:
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    torch.save({**saved, "extra": Acts()}, folder / "best.ckpt")
    with pytest.raises(SystemExit, match="more than tensors and plain values"):
        command([str(folder)])
    with pytest.raises(pytest.fail.Exception, match="the file acted"):
        command([str(folder), "--trust"])


@pytest.mark.parametrize("part", ["hyper_parameters", "datamodule_hyper_parameters"])
@pytest.mark.parametrize("name", ["network", "source", "root", "bptt", "unheard_of"])
def test_generating_makes_nothing_a_checkpoint_names(folder: Path, part: str, name: str) -> None:
    trap = folder / "trap"
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    del saved["TextDataModule"]["text"]  # without the vocabulary, the training text is read
    saved[part][name] = {"_target_": "torch.save", "obj": 1, "f": str(trap)}
    torch.save(saved, folder / "best.ckpt")
    with pytest.raises(SystemExit, match="sparse-rnn-generate: "):
        generate.main([str(folder), "--tokens", "1"])
    assert not trap.exists()


def test_reporting_makes_nothing_a_config_names(folder: Path) -> None:
    trap = folder / "trap"
    change(folder, "model", {"_target_": "torch.save", "obj": 1, "f": str(trap)})
    path = folder / "config.yaml"
    (folder / "metrics.csv").write_text("epoch,val_ppl\n0,5.0\n")
    for more in ("", f"acts: !!python/object/apply:os.system ['touch {trap}']\n"):
        path.write_text(path.read_text() + more)
        report.main([str(folder), "--output", str(folder / "report")])
        assert not trap.exists()


def test_a_text_from_elsewhere_needs_no_training_text(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = perplexity(capsys, str(folder))
    copy = tmp_path / "copy.txt.gz"
    copy.write_bytes(gzip.compress((text / "test.txt").read_bytes()))
    change(folder, "data.root", str(tmp_path / "gone"))
    with pytest.raises(SystemExit, match="sparse-rnn-test: "):
        evaluate.main([str(folder)])
    assert perplexity(capsys, str(folder), "--text", str(copy)) == first
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    del saved["TextDataModule"]["text"]
    torch.save(saved, folder / "best.ckpt")
    with pytest.raises(SystemExit, match="it was written before they had one"):
        evaluate.main([str(folder), "--text", str(copy)])


def test_one_column_on_a_cpu_is_tested_with_packed_weights(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel() is None:
        pytest.skip("there is no C++ compiler")
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    network = {**NETWORK, "hidden_size": 384}  # large enough to be packed
    vocabulary = saved["state_dict"]["network.embedding.weight"].size(0)
    model = sparse(LanguageModel(network, vocabulary, OPTIMIZER))
    saved |= {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(saved, folder / "best.ckpt")
    change(folder, "model.network.hidden_size", 384)
    change(folder, "data.test_batch_size", None)
    found = []

    def watched(network: nn.Module) -> nn.Module:
        found.append(compress_where_it_pays(network))
        return found[-1]

    monkeypatch.setattr(testing, "compress_where_it_pays", watched)
    perplexity(capsys, str(folder))
    assert not found
    packed = perplexity(capsys, str(folder), "data.test_batch_size=1")
    assert isinstance(found[0].layers, PackedRecurrent)
    monkeypatch.setattr(testing, "compress_where_it_pays", lambda network: network)
    assert perplexity(capsys, str(folder), "data.test_batch_size=1") == pytest.approx(packed, rel=1e-5)


@pytest.mark.parametrize("text_given", [True, False])
@pytest.mark.parametrize("kind", ["checkpoint", "sparse", "packed", "int8"])
def test_one_file_is_tested_as_its_run(
    kind: str, text_given: bool, folder: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    vocabulary = saved["state_dict"]["network.embedding.weight"].size(0)
    model = sparse(LanguageModel({**NETWORK, "embedding_size": 16, "hidden_size": 16}, vocabulary, OPTIMIZER))
    saved |= {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(saved, folder / "best.ckpt")
    change(folder, "model.network.hidden_size", 16)
    change(folder, "model.network.embedding_size", 16)
    first = perplexity(capsys, str(folder), "+data.test_batch_size=3")
    file = folder / "best.ckpt"
    if kind != "checkpoint":
        file = folder / "elsewhere" / "model"
        options = {"sparse": [], "packed": ["--format", "packed"], "int8": ["--format", "packed", "--dtype", "int8"]}
        export.main([str(folder), "--output", str(file), *options[kind]])
        capsys.readouterr()
        (folder / "best.ckpt").unlink()
    given = ["--text", str(text / "test.txt")] if text_given else []
    within = 1e-3 if kind == "int8" else 1e-6
    assert perplexity(capsys, str(file), "data.test_batch_size=3", *given) == pytest.approx(first, rel=within)
    assert perplexity(capsys, str(file), "data.test_batch_size=2", *given) != first


def test_a_file_of_another_text_or_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "model"
    export.main([str(folder), "--output", str(file)])
    other = tmp_path / "other"
    other.mkdir()
    for part in ("train", "valid", "test"):
        (other / f"{part}.txt").write_text("quite another text\n" * 9)
    with pytest.raises(SystemExit, match="words have other ids"):
        evaluate.main([str(file), f"data.root={other}"])
    with pytest.raises(SystemExit, match="Expected a run's folder with --checkpoint"):
        evaluate.main([str(file), "--checkpoint", str(folder / "best.ckpt")])
    about = json.loads((folder / "model.json").read_text())
    del about["data"]
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(SystemExit, match=r"model\.json does not say how the text was read. Export the weights again"):
        evaluate.main([str(file)])
    (folder / "model.json").unlink()
    for command in (evaluate.main, generate.main):
        with pytest.raises(SystemExit, match=r"Expected .*model\.json beside .*model: it has the model's arguments"):
            command([str(file)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sparsity=0.5"],
            "does not read sparsity: sparsity=0.5 has no effect. Of these can be changed: data",
        ),
        (["optimizer.lr=3"], "does not read optimizer.lr"),
        (["trainer.devices=2"], "A test runs on one device, without loggers: trainer.devices=2 has no effect"),
        (["data.batch_size=1"], r"has no effect. Did you mean data\.test_batch_size\?"),
        (["data.train_lines=1"], "data.train_lines is of training"),
        (
            ["trainer.max_epochs=99"],
            r"does not read trainer\.max_epochs: .* Of the Trainer it reads: accelerator, ",
        ),
        (["model.network.dropout=0.1"], r"model\.network\.dropout is of training: .* has no effect"),
        (["+model.ar=2"], r"model\.ar is of training"),
        (["--text", "some.txt", "data.root=x"], "The text is that of --text"),
        (["data.bptt_=1"], r"there is no data\.bptt_\. Did you mean bptt\?"),
    ],
)
def test_overrides_without_effect_are_refused(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        evaluate.main([str(folder), *arguments])


def test_of_a_file_only_the_text_can_be_changed(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"does not read trainer.precision: .* can be changed: data"):
        evaluate.main([str(folder / "best.ckpt"), "trainer.precision=64-true"])
