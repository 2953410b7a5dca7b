"""Files that name what is to be made: our own networks and optimizers are, and nothing else."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lightning_sparse_rnn import SNTASGD, models
from lightning_sparse_rnn.models import LSTM, LanguageModel, Network
from lightning_sparse_rnn.models.building import NETWORKS, OPTIMIZERS, SCHEDULERS, check_options, check_sizes

NETWORK = {"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 4, "hidden_size": 4, "num_layers": 1}
PLAIN = {"network": NETWORK, "vocab_size": 9, "optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0}}


def write(path: Path, **options: Any) -> Path:
    """A checkpoint of a small model that claims to have been made with other ``options``."""
    model = LanguageModel(**PLAIN)
    saved = {"state_dict": model.state_dict(), "global_step": 1, "hyper_parameters": {**PLAIN, **options}}
    torch.save(saved, path)
    return path


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where one of the usual ways to run something is called."""
    for module, name in ((os, "system"), (torch.hub, "load"), (Path, "write_text"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, lambda *args, name=name, **kwargs: pytest.fail(f"{name} was called"))


def acts(trap: str) -> list[Any]:
    """Values that each do something when Hydra makes them."""
    return [
        {"_target_": "numpy.savetxt", "fname": trap, "X": [1.0]},
        {"_target_": "torch.save", "obj": 1, "f": trap},
        {"_target_": "pathlib.Path.write_text", "_args_": [{"_target_": "pathlib.Path", "_args_": [trap]}, "x"]},
        {"_target_": "os.system", "command": f"touch {trap}"},
        {"_target_": "torch.hub.load", "repo_or_dir": "someone/something", "model": "any"},
        {"_target_": "subprocess.Popen", "_args_": [["touch", trap]]},
        [1, {"deep": [{"_target_": "torch.save", "obj": 1, "f": trap}]}],
        {"_partial_": True, "_target_": "os.system", "command": f"touch {trap}"},
        {"_args_": [1]},
        {"_convert_": "all"},
        "${oc.env:HOME}",
        ["${oc.env:HOME}"],
        "text",
        [4],
        {"a": 4},
        torch.tensor(4),
    ]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("case", range(len(acts(""))))
@pytest.mark.parametrize(
    "place", ["embedding_size", "dropout", "vocab_size", "optimizer", "scheduler", "network", "ar"]
)
def test_what_acts_is_refused_wherever_it_stands(tmp_path: Path, case: int, place: str) -> None:
    trap = tmp_path / "trap"
    value = acts(str(trap))[case]
    options = {"network": {**NETWORK, place: value}} if place in ("embedding_size", "dropout") else {place: value}
    path = write(tmp_path / "hostile.ckpt", **options)
    with pytest.raises(ValueError, match=r"Expected `|could run any code"):
        LanguageModel.load_from_checkpoint(path)
    assert not trap.exists()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    "target",
    [
        "lightning_sparse_rnn.models.network.torch.save",
        "lightning_sparse_rnn.models.LanguageModel",
        "lightning_sparse_rnn.models.LSTM.load_state_dict",
        "lightning_sparse_rnn.models.building.rebuilt",
        "lightning_sparse_rnn.models.lstm",
        "lightning_sparse_rnn.modelsLSTM",
        "lightning_sparse_rnn.models.LSTM ",
        "lightning_sparse_rnn.SNTASGD",
        "torch.optim.SGD",
        "torch.nn.LSTM",
        "torch.optim.lr_scheduler.weakref.ref",
        "",
        None,
        7,
        ["lightning_sparse_rnn.models.LSTM"],
    ],
)
def test_a_name_that_is_no_network_is_refused_as_one(tmp_path: Path, target: Any) -> None:
    path = write(tmp_path / "hostile.ckpt", network={**NETWORK, "_target_": target})
    with pytest.raises(ValueError, match="none of this package's own, and making it could run any code"):
        LanguageModel.load_from_checkpoint(path)


@pytest.mark.parametrize("what", ["optimizer", "scheduler"])
@pytest.mark.parametrize(
    "target",
    [
        "lightning_sparse_rnn.models.LSTM",
        "torch.optim.sgd.torch.save",
        "os.system",
        "torch.optim.swa_utils.AveragedModel",
    ],
)
def test_a_name_that_is_no_optimizer_is_refused_as_one(what: str, target: str) -> None:
    for config in ({"_target_": target}, {"scheduler": {"_target_": target}, "interval": "step"}):
        with pytest.raises(ValueError, match=r"`_target_`|could run any code"):
            check_options({what: config})


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_convert_", "_recursive_", "_anything"])
@pytest.mark.parametrize("where", ["network", "optimizer"])
def test_hydras_own_keys_are_refused(where: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"`{where}` of a file to be a plain value, got the key '{key}'"):
        check_options({where: {**PLAIN[where], key: False}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("embedding_size", 10**5),
        ("hidden_size", 10**9),
        ("hidden_size", 10**30),
        ("num_layers", 10**9),
        ("num_layers", 3),
        ("embedding_size", -4),
        ("hidden_size", 0),
        ("hidden_size", 4.0),
        ("hidden_size", math.nan),
        ("dropout", math.nan),
        ("dropout", math.inf),
        ("embedding_size", "4"),
        ("vocab_size", 10**12),
        ("vocab_size", 8),
        ("unheard_of", 1),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused(
    tmp_path: Path, name: str, size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"vocab_size": size} if name == "vocab_size" else {"network": {**NETWORK, name: size}}
    path = write(tmp_path / "hostile.ckpt", **options)

    def allocate(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        pytest.fail("the module was made")

    monkeypatch.setattr(LanguageModel, "__init__", allocate)
    with pytest.raises(ValueError, match=r"Expected|has num_layers|another model|cannot be made"):
        LanguageModel.load_from_checkpoint(path)


def test_weights_that_claim_to_be_larger_than_they_are_are_refused() -> None:
    honest = LSTM(1000, 40, 4, num_layers=1)
    network = {**NETWORK, "embedding_size": 40}
    weights = {f"network.{name}": tensor for name, tensor in honest.state_dict().items()}
    check_sizes(network, 1000, weights)
    check_sizes(network, 1000, {name: tensor.bfloat16() for name, tensor in weights.items()})
    claimed = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in weights.items()}
    with pytest.raises(ValueError, match=r"takes \d.* bytes, and the checkpoint's weights have 28\."):
        check_sizes(network, 1000, claimed)
    memory = torch.zeros(40 * 1000)
    shared = {name: memory[: tensor.numel()].view(tensor.shape) for name, tensor in weights.items()}
    check_sizes(network, 1000, shared)  # twice as much as there is, which costs nobody anything


def test_every_network_of_the_package_can_be_made_from_a_file() -> None:
    public = [each for name in models.__all__ if isinstance(each := getattr(models, name), type)]
    networks = [each for each in public if issubclass(each, Network) and each is not Network]
    for network in networks:
        assert NETWORKS[f"lightning_sparse_rnn.models.{network.__name__}"] is network
        assert NETWORKS[f"{network.__module__}.{network.__name__}"] is network
    assert set(NETWORKS.values()) == set(networks)


def test_optimizers_and_schedulers_are_torchs_and_ours() -> None:
    assert OPTIMIZERS["torch.optim.Adam"] is OPTIMIZERS["torch.optim.adam.Adam"] is torch.optim.Adam
    assert OPTIMIZERS["lightning_sparse_rnn.SNTASGD"] is OPTIMIZERS["lightning_sparse_rnn.optim.SNTASGD"] is SNTASGD
    assert all(issubclass(each, torch.optim.Optimizer) for each in OPTIMIZERS.values())
    assert SCHEDULERS["torch.optim.lr_scheduler.OneCycleLR"] is torch.optim.lr_scheduler.OneCycleLR
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "mode": "min", "patience": 3}
    adam = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "betas": [0.9, 0.95], "fused": None}
    check_options({**PLAIN, "optimizer": adam, "scheduler": {"scheduler": plateau, "monitor": "val_loss"}, "ar": 2})
    check_options({**PLAIN, "scheduler": plateau})


class Own(nn.Module):
    """A network of the user's own."""

    def __init__(self, vocab_size: int, size: int = 3) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, size)


def test_a_module_of_ones_own_is_made_if_it_is_passed_or_the_file_is_trusted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "my_networks", type(sys)("my_networks"))
    monkeypatch.setattr(sys.modules["my_networks"], "Own", Own, raising=False)
    network = {"_target_": "my_networks.Own", "size": 5}
    model = LanguageModel(network, 9)
    path = tmp_path / "own.ckpt"
    torch.save({"state_dict": model.state_dict(), "global_step": 1, "hyper_parameters": dict(model.hparams)}, path)
    with pytest.raises(ValueError, match=r"'my_networks.Own' as its `network`.*trusted=True, or --trust"):
        LanguageModel.load_from_checkpoint(path)
    loads: list[Callable[[], LanguageModel]] = [
        lambda: LanguageModel.load_from_checkpoint(path, trusted=True),
        lambda: LanguageModel.load_from_checkpoint(path, network=Own(9, 5)),
        lambda: LanguageModel.load_from_checkpoint(path, network=network),
    ]
    for load in loads:
        assert torch.equal(load().network.table.weight, model.network.table.weight)


class Larger(LanguageModel):
    """A model of the user's own, with hyperparameters of its own."""

    def __init__(self, network: Any, vocab_size: int, note: str = "") -> None:
        super().__init__(network, vocab_size)
        self.note = note
        self.save_hyperparameters({"note": note})


def test_a_class_of_ones_own_is_made_with_plain_values(tmp_path: Path) -> None:
    model = Larger(NETWORK, 9, note="hello")
    path = tmp_path / "larger.ckpt"
    torch.save({"state_dict": model.state_dict(), "global_step": 1, "hyper_parameters": dict(model.hparams)}, path)
    assert Larger.load_from_checkpoint(path).note == "hello"
    assert Larger.load_from_checkpoint(path, note="other").note == "other"


def test_other_objects_are_read_from_trusted_files_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "objects.ckpt", optimizer=OmegaConf.create(PLAIN["optimizer"]))
    with pytest.raises(ValueError, match="If you trust whoever made the file, pass weights_only=False"):
        LanguageModel.load_from_checkpoint(path)
    loaded = LanguageModel.load_from_checkpoint(path, trusted=True)
    assert loaded.hparams["optimizer"] == PLAIN["optimizer"]


def test_a_file_of_hyperparameters_is_no_more_trusted(tmp_path: Path) -> None:
    path = write(tmp_path / "model.ckpt", network=None)
    (tmp_path / "good.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(PLAIN)))
    loaded = LanguageModel.load_from_checkpoint(path, hparams_file=tmp_path / "good.yaml")
    assert loaded.network.vocab_size == 9
    hostile = {**PLAIN, "network": {"_target_": "os.system", "command": "exit 1"}}
    (tmp_path / "bad.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(hostile)))
    with pytest.raises(ValueError, match=r"'os.system' as its `network`"):
        LanguageModel.load_from_checkpoint(path, hparams_file=tmp_path / "bad.yaml")
