"""Dense networks as small as sparse ones are."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_sparse_rnn.models.sizes import shrink
from lightning_sparse_rnn.runs.config import CONFIG_DIR

RECIPES = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml") if "small" not in path.stem)


def weights(network: dict[str, object], vocab_size: int) -> int:
    with torch.device("meta"):
        built = instantiate(network, vocab_size=vocab_size)
    return sum(parameter.numel() for parameter in built.parameters() if parameter.dim() >= 2)


@pytest.mark.parametrize("sparsity", [0.0, 0.55, 0.9])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_network_of_a_recipe_shrinks_to_just_below_its_live_weights(recipe: str, sparsity: float) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        network = OmegaConf.to_container(compose("train", [f"experiment={recipe}"]).model.network)
    assert isinstance(network, dict)
    small = shrink(network, 10_000, sparsity)
    wanted = round((1.0 - sparsity) * weights(network, 10_000))
    assert 0.97 * wanted < weights(small, 10_000) <= wanted
    assert {name: value for name, value in small.items() if not name.endswith("_size") or name == "chunk_size"} == {
        name: value for name, value in network.items() if not name.endswith("_size") or name == "chunk_size"
    }
    if sparsity == 0.0:
        assert small == network


def test_a_network_that_cannot_be_as_small() -> None:
    network = {"_target_": "lightning_sparse_rnn.models.GRU", "embedding_size": 4, "hidden_size": 4}
    with pytest.raises(ValueError, match="No dense network of this kind has as few as 6 weights"):
        shrink(network, 50, 0.99)
