"""Where the configs are, what they can refer to, and what a run's config says of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_sparse_rnn.runs.naming import check_name, run_name
from lightning_sparse_rnn.runs.old_configs import without_usual_options

__all__ = ["CONFIG_DIR", "chosen", "model_config", "sweep_folder", "written_config"]

_PACKAGE = Path(__file__).parent.parent
#: An installed package has the configs inside; a checkout has them beside it.
CONFIG_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
_GROUPS = ("method", "experiment", "data", "model", "optimizer")


def sweep_folder(output: str, name: str | None = None) -> str:
    """Return the folder of a sweep's runs: one of its own if it has a name."""
    if name is None:
        return output
    check_name(name)
    return str(Path(output) / name)


def chosen() -> Any:
    """Return which config of each group Hydra was told to take, or nothing outside of Hydra's commands."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return OmegaConf.create({group: choices[group] for group in _GROUPS})


def written_config(path: Path) -> DictConfig:
    """Return the config that a run has written down. Nothing that it names is made.

    Raises:
        ValueError: the file is damaged, or holds no config.
    """
    try:
        config = OmegaConf.load(path)  # whose loader makes no objects
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The settings in {path} cannot be read: {error}") from error
    if not isinstance(config, DictConfig) or not config:
        raise ValueError(f"Expected the settings of a run in {path}, got {'nothing' if not config else 'a list'}.")
    return config


def model_config(config: DictConfig, vocab_size: int) -> Any:
    """Return the config of a run's model: ``config.model`` with the optimizer, without options that say the usual.

    Where the method is dense and only as large as a sparse one (``weights_of_sparsity``), its network is shrunk.
    """
    given: Any = OmegaConf.to_container(config.model, resolve=True)
    model = without_usual_options(given)
    if "optimizer" in config:
        model["optimizer"] = OmegaConf.to_container(config.optimizer, resolve=True)
    if "weights_of_sparsity" in config.method:
        from lightning_sparse_rnn.models.sizes import shrink  # here, since Lightning takes seconds to import

        model["network"] = shrink(model["network"], vocab_size, config.method.weights_of_sparsity)
    return OmegaConf.create(model)


OmegaConf.register_new_resolver("chosen", chosen, replace=True)
OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("last_part", lambda path: Path(path).name, replace=True)
