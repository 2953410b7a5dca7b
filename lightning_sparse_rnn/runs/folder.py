"""What the files in a run's folder are called: every name stands here once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = [
    "BEST",
    "CARD",
    "CHECKPOINTS",
    "CONFIG",
    "EXPORTED",
    "LAST",
    "LOCK",
    "MASKS",
    "METRICS",
    "PICTURE",
    "RESULTS",
    "TOPOLOGY",
    "from_here",
    "kept_masks",
    "masks_after",
    "masks_at_start",
    "remove_if_unused",
    "results_after",
]

#: The config that the run was started with, all references in it resolved.
CONFIG = "config.yaml"
#: One row per epoch.
METRICS = "metrics.csv"
#: One row per topology update, tensor and gate.
TOPOLOGY = "topology.csv"
#: What is known of the run when it has ended; a run without this file is unfinished.
RESULTS = "results.json"
PICTURE = "run.png"
#: The checkpoint of the lowest validation loss: the run's model.
BEST = "best.ckpt"
#: The folder of checkpoints to resume from, and the one in it of the last finished epoch.
CHECKPOINTS = "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
#: The folder of the topologies that were kept, one file per epoch.
MASKS = "masks"
#: Locked by the process that works on the run.
LOCK = ".lock"
#: The weights as ``sparse-rnn-export`` writes them.
EXPORTED = "weights.sparse.pt"
#: The model card beside them; hubs find it by this name.
CARD = "README.md"


def from_here(folder: Path) -> Path:
    """Return the path as one would type it: relative to the working directory, if the folder is below that."""
    here = Path.cwd()
    return folder.relative_to(here) if here in folder.parents else folder


def results_after(folder: Path, epochs: int) -> Path:
    """Return the path of the results that a run had when it was one of so many epochs, before it was lengthened."""
    return folder / f"results-{epochs}-epochs.json"


def remove_if_unused(folder: Path) -> None:
    """Remove a run's folder in which there is nothing but, perhaps, the file to lock."""
    with suppress(OSError):  # it is not empty, or the system does not let go of a file that is open
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        folder.rmdir()


def masks_after(folder: Path, epoch: int) -> Path:
    """Return the path of the topology with which ``epoch`` (counted from 0) ended."""
    return folder / MASKS / f"{epoch:04d}.npz"


def masks_at_start(folder: Path) -> Path:
    """Return the path of the topology of the first step, which is kept where updates come within the first epoch."""
    return folder / MASKS / "start.npz"


def kept_masks(folder: Path) -> list[tuple[int, Path]]:
    """Return the files of the topologies that were kept, each with the number of epochs trained, in order."""
    start = masks_at_start(folder)
    found = [(path.stem, path) for path in (folder / MASKS).glob("*.npz")]
    after = sorted((int(stem) + 1, path) for stem, path in found if stem.isdigit())
    return [*([(0, start)] if start.exists() else []), *after]
