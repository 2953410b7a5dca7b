"""``sparse-rnn-train``: one training run, or with ``-m`` several, from the configs."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lightning_sparse_rnn.commands.plain_errors import told_plainly
from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.jobs import Jobs
from lightning_sparse_rnn.runs.training import train

__all__ = ["main"]

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


def _refuse_more_devices(config: DictConfig) -> None:
    if config.trainer.devices not in (1, "1"):
        raise SystemExit(
            "With -m all runs share one process, and a run on several devices starts processes of its own. Expected "
            f"trainer.devices=1, got {config.trainer.devices}. Start the runs one by one, without -m."
        )


if __name__ == "__main__":
    main()
