"""The configs: all compose and instantiate."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from lightning_sparse_rnn import SNTASGD, NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs.config import CONFIG_DIR, model_config
from lightning_sparse_rnn.sparsity import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.rules.allocation import find_allocation


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [*overrides, "hydra.run.dir=unused", "hydra.sweep.subdir=unused"])


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


@pytest.mark.parametrize("name", names("data"))
def test_every_data_config_makes_a_datamodule(name: str) -> None:
    root = ["data.root=somewhere"] if name == "folder" else []
    assert isinstance(instantiate(composed(f"data={name}", *root).data), TextDataModule)


@pytest.mark.parametrize("name", names("method"))
def test_every_method_is_a_callback_or_dense(name: str) -> None:
    method = composed(f"method={name}").method
    if "_target_" in method:
        assert isinstance(instantiate(method), SelfishSparseCallback)
    else:
        assert method.sparsity == 0.0


@pytest.mark.parametrize("name", names("model"))
@pytest.mark.parametrize("optimizer", names("optimizer"))
def test_every_model_trains_with_every_optimizer(name: str, optimizer: str) -> None:
    config = composed(f"model={name}", f"optimizer={optimizer}")
    with torch.device("meta"):
        model = instantiate(model_config(config, 50), vocab_size=50)
    assert isinstance(model, LanguageModel)
    made = model.configure_optimizers()
    assert type(made).__name__ == config.optimizer["_target_"].rsplit(".", 1)[1]
    if isinstance(made, SNTASGD):
        assert isinstance(instantiate(config.callbacks.averaging), NonMonotonicAveraging)
    else:
        assert config.callbacks.averaging is None


# Millions of weights as published, and the size of the corpus's vocabulary.
PUBLISHED_SIZES = {
    "ptb_stacked_lstm": (66.0, 10_000),
    "ptb_stacked_lstm_best": (51.0, 10_000),
    "ptb_rhn": (23.5, 10_000),
    "ptb_on_lstm": (25.0, 10_000),
    "ptb_awd_lstm": (24.2, 10_000),
    "wikitext2_awd_lstm": (33.6, 33_278),
    "wikitext2_mos": (35.0, 33_278),
}


@pytest.mark.parametrize("name", names("experiment"))
def test_every_experiment_makes_its_parts(name: str) -> None:
    config = composed(f"experiment={name}")
    with torch.device("meta"):
        model = instantiate(model_config(config, 50), vocab_size=PUBLISHED_SIZES.get(name, (0, 50))[1])
    assert isinstance(model.configure_optimizers(), SNTASGD)
    assert isinstance(instantiate(config.callbacks.averaging), NonMonotonicAveraging)
    assert isinstance(instantiate(config.data), TextDataModule)
    sparse = instantiate(composed(f"experiment={name}", "method=selfish").method)
    assert isinstance(sparse, SelfishSparseCallback)


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_recipes_have_the_published_number_of_weights(name: str) -> None:
    millions, vocabulary = PUBLISHED_SIZES[name]
    with torch.device("meta"):
        model = instantiate(composed(f"experiment={name}").model, vocab_size=vocabulary)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_methods_that_are_not_sparse_pass_over_a_recipes_sparsity() -> None:
    assert composed("experiment=ptb_stacked_lstm", "method=dense").method == {"sparsity": 0.0}


def test_the_papers_stacked_lstm_is_the_papers() -> None:
    config = composed("experiment=ptb_stacked_lstm")
    assert (config.data.source, config.data.batch_size, config.data.bptt) == ("ptb", 20, 35)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (40.0, 1.2e-6)
    assert (config.method.sparsity, config.method.prune_rate) == (0.67, 0.8)
    assert (config.trainer.max_epochs, config.trainer.gradient_clip_val) == (100, 0.25)
    with torch.device("meta"):
        model = instantiate(config.model, vocab_size=10_000)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert weights == 2 * 10_000 * 1500 + 10_000 + 2 * (4 * 1500 * 3000 + 2 * 4 * 1500)
    assert model.network.dropout.p == 0.65


@pytest.mark.parametrize(("name", "live"), [("ptb_stacked_lstm", 21_780_000), ("ptb_stacked_lstm_best", 21_777_000)])
def test_what_is_to_go_below_the_paper_has_no_more_live_weights(name: str, live: int) -> None:
    config = composed(f"experiment={name}")
    with torch.device("meta"):
        model = instantiate(model_config(config, 10_000), vocab_size=10_000)
    shapes = {key: tuple(parameter.shape) for key, parameter in sparsifiable_parameters(model).items()}
    counts = find_allocation(config.method.allocation)(shapes, 1.0 - config.method.sparsity)
    assert sum(counts.values()) == live <= 21_780_000


def test_overrides_reach_the_parts() -> None:
    config = composed("method=selfish", "method.sparsity=0.8", "data=folder", "data.root=/some/folder", "seed=7")
    assert config.method.sparsity == 0.8
    assert config.method.seed == config.data.seed == 7
    assert config.data.root == "/some/folder"


def test_models_and_networks_of_ones_own_need_not_take_the_options_for_gpus() -> None:
    config = composed("model._target_=my.Model", "model.network._target_=my.Network")
    own = model_config(config, 50)
    assert not {"cuda_graphs", "fused_cells"} & {*own, *own.network}
    asked = model_config(composed("model.cuda_graphs=false", "model.network.fused_cells=true"), 50)
    assert asked.cuda_graphs is False
    assert asked.network.fused_cells is True


def test_configs_are_where_the_package_looks() -> None:
    assert (CONFIG_DIR / "train.yaml").is_file()
    assert CONFIG_DIR.is_relative_to(Path(__file__).parents[2])
