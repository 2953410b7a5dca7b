"""Where the configs are, what a run's folder is called, and what its config says of the model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_sparse_rnn.runs.old_configs import without_usual_options

__all__ = ["CONFIG_DIR", "chosen", "model_config", "run_name"]

_PACKAGE = Path(__file__).parent.parent
#: An installed package has the configs inside; a checkout has them beside it.
CONFIG_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
_LONGEST_NAME = 120
_GROUPS = ("method", "experiment", "data", "model", "optimizer")
# Where runs go, and what they show while they train, makes no other run.
_ELSEWHERE = ("output=", "hydra.", "hydra/", "trainer.enable_progress_bar=", "callbacks.progress")


def run_name(overrides: Iterable[str]) -> str:
    """Return the name of a run's folder: its overrides, sorted, with dashes for what a folder's name should not have.

    Overrides that say where runs go, or what they show, are no part of the name. A name that would be too long is cut
    and ends in a hash.
    """
    parts = sorted(override for override in overrides if not override.lstrip("+~").startswith(_ELSEWHERE))
    name = ",".join(re.sub(r"[^\w.,=+-]+", "-", part) for part in parts) or "default"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
    return name


def chosen() -> dict[str, str | None]:
    """Return which config of each group Hydra was told to take, or nothing outside of Hydra's commands."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {group: choices[group] for group in _GROUPS}


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
