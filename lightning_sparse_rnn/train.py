"""``sparse-rnn-train``: one training run, or with ``-m`` several, from the configs."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_sparse_rnn.accounting import account, uses_per_token
from lightning_sparse_rnn.averaging import NonMonotonicAveraging
from lightning_sparse_rnn.background_checkpoints import BackgroundCheckpointIO
from lightning_sparse_rnn.best import BestCheckpoint
from lightning_sparse_rnn.callback import SelfishSparseCallback
from lightning_sparse_rnn.checkpoints import WholeFileCheckpointIO, check_text, find_last_good, peek
from lightning_sparse_rnn.config import CONFIG_DIR, RUN_CONFIG, SHOWN, model_config
from lightning_sparse_rnn.data import unigram_perplexity
from lightning_sparse_rnn.files import write_json
from lightning_sparse_rnn.flat_config import differences
from lightning_sparse_rnn.matmul_precision import set_matmul_precision
from lightning_sparse_rnn.mistakes import told_plainly
from lightning_sparse_rnn.plots import draw_run
from lightning_sparse_rnn.progress import PerplexityProgressBar
from lightning_sparse_rnn.quiet import quiet
from lightning_sparse_rnn.record import RunRecord
from lightning_sparse_rnn.sparsity import sparsifiable_parameters
from lightning_sparse_rnn.sweeping import Jobs, RunInterrupted, worked_on

__all__ = ["main", "train"]

_jobs = Jobs()


def main() -> None:
    """``sparse-rnn-train``."""
    sys.path.append(str(Path.cwd()))  # for rules of the user's own
    _run()
    if left := _jobs.summary():
        print(left, flush=True)
    if _jobs.failed:
        sys.exit(1)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def _run(config: DictConfig) -> float:
    """Train what ``config`` describes, in Hydra's run folder, and return the best validation perplexity."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode != RunMode.MULTIRUN:
        with told_plainly("sparse-rnn-train"):
            return float(train(config, folder)["val_ppl"])
    with _jobs.job(folder.name), told_plainly("sparse-rnn-train"):
        _refuse_more_devices(config)
        return float(train(config, folder)["val_ppl"])
    return math.nan


def train(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train, test and write down one run; go on with it if ``folder`` holds an unfinished one.

    Returns:
        What is in ``results.json``.

    Raises:
        SystemExit: the folder holds a run of another config, or another process is working on it.
    """
    quiet()
    if getattr(rank_zero_only, "rank", 0):
        return _train(config, folder)  # the first process holds the run for all
    with worked_on(folder):
        _refuse_other_config(folder, config)
        return _train(config, folder)


def _train(config: DictConfig, folder: Path) -> dict[str, Any]:
    finished = folder / "results.json"
    if finished.exists():
        _say(f"This run is finished: {finished}. To run it again, remove its folder.")
        results: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        _say(_summary(results))
        return results

    versions = _versions()
    set_matmul_precision(config.matmul_precision)
    pl.seed_everything(config.seed, verbose=False)
    # What is quick to make comes first, so that a mistake in it shows before text is read.
    sparsity = instantiate(config.method) if "_target_" in config.method else None
    if sparsity is None and config.method.sparsity:
        raise SystemExit(
            f"Expected method.sparsity=0 for a dense method, got {config.method.sparsity}. Choose method=selfish or "
            "another sparse one, or set `sparsity`, which is for all methods at once: dense ones take no note of it."
        )
    averaging = instantiate(config.averaging) if config.averaging else None
    data = instantiate(config.data)
    data.prepare_data()
    data.val_dataloader(), data.test_dataloader()  # a text that is too short shows now, and not after training
    model = instantiate(model_config(config, data.vocab_size), vocab_size=data.vocab_size)
    record = RunRecord(folder, OmegaConf.to_yaml(config, resolve=True), sparsity, averaging)
    best = BestCheckpoint(folder, sparsity)
    # A checkpoint of every epoch's end to resume from, whatever became of the loss.
    last = ModelCheckpoint(
        folder / "checkpoints", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    bar = PerplexityProgressBar(sparsity) if config.trainer.enable_progress_bar else None
    callbacks = [averaging, sparsity, bar, record, best, last]
    trainer: pl.Trainer = instantiate(
        config.trainer,
        callbacks=[callback for callback in callbacks if callback is not None],
        logger=instantiate(config.logger) if config.logger else False,
        plugins=[WholeFileCheckpointIO()],
        default_root_dir=str(folder),
    )
    if not trainer.limit_test_batches:
        raise ValueError(
            f"Expected trainer.limit_test_batches of more than 0, got {trainer.limit_test_batches}: a run ends with "
            "its test. Leave that out."
        )
    if trainer.strategy.root_device.type != "cpu":  # whose epochs may be as short as it takes to write their weights
        trainer.strategy.checkpoint_io = BackgroundCheckpointIO()
    checkpoint = find_last_good(folder / "checkpoints")
    if checkpoint is not None:
        _say(f"Going on from {checkpoint}.")
        check_text(peek(checkpoint), data)  # which Lightning would look at after the weights
    with _interruptible():
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    if not best.best_model_path and sparsity is not None and not sparsity.sparsity_reached:
        raise SystemExit(
            f"The run ended at sparsity {sparsity.topology.sparsity:.4f}, before it reached {config.method.sparsity}: "
            "its last topology update came too early. Train for more epochs, or lower method.sparsity_reached_at."
        )
    if not best.best_model_path:
        raise SystemExit(
            "The run ended without a validation to choose the best weights by, so there is nothing to test. Let it "
            "validate: see trainer.max_epochs, trainer.max_steps, trainer.limit_val_batches and "
            "trainer.check_val_every_n_epoch."
        )
    with _interruptible():
        trainer.test(model, datamodule=data, ckpt_path=best.best_model_path, verbose=False)

    results = {**_results(config, data, model, trainer, record, best, sparsity, averaging), "versions": versions}
    if trainer.is_global_zero:
        picture = draw_run(record.rows, record.topology_rows())
        picture.savefig(folder / "run.png", dpi=150)
        _log_end(trainer, picture, results)
        write_json(finished, results)
    _say(_summary(results) + f"\nEverything is in {folder}")
    return results


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say that a run was interrupted, which to Lightning is an exit like any other.

    Raises:
        RunInterrupted: someone pressed Ctrl-C, or sent SIGTERM.
    """
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended, SIGTERMException) or isinstance(ended.__context__, KeyboardInterrupt):
            raise RunInterrupted(
                "Interrupted. The same command goes on from the last epoch that was finished."
            ) from ended
        raise


def _refuse_more_devices(config: DictConfig) -> None:
    if config.trainer.devices not in (1, "1"):
        raise SystemExit(
            "With -m all runs share one process, and a run on several devices starts processes of its own. Expected "
            f"trainer.devices=1, got {config.trainer.devices}. Start the runs one by one, without -m."
        )


def _refuse_other_config(folder: Path, config: DictConfig) -> None:
    path = folder / RUN_CONFIG
    if path.exists():
        old, new = OmegaConf.to_container(OmegaConf.load(path)), OmegaConf.to_container(config, resolve=True)
        changed = [line for line in differences(old, new) if not line.startswith(SHOWN)]  # type: ignore[arg-type]
        if changed:
            raise SystemExit(
                f"{folder} holds a run with another config:\n  " + "\n  ".join(changed) + "\nRemove that folder, or "
                "choose another place with output=FOLDER."
            )


def _results(
    config: DictConfig,
    data: Any,
    model: pl.LightningModule,
    trainer: pl.Trainer,
    record: RunRecord,
    best: ModelCheckpoint,
    sparsity: SelfishSparseCallback | None,
    averaging: NonMonotonicAveraging | None,
) -> dict[str, Any]:
    total = sum(parameter.numel() for parameter in sparsifiable_parameters(model).values())
    live = total if sparsity is None else total - sparsity.topology.total_weights + sparsity.topology.live_weights
    assert best.best_model_score is not None
    return {
        "test_ppl": float(trainer.callback_metrics["test_ppl"]),
        "val_ppl": float(best.best_model_score.exp()),
        "unigram_ppl": unigram_perplexity(data.corpus.train, data.corpus.test, data.vocab_size),
        "sparsity": 1.0 - live / total,
        "live_weights": live,
        "total_weights": total,
        "epochs": len(record.rows),
        "accounting": None if sparsity is None else _account(model, sparsity, trainer),
        "averaging_began_epoch": None if averaging is None else averaging.began_epoch,
        "seconds": round(record.seconds, 1),
        "seed": config.seed,
    }


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("pytorch-lightning", "lightning-sparse-rnn")}
    return {"python": platform.python_version(), "torch": torch.__version__, **packages}


def _account(model: pl.LightningModule, sparsity: SelfishSparseCallback, trainer: pl.Trainer) -> dict[str, float]:
    topology = sparsity.topology
    uses = uses_per_token(model)
    by_name = {name: uses[parameter] for name, parameter in topology.parameters.items()}
    needs = topology.needs
    gradients = "always" if "momenta" in needs else "updates" if "gradients" in needs else "never"
    return account(sparsity.updates, topology.gate_sizes, by_name, trainer.global_step, gradients)


def _summary(results: dict[str, Any]) -> str:
    began = results["averaging_began_epoch"]
    return (
        f"test perplexity {results['test_ppl']:.2f}, validation {results['val_ppl']:.2f} "
        f"(an add-one unigram model: {results['unigram_ppl']:.2f})\n"
        f"{results['live_weights']:,} of {results['total_weights']:,} weights live, {results['epochs']} epochs in "
        f"{results['seconds']:.0f} s, averaging " + ("never began" if began is None else f"began in epoch {began}")
    )


def _log_end(trainer: pl.Trainer, picture: Figure, results: dict[str, Any]) -> None:
    """Give the run's loggers what is only known when it has ended."""
    for logger in trainer.loggers:
        if results["accounting"] is not None:
            costs = {f"accounting/{name}": value for name, value in results["accounting"].items()}
            logger.log_metrics(costs, step=trainer.global_step)
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure("run", picture, trainer.global_step)
        logger.finalize("success")


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
