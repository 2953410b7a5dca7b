"""Whether a run's folder is one that a config can go on with, and what becomes of a run that is to be longer."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from lightning_sparse_rnn.checkpoints.reading import find_last_good
from lightning_sparse_rnn.runs.config import written_config
from lightning_sparse_rnn.runs.flat_config import differences
from lightning_sparse_rnn.runs.folder import CHECKPOINTS, CONFIG, RESULTS, results_after
from lightning_sparse_rnn.runs.old_configs import same_runs
from lightning_sparse_rnn.utilities.counting import counted

__all__ = ["LENGTHENED", "Continued", "begin_longer", "compared", "shorter_runs_beside"]

#: A value of a run's config: the numbers of epochs that it was of before it was lengthened.
LENGTHENED = "lengthened_at"


class Continued(NamedTuple):
    """What is to be done with a run's folder.

    Attributes:
        config: that of the run; beside what was given it has the numbers of epochs that the run was of before.
        epochs: how many epochs the run is of so far, where it is to be longer now; otherwise ``None``.
    """

    config: DictConfig
    epochs: int | None = None


def compared(folder: Path, config: DictConfig) -> Continued:
    """Compare a config with that of the run in a folder, if there is one. Changes nothing.

    Raises:
        SystemExit: they differ in more than ``trainer.max_epochs``, or that would be fewer than before.
        ValueError: the run's config cannot be read.
    """
    path = folder / CONFIG
    if not path.exists():
        return Continued(config)
    old: Any = OmegaConf.to_container(written_config(path))
    new: Any = OmegaConf.to_container(config, resolve=True)
    before = old.pop(LENGTHENED, [])
    changed = differences(same_runs(old), same_runs(new))
    if not changed:
        return Continued(_noting(config, before))
    planned, now = _epochs(old), _epochs(new)
    if not planned or not now or not _are_same_but_for_length(old, new):
        raise SystemExit(
            f"{folder} holds a run with another config:\n  " + "\n  ".join(changed) + "\nRemove that folder, or choose "
            "another place with output=FOLDER or name=NAME."
        )
    if now < planned:
        raise SystemExit(
            f"{folder} holds a run of {counted(planned, 'epoch')}, which cannot become one of {now}. Expected "
            f"trainer.max_epochs of at least {planned}. A shorter run is another: choose another place with "
            "output=FOLDER or name=NAME."
        )
    if find_last_good(folder / CHECKPOINTS) is None:
        if (folder / RESULTS).exists():
            raise SystemExit(
                f"{folder} holds a finished run of {counted(planned, 'epoch')}, and no checkpoint in {CHECKPOINTS}/ "
                f"from which one of {now} could go on. Choose another place with output=FOLDER or name=NAME."
            )
        return Continued(_noting(config, before))  # it had not come to the end of an epoch
    return Continued(_noting(config, [*before, planned]), planned)


def begin_longer(folder: Path, epochs: int, now: int) -> None:
    """Make a folder of a run of so many epochs ready for going on to ``now``, and say what that means."""
    kept = results_after(folder, epochs)
    if (folder / RESULTS).exists():
        (folder / RESULTS).replace(kept)
    rank_zero_info(
        f"This run was one of {counted(epochs, 'epoch')} and goes on to {now}. What follows the number of epochs "
        f"(prune rate, sparsity, learning rate, the shares at which averages restart) follows that of {now} from here "
        f"on, so the run is not what {now} epochs from the start would have given."
        + (f" Its results so far are kept in {kept.name}." if kept.exists() else "")
    )


def shorter_runs_beside(folder: Path, config: DictConfig) -> list[str]:
    """Return the names of the runs that could be lengthened instead of beginning one in a folder that is not there."""
    if (folder / CONFIG).exists() or not folder.parent.is_dir():
        return []
    new: Any = OmegaConf.to_container(config, resolve=True)
    alike = [each for each in folder.parent.iterdir() if each != folder and _but_epochs(each) == _but_epochs(folder)]
    found = []
    for other in alike:
        with suppress(OSError, ValueError):  # it is no run, or what is damaged there is none of our concern
            old: Any = OmegaConf.to_container(written_config(other / CONFIG))
            if 0 < (_epochs(old) or 0) < (_epochs(new) or 0) and _are_same_but_for_length(old, new):
                found.append(other.name)
    return sorted(found)


def _but_epochs(folder: Path) -> str:
    """Return a folder's name without the number of epochs, and without the hash, which changes with that."""
    name = re.sub(r"-[0-9a-f]{8}$", "", folder.name)
    return re.sub(r"(^|,)(trainer\.)?max_epochs=\d+", "", name).lstrip(",").replace("default", "")


def _are_same_but_for_length(old: dict[str, Any], new: dict[str, Any]) -> bool:
    old = {key: value for key, value in old.items() if key != LENGTHENED}
    as_long = {**old, "trainer": {**old["trainer"], "max_epochs": new["trainer"]["max_epochs"]}}
    return not differences(same_runs(as_long), same_runs(new))


def _epochs(config: dict[str, Any]) -> int | None:
    epochs = (config.get("trainer") or {}).get("max_epochs")
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def _noting(config: DictConfig, lengthened: list[int]) -> DictConfig:
    if not lengthened:
        return config
    noted = config.copy()
    with open_dict(noted):
        noted[LENGTHENED] = lengthened
    return noted
