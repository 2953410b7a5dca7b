"""``sparse-rnn-test``: the test perplexity of a run or of one checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_sparse_rnn.checkpoints.fits import check_fits, check_text
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.commands.plain_errors import told_plainly
from lightning_sparse_rnn.runs.config import model_config
from lightning_sparse_rnn.runs.folder import BEST, CONFIG
from lightning_sparse_rnn.runs.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.runs.quiet import quiet

__all__ = ["main", "test"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the test loss and perplexity of a run's best checkpoint, or of another one, as JSON."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-test", description=main.__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of sparse-rnn-train")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint of that run; its best.ckpt if not given")
    parser.add_argument("overrides", nargs="*", help="values of its config to change, as in data.test_batch_size=1")
    given = parser.parse_intermixed_args(arguments)
    quiet()
    with told_plainly("sparse-rnn-test"):
        config = _config(given.run, given.overrides)
        metrics = test(config, given.checkpoint or given.run / BEST)
    print(json.dumps(metrics, indent=2))


def test(config: DictConfig, checkpoint: Path) -> dict[str, float]:
    """Return ``test_loss`` (nats a token) and ``test_ppl`` of a checkpoint on the text of ``config``.

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
    data.prepare_data()
    model = instantiate(model_config(config, data.vocab_size), vocab_size=data.vocab_size)
    saved = load_checkpoint(checkpoint)
    check_fits(saved, model)
    check_text(saved, data)
    trainer.precision_plugin.convert_module(model)  # before weights of float64 would be rounded
    model.load_state_dict(saved["state_dict"])
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return dict(metrics)


def _config(run: Path, overrides: Sequence[str]) -> DictConfig:
    path = run / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"Expected the folder of a run, with its {CONFIG}, got {run}.")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    OmegaConf.set_struct(config, True)
    for override in overrides:
        try:
            _override(config, override)
        except Exception as error:  # OmegaConf's, of several kinds
            raise ValueError(f"Expected overrides like data.test_batch_size=1, got {override}: {error}") from None
    return config


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
