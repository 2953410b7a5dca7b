"""The train command: what a run leaves, going on after an interruption, and being asked twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from small_runs import EPOCHS, small_config, table, weights

from lightning_sparse_rnn.commands.evaluate import main as run_test
from lightning_sparse_rnn.commands.generate import main as generate
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs.folder import kept_masks
from lightning_sparse_rnn.runs.training import train


@pytest.fixture
def config(text: Path, tmp_path: Path) -> DictConfig:
    return small_config(text, tmp_path)


def test_a_run_leaves_its_config_tables_results_checkpoints_and_picture(config: DictConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    results = train(config, folder)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert left == {
        ".lock",
        "best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        *(f"masks/{epoch:04d}.npz" for epoch in range(EPOCHS)),
        "metrics.csv",
        "results.json",
        "run.png",
        "topology.csv",
    }
    assert json.loads((folder / "results.json").read_text()) == results
    assert set(results) >= {
        "test_ppl", "val_ppl", "sparsity", "live_weights", "total_weights", "epochs", "averaging_began_epoch",
        "seconds", "seed", "versions", "machine",
    }  # fmt: skip

    metrics = table(folder / "metrics.csv")
    assert [int(row["epoch"]) for row in metrics] == list(range(EPOCHS))
    assert min(float(row["val_ppl"]) for row in metrics) == pytest.approx(results["val_ppl"], rel=1e-6)
    assert all(
        float(row["train_ppl"]) > 1 and float(row["sparsity"]) == pytest.approx(0.67, abs=2e-3) for row in metrics
    )

    topology = table(folder / "topology.csv")
    assert sorted({int(row["update"]) for row in topology}) == list(range(EPOCHS))
    for number in range(EPOCHS):
        rows = [row for row in topology if int(row["update"]) == number]
        assert sum(int(row["live"]) for row in rows) == results["live_weights"]
        assert sum(int(row["total"]) for row in rows) == results["total_weights"]
        assert sum(int(row["pruned"]) for row in rows) == sum(int(row["regrown"]) for row in rows)


def test_results_agree_with_the_saved_weights(config: DictConfig, tmp_path: Path) -> None:
    results = train(config, tmp_path / "run")
    saved = weights(tmp_path / "run" / "best.ckpt")
    nonzero = sum(int(tensor.count_nonzero()) for tensor in saved.values() if tensor.dim() > 1)
    # Newborn weights are zero until a gradient comes.
    assert 0 < nonzero <= results["live_weights"]
    assert results["total_weights"] == sum(tensor.numel() for tensor in saved.values() if tensor.dim() > 1)


def test_dense_has_no_topology(text: Path, tmp_path: Path) -> None:
    results = train(small_config(text, tmp_path, "method=dense", "trainer.max_epochs=1"), tmp_path / "run")
    assert results["sparsity"] == 0.0
    assert results["live_weights"] == results["total_weights"]
    assert not (tmp_path / "run" / "topology.csv").exists()


@pytest.mark.parametrize("shown", [True, False])
def test_the_progress_bar_can_be_left_out(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    options = [f"trainer.enable_progress_bar={str(shown).lower()}", "trainer.max_epochs=1"]
    train(small_config(text, tmp_path, *options), tmp_path / "run")
    output = capsys.readouterr()
    assert ("Epoch 1 of 1:" in output.out + output.err) == shown
    assert "test perplexity" in output.out


def test_static_keeps_its_topology(text: Path, tmp_path: Path) -> None:
    train(small_config(text, tmp_path, "method=static", "trainer.max_epochs=2"), tmp_path / "run")
    assert {row["update"] for row in table(tmp_path / "run" / "topology.csv")} == {"0"}


def test_an_interrupted_run_goes_on_and_ends_like_one_that_was_not(
    config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, tmp_path / "whole")

    step = LanguageModel.training_step
    with monkeypatch.context() as patch:

        def stop(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
            if self.current_epoch == 2 and batch_idx == 1:
                raise OSError("the machine died")
            return step(self, batch, batch_idx)

        patch.setattr(LanguageModel, "training_step", stop)
        with pytest.raises(OSError, match="the machine died"):
            train(config, tmp_path / "broken")
    assert not (tmp_path / "broken" / "results.json").exists()

    resumed = train(config, tmp_path / "broken")
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    for name in ("best.ckpt", "checkpoints/last.ckpt"):
        one, other = weights(tmp_path / "whole" / name), weights(tmp_path / "broken" / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert table(tmp_path / "broken" / "topology.csv") == table(tmp_path / "whole" / "topology.csv")
    timeless = [
        [{**row, "seconds": ""} for row in table(tmp_path / run / "metrics.csv")] for run in ("broken", "whole")
    ]
    assert timeless[0] == timeless[1]


def test_a_finished_run_is_not_run_again(
    config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(config, tmp_path / "run")
    monkeypatch.setattr(pl.Trainer, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    config.trainer.enable_progress_bar = not config.trainer.enable_progress_bar  # which makes no other run of it
    assert train(config, tmp_path / "run") == results
    assert "This run is finished" in capsys.readouterr().out


def test_a_folder_of_another_config_is_refused(text: Path, tmp_path: Path) -> None:
    train(small_config(text, tmp_path, "trainer.max_epochs=1"), tmp_path / "run")
    with pytest.raises(SystemExit, match=r"method\.sparsity: 0\.67, now 0\.5"):
        train(small_config(text, tmp_path, "trainer.max_epochs=1", "method.sparsity=0.5"), tmp_path / "run")


@pytest.mark.parametrize(
    "overrides", [[], ["method=small_dense"], ["+trainer.limit_test_batches=2"], ["trainer.precision=64-true"]]
)
def test_the_test_command_finds_the_runs_test_perplexity(
    overrides: list[str], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(small_config(text, tmp_path, *overrides), tmp_path / "run")
    capsys.readouterr()
    run_test([str(tmp_path / "run")])
    assert json.loads(capsys.readouterr().out)["test_ppl"] == results["test_ppl"]
    run_test([str(tmp_path / "run"), "data.test_batch_size=1"])
    assert json.loads(capsys.readouterr().out)["test_ppl"] != results["test_ppl"]
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run_test([str(tmp_path / "run"), "--checkpoint", last, "+trainer.limit_test_batches=1"])
    assert json.loads(capsys.readouterr().out)["test_ppl"] != results["test_ppl"]


def test_text_that_has_changed_since_is_refused(config: DictConfig, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    shutil.copytree(config.data.root, folder)
    config.data.root = str(folder)
    train(config, tmp_path / "run")
    lines = (folder / "train.txt").read_text().splitlines(keepends=True)
    (folder / "train.txt").write_text("".join(reversed(lines)))
    for command, *more in ((run_test,), (generate, "--root", str(folder))):
        with pytest.raises(SystemExit, match="one in which words have other ids"):
            command([str(tmp_path / "run"), *more])
    generate([str(tmp_path / "run"), "--tokens", "1"])  # the checkpoint's own vocabulary is enough
    # Words that are new change the model as well.
    (folder / "train.txt").write_text("".join([*lines, "words unheard of\n"]))
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(ValueError, match="one in which words have other ids"):
        train(config, tmp_path / "run")


def test_a_run_without_validation_says_so(text: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="The run ended without a validation"):
        train(small_config(text, tmp_path, "+trainer.check_val_every_n_epoch=9"), tmp_path / "run")


def test_a_test_text_that_is_too_short_is_found_before_training(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The test text, in columns by `test_batch_size`"):
        train(small_config(text, tmp_path, "data.test_batch_size=5000"), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_the_table_marks_the_validations_of_averages(text: Path, tmp_path: Path) -> None:
    results = train(
        small_config(text, tmp_path, "callbacks.averaging.restart_at=[0.5]", "optimizer.nonmono=9"), tmp_path / "run"
    )
    assert results["averaging_began_epoch"] == 2
    assert [row["averaging"] for row in table(tmp_path / "run" / "metrics.csv")] == ["0", "0", "1", "1"]


def test_the_test_command_says_what_it_misses(config: DictConfig, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"Expected the folder of a run, with its config\.yaml"):
        run_test([str(tmp_path / "nowhere")])
    train(config, tmp_path / "run")
    with pytest.raises(SystemExit, match=r"nothing\.ckpt"):
        run_test([str(tmp_path / "run"), "--checkpoint", str(tmp_path / "nothing.ckpt")])
    for override, message in {
        "data.no_such_option=1": r"data\.no_such_option",
        "data.test_batch_size": "got data.test_batch_size: there is no =",
        "data=ptb": r"got data=ptb: data is not one value\. Name one in it, as in data\._target_=",
    }.items():
        with pytest.raises(SystemExit, match=message):
            run_test([str(tmp_path / "run"), override])


@pytest.mark.parametrize(("epochs", "began"), [(3, 2), (6, 4)])
def test_averages_begin_after_two_thirds_of_any_number_of_epochs(
    epochs: int, began: int, text: Path, tmp_path: Path
) -> None:
    options = [f"trainer.max_epochs={epochs}", "optimizer.nonmono=9", "+trainer.limit_train_batches=2"]
    assert train(small_config(text, tmp_path, *options), tmp_path / "run")["averaging_began_epoch"] == began


def test_a_run_that_ends_by_steps_says_that_averages_wait_for_their_trigger(
    text: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = ["trainer.max_epochs=-1", "+trainer.max_steps=6", "+trainer.limit_train_batches=2", "optimizer.nonmono=9"]
    assert train(small_config(text, tmp_path, *steps), tmp_path / "run")["averaging_began_epoch"] is None
    assert "The run has no trainer.max_epochs: its averages begin when their trigger fires" in caplog.text


@pytest.mark.parametrize("end", [["trainer.max_epochs=12"], ["trainer.max_epochs=-1", "+trainer.max_steps=24"]])
def test_about_ten_topologies_are_kept_and_the_last(end: list[str], text: Path, tmp_path: Path) -> None:
    train(small_config(text, tmp_path, *end, "+trainer.limit_train_batches=2"), tmp_path / "run")
    kept = [epochs - 1 for epochs, _ in kept_masks(tmp_path / "run")]
    assert kept == [0, 2, 4, 6, 8, 10, 11]
