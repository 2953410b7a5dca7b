"""``sparse-rnn-test``: the test perplexity of a run or of one checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_sparse_rnn.checkpoints.fits import check_fits, check_text
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.commands.plain_errors import told_plainly
from lightning_sparse_rnn.data import TextDataModule, Vocabulary
from lightning_sparse_rnn.data.texts import read_text
from lightning_sparse_rnn.inference.compression import compress_where_it_pays
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.models.building import NETWORKS, check_named, check_options, check_sizes
from lightning_sparse_rnn.runs.config import model_config
from lightning_sparse_rnn.runs.folder import BEST, CONFIG
from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.runs.quiet import quiet
from lightning_sparse_rnn.utilities.plain_values import check_plain

__all__ = ["main", "test"]

# What testing makes of a run's config, by the names that configs have for it.
_TRAINERS = {"pytorch_lightning.Trainer": pl.Trainer}
_DATA = {"lightning_sparse_rnn.data.TextDataModule": TextDataModule}
_MODELS = {"lightning_sparse_rnn.models.LanguageModel": LanguageModel}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the test loss and perplexity of a run's best checkpoint, or of another one, as JSON."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-test", description=main.__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of sparse-rnn-train")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of that run; its best.ckpt if not given")
    parser.add_argument("--text", type=Path, help="a file to test on, in the place of the run's own test text")
    parser.add_argument("--trust", action="store_true", help="make whatever the run names; it may then run any code")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="values of its config to change, as in data.test_batch_size=1"
    )
    given = parser.parse_intermixed_args(arguments)
    quiet()
    with told_plainly("sparse-rnn-test"):
        config = _config(given.run, given.overrides, given.trust)
        metrics = test(config, given.checkpoint or given.run / BEST, text=given.text, trusted=given.trust)
    print(json.dumps(metrics, indent=2))


def test(
    config: DictConfig,
    checkpoint: Path,
    *,
    text: Path | None = None,  # noqa: PT028
    trusted: bool = False,  # noqa: PT028
) -> dict[str, float]:
    """Return ``test_loss`` (nats a token) and ``test_ppl`` of a checkpoint on the text of ``config``.

    Args:
        config: that of a run; whatever it names is made.
        checkpoint: the file of weights.
        text: a file to test on, read with the vocabulary in the checkpoint: the training text need not be there.
        trusted: read other objects than tensors and plain values from it, which may run any code.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged, or of another model or text; the message says what differs.
    """
    set_matmul_precision(config.matmul_precision)
    # The run's own Trainer, since precision and limits have a say in the result.
    trainer: pl.Trainer = instantiate(
        config.trainer,
        devices=1,
        strategy="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = instantiate(config.data)
    saved = load_checkpoint(checkpoint, weights_only=not trusted)
    if text is None:
        if config.get("init_from") is not None:
            data.read_with(_vocabulary(saved, checkpoint))
        data.prepare_data()
    else:
        data.read_only(_vocabulary(saved, checkpoint), read_text(text))
    options = model_config(config, data.vocab_size)
    if OmegaConf.select(options, "network._target_") in NETWORKS:  # of others only making them tells the sizes
        check_sizes(OmegaConf.to_container(options.network), data.vocab_size, saved["state_dict"])  # type: ignore[arg-type]
    model = instantiate(options, vocab_size=data.vocab_size)
    check_fits(saved, model)
    check_text(saved, data)
    trainer.precision_plugin.convert_module(model)  # before weights of float64 would be rounded
    model.load_state_dict(saved["state_dict"])
    if trainer.precision == "32-true" and trainer.strategy.root_device.type == "cpu" and _one_column(config):
        model.network = compress_where_it_pays(model.network)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return dict(metrics)


def _vocabulary(saved: Mapping[str, Any], checkpoint: Path) -> Vocabulary:
    state = saved.get(TextDataModule.__qualname__, {}).get("text")
    if state is None:
        raise ValueError(f"{checkpoint} has no vocabulary: it was written before they had one. Leave --text out.")
    return Vocabulary.from_state(state)


def _one_column(config: DictConfig) -> bool:
    """Whether packed weights pay: with many columns a dense product is as fast."""
    return bool(OmegaConf.select(config, "data.test_batch_size") == 1)


def _config(run: Path, overrides: Sequence[str], trusted: bool) -> DictConfig:
    """The config of a run's folder, with what is given on the command line, which may name anything."""
    path = run / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"Expected the folder of a run, with its {CONFIG}, got {run}.")
    try:
        config = OmegaConf.load(path)  # whose loader makes no objects
    except yaml.YAMLError as error:
        raise ValueError(f"The settings in {path} cannot be read: {error}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"Expected the settings of a run in {path}, got a {type(config).__name__}.")
    if not trusted:
        _check_config(OmegaConf.to_container(config))  # type: ignore[arg-type]
    OmegaConf.set_struct(config, True)
    for override in overrides:
        try:
            _override(config, override)
        except Exception as error:  # OmegaConf's, of several kinds
            raise ValueError(f"Expected overrides like data.test_batch_size=1, got {override}: {error}") from None
    return config


def _check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError if testing would make what a run's config names and is not known here, or resolve a value."""
    check_named("trainer", config.get("trainer"), _TRAINERS)
    check_named("data", config.get("data"), _DATA)
    model = dict(config.get("model") or {})
    if model.pop("_recursive_", False) is not False:
        raise ValueError("Expected `model._recursive_` to be false: a LanguageModel makes its parts itself.")
    check_named("model", {"_target_": model.pop("_target_", None)}, _MODELS)
    check_plain("model", {name: value for name, value in model.items() if name.startswith("_")})
    check_options(model)
    # Other groups may name anything, since nothing of them is made here.
    method = config.get("method")
    check_plain(
        "method.weights_of_sparsity", method.get("weights_of_sparsity") if isinstance(method, Mapping) else None
    )
    check_plain("matmul_precision", config.get("matmul_precision"))
    check_plain("init_from", config.get("init_from"))


def _override(config: DictConfig, override: str) -> None:
    """Change a value, or with ``+`` add one, as in Hydra's commands."""
    name, equals, _ = override.removeprefix("+").partition("=")
    if not equals:
        raise ValueError("there is no =")
    if isinstance(OmegaConf.select(config, name), DictConfig):
        raise ValueError(f"{name} is not one value. Name one in it, as in {name}.{next(iter(config[name]))}=...")
    with open_dict(config) if override.startswith("+") else nullcontext():
        config.merge_with_dotlist([override.removeprefix("+")])


if __name__ == "__main__":
    main()
