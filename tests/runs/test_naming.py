"""What a run's folder is called: it follows from the overrides alone, whatever their order."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from lightning_sparse_rnn import SNTASGD, models
from lightning_sparse_rnn.commands import train as command
from lightning_sparse_rnn.commands.unknown_options import options_of
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.models.building import NETWORKS
from lightning_sparse_rnn.runs import training
from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.naming import check_name, old_run_name, run_name
from lightning_sparse_rnn.runs.paths import PATHS

WATCH = "+callbacks.watch._target_=pytorch_lightning.callbacks.LearningRateMonitor"
STOP = "+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping"

NAMES = {
    (): "default",
    ("seed=2", "method=dense", "output=/tmp/x"): "method=dense,seed=2",
    ("experiment=ptb_small", "trainer.max_epochs=8", "seed=2", "sparsity=0.8"): (
        "sparsity=0.8,seed=2,experiment=ptb_small,max_epochs=8"
    ),
    ("model.network.hidden_size=200", "optimizer.lr=20", "data=folder", "data.root=my_text"): (
        "lr=20,hidden_size=200,data=folder,root=my_text"
    ),
    ("method.seed=3", "seed=2"): "method.seed=3,seed=2",
    ("callbacks.averaging.restart_at=[0.5, 0.8]",): "callbacks.averaging.restart_at=0.5,0.8",
    ("~callbacks.last", "+trainer.limit_train_batches=3"): "no-callbacks.last,limit_train_batches=3",
    ("seed=1", "seed=2"): "seed=2",
    ("callbacks.averaging.restart_at=[]", "seed='3'"): "callbacks.averaging.restart_at=,seed=3",
    # One of two options that are called alike is not told by that alone.
    ("model.network.gain=1", "data.gain=2"): "model.network.gain=1,data.gain=2",
    # What a sweep gives its runs are overrides of their own.
    ("sweep=methods", "method=set", "seed=2"): "method=set,seed=2",
    # What shows and logs makes no other run.
    ("hydra.verbose=true", "hydra/launcher=joblib", "trainer.enable_progress_bar=false", "logger=csv"): "default",
    ("+logger._target_=my.Logger", "trainer.log_every_n_steps=1", "~callbacks.progress", "name=null"): "default",
    (WATCH.replace("=", "='") + "'",): "default",
    (WATCH, "+callbacks.watch.logging_interval=step", STOP): f"{STOP.lstrip('+')}",
}


@pytest.mark.parametrize("overrides", NAMES)
def test_a_name_says_what_differs_and_does_not_depend_on_order(overrides: tuple[str, ...]) -> None:
    assert run_name(overrides) == NAMES[overrides]
    if overrides != ("seed=1", "seed=2"):
        assert run_name(reversed(overrides)) == NAMES[overrides]


def test_what_cannot_be_read_off_a_name_is_told_by_its_hash() -> None:
    one, other = run_name(["data.root=/some where/else"]), run_name(["data.root=/no where/else"])
    assert one.startswith("root=else-")
    assert other.startswith("root=else-")
    assert one != other
    long, longer = ([f"data.root={'x' * length}", "seed=2", "method=set"] for length in (300, 301))
    assert run_name(long).startswith("method=set,seed=2-")
    assert len(run_name(long)) < 150
    assert run_name(long) != run_name(longer)
    assert run_name([f"seed={'1' * 300}"]).startswith("seed=111")


ALIKE = [
    ["method.include=a", "method.include=[a]", "method.include='[a]'"],
    ["method.include=[a,b]", "method.include='a,b'", "method.include='[a,b]'"],
    ["method.gates={a:2}", "method.gates='{a:2}'", "method.gates=[a:2]", "method.gates=a-2"],
    ["data.root=a b", "data.root=a-b", "data.root=x/a-b", "data.root=a=b", "data.root=a'b"],
    ["data.root=x,seed=2", "data.root=[x,seed=2]"],
]


@pytest.mark.parametrize("values", ALIKE)
def test_values_that_look_alike_in_a_name_make_other_names(values: list[str]) -> None:
    assert len({run_name([value]) for value in values}) == len(values)


def test_quotes_that_change_nothing_make_no_other_name() -> None:
    assert run_name(["init_from='runs/a'"]) == run_name(["init_from=runs/a"])
    assert run_name(["data.root='text'"]) == run_name(['data.root="text"']) == "root=text"


@pytest.mark.parametrize("option", PATHS)
def test_one_path_makes_one_name_and_runs_under_the_names_of_before_are_found(option: str, tmp_path: Path) -> None:
    one = run_name([f"{option}=runs/a"], str(tmp_path))
    for written in ("runs/a/", "./runs/a", "runs//a/.", "'runs/a/'"):
        assert run_name([f"{option}={written}"], str(tmp_path)) == one
    assert len({one, *(run_name([f"{option}={other}"]) for other in ("a", "/runs/a", "../runs/a"))}) == 4
    whole = hashlib.blake2b(f"{option}=runs/a/".encode(), digest_size=4).hexdigest()
    before = f"{option.removeprefix('data.')}=a-{whole}"
    assert before != one
    (tmp_path / before).mkdir()
    (tmp_path / before / "config.yaml").touch()
    assert run_name([f"{option}=runs/a/"], str(tmp_path)) == before
    assert run_name([f"{option}=runs/a"], str(tmp_path)) == one


def test_a_run_of_a_sweep_is_found_under_the_name_of_before(tmp_path: Path) -> None:
    given, before = ["method=set", "seed=2", "sweep=methods"], "method=set,seed=2,sweep=methods"
    assert run_name(given, str(tmp_path)) == "method=set,seed=2"
    (tmp_path / before).mkdir()
    (tmp_path / before / "config.yaml").touch()
    assert run_name(given, str(tmp_path)) == before


def test_a_name_of_many_bytes_is_cut_where_a_letter_ends(tmp_path: Path) -> None:
    names = {run_name([f"data.root={'文' * length}", "seed=1"], str(tmp_path)) for length in (38, 39, 300)}
    assert len(names) == 3
    for name in names:
        assert name.startswith("seed=1")
        assert len(name.encode()) <= 120 + len("-12345678")
    assert run_name([f"data.root={'文' * 300}"], str(tmp_path)).startswith(f"root={'文' * 38}-")


def test_no_two_options_of_the_configs_have_one_short_name() -> None:
    seen: dict[str, str] = {}
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for model in ("rhn", "on_lstm", "awd_lstm_mos", "small_lstm"):
            for optimizer in ("sntasgd", "adam", "sgd"):
                config: Any = OmegaConf.to_container(compose("train", [f"model={model}", f"optimizer={optimizer}"]))
                for key, _ in flat(config):
                    name = run_name([f"{key}=1"])
                    if name != "default":
                        assert seen.setdefault(name, key) == key
    # Nor any that a class of ours or of torch takes beside those.
    classes = {"data": [TextDataModule], "model": [LanguageModel], "trainer": [Trainer]}
    classes["optimizer"] = [SNTASGD, torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop]
    classes["model.network"] = [getattr(models, target.rpartition(".")[2]) for target in NETWORKS]
    for group, kinds in classes.items():
        for option in {option for kind in kinds for option in options_of(kind) or ()} - {"vocab_size"}:
            name = run_name([f"+{group}.{option}=1"])
            if name != "default":
                assert seen.setdefault(name, f"{group}.{option}") == f"{group}.{option}"


@pytest.mark.parametrize("name", ["a/b", "../a", "a\\b", ".hidden", "", ".", "文" * 100])
def test_a_name_of_ones_own_is_one_that_a_folder_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="Expected name to be one that a folder can have"):
        check_name(name)
    with pytest.raises(ValueError, match="Expected name to be one"):
        run_name([], "runs", name)


def folders(
    monkeypatch: pytest.MonkeyPatch, output: Path, *options: str, made: bool = True
) -> list[tuple[str, dict[str, Any]]]:
    """The folders of a command's runs below ``output``, which are made and not trained."""
    found = []

    def train(config: Any, folder: Path) -> dict[str, float]:
        found.append((folder.relative_to(output).as_posix(), OmegaConf.to_container(config.logger, resolve=True)))
        return {"val_ppl": 1.0}

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(sys, "argv", ["sparse-rnn-train", f"output={output}", *options])
    monkeypatch.setattr(sys, "path", list(sys.path))
    command.main()
    return found


def test_the_command_takes_names_and_finds_runs_under_the_names_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("optimizer.lr=3", "seed=2")
    assert folders(monkeypatch, tmp_path, *options) == [("lr=3,seed=2", {})]
    assert not tmp_path.exists() or not list(tmp_path.iterdir())  # Hydra's folder was left empty
    assert folders(monkeypatch, tmp_path, *options, "name=seed=1,lr=2")[0][0] == "seed=1,lr=2"
    assert folders(monkeypatch, tmp_path, "-m", "seed=1,2", "name=mine") == [("mine/seed=1", {}), ("mine/seed=2", {})]
    ((_, logger),) = folders(monkeypatch, tmp_path, *options, "logger=wandb")
    assert logger["name"] == "lr=3,seed=2"
    before = old_run_name(options)
    assert before == "optimizer.lr=3,seed=2"
    (tmp_path / before).mkdir()
    (tmp_path / before / "config.yaml").touch()
    assert folders(monkeypatch, tmp_path, *options)[0][0] == before
    assert [name for name, _ in folders(monkeypatch, tmp_path, "-m", "optimizer.lr=3,4", "seed=2")] == [
        before,
        "lr=4,seed=2",
    ]
