"""``sparse-rnn-train``: one training run, or with ``-m`` several, from the configs."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sparse_rnn.commands.own_modules import import_from_here
from lightning_sparse_rnn.commands.plain_errors import interruptible, told_plainly, whole_imports

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["main"]

_COMMAND = "sparse-rnn-train"


@interruptible()
def main() -> None:
    """``sparse-rnn-train``."""
    with whole_imports():
        import hydra

        from lightning_sparse_rnn.commands.overrides import arranged, checked
        from lightning_sparse_rnn.runs.config import CONFIG_DIR
        from lightning_sparse_rnn.runs.jobs import Jobs

    import_from_here()
    sys.argv[1:] = arranged(sys.argv[1:])
    with told_plainly(_COMMAND):
        given = checked(sys.argv[1:])
    with Jobs.of_a_command(*given) as jobs:
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(_run)()
        if left := jobs.summary():
            print(left, flush=True)
        if jobs.failed:
            sys.exit(1)


def _run(config: DictConfig) -> float:
    """Train what ``config`` describes, in Hydra's run folder, and return the best validation perplexity."""
    # Here, where a run begins, since Lightning takes seconds to import.
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from lightning_sparse_rnn.runs.folder import from_here
    from lightning_sparse_rnn.runs.jobs import Jobs

    hydra_config = HydraConfig.get()
    folder = from_here(Path(hydra_config.runtime.output_dir))
    try:
        if hydra_config.mode != RunMode.MULTIRUN:
            with told_plainly(_COMMAND):
                return _trained(config, folder)
        with Jobs.around().job(folder), told_plainly(_COMMAND):
            _refuse_more_devices(config)
            return _trained(config, folder)
        return math.nan
    finally:
        with suppress(OSError):  # there is a run in it, as a rule
            folder.rmdir()  # Hydra has made it before anyone looked at the config


def _trained(config: DictConfig, folder: Path) -> float:
    with whole_imports():
        from lightning_sparse_rnn.runs.training import train

    return float(train(config, folder)["val_ppl"])


def _refuse_more_devices(config: DictConfig) -> None:
    if config.trainer.devices not in (1, "1"):
        raise SystemExit(
            "With -m all runs share one process, and a run on several devices starts processes of its own. Expected "
            f"trainer.devices=1, got {config.trainer.devices}. Start the runs one by one, without -m."
        )


if __name__ == "__main__":
    main()
