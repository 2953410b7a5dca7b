"""Kill a small run again and again, in steps, validations and writes, and see that it ends as if nothing had happened.

    python benchmarks/soak.py                           # 200 kills
    python benchmarks/soak.py --cycles 20 --json soak.json

Each cycle starts the same command: train, going on from the last good checkpoint. Half of the processes are killed
after a random time, half at a random moment about the writing of a checkpoint; a run that comes to its end is compared
with one that nothing disturbed, byte for byte: weights, masks, averages, optimizer and trigger. Every other run writes
its checkpoints as Lightning does where the folder for temporary files is on another disk, a slow one, which leaves
files that are cut short. Processes are forked from one that has imported torch: a cycle takes less than a second.

The exit code is 1 if any run ended differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.checkpoints.reading import find_last_good
from lightning_sparse_rnn.checkpoints.writing import WholeFileCheckpointIO
from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel

EPOCHS = 10
NETWORK = {"_target_": "lightning_sparse_rnn.models.StackedLSTM", "embedding_size": 16, "hidden_size": 16}
OPTIMIZER = {"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 8.0, "weight_decay": 1e-5, "nonmono": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200, help="how many processes to kill (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--json", type=Path, help="write the result there as well")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), given.cycles, random.Random(given.seed))
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["all_runs_end_alike"] else 1)


@dataclass
class Tally:
    """What has happened so far."""

    kills: int = 0
    kills_inside_a_write: int = 0
    checkpoints_cut_short: int = 0
    runs_ended: int = 0
    runs_ended_differently: int = 0
    steps_gone_on_from: set[int] = field(default_factory=set)


def soak(folder: Path, cycles: int, chance: random.Random) -> dict[str, Any]:
    """Kill ``cycles`` processes, bring every run to its end, and return what happened."""
    write_text(folder / "text")
    started = time.monotonic()
    reference = folder / "undisturbed"
    if Process(reference, folder / "text", whole_files=True).wait() != 0:
        raise RuntimeError("The undisturbed run failed.")
    seconds_a_run = time.monotonic() - started
    expected = (reference / "end").read_text()
    tally, run = Tally(), 0
    try:
        while tally.kills < cycles or (folder / str(run)).exists():
            here = folder / str(run)
            process = Process(here, folder / "text", whole_files=run % 2 == 0)
            code = process.kill(chance, seconds_a_run) if tally.kills < cycles else process.wait()
            if code == -signal.SIGKILL:
                tally.kills += 1
                tally.kills_inside_a_write += process.is_writing
                look_at(here, tally)
            elif code == 0:
                tally.runs_ended += 1
                tally.runs_ended_differently += (here / "end").read_text() != expected
                shutil.rmtree(here)
                run += 1
            else:
                raise RuntimeError(f"A process failed with exit code {code}.")
            print(f"\r{tally.kills} kills, {tally.runs_ended} runs", end="", file=sys.stderr)
    finally:  # what follows, after Ctrl-C too, has a line of its own
        print(file=sys.stderr)
    seconds = time.monotonic() - started
    return {
        **asdict(tally),
        "steps_gone_on_from": len(tally.steps_gone_on_from),
        "all_runs_end_alike": tally.runs_ended_differently == 0,
        "digest": expected,
        "seconds": round(seconds, 1),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__},
    }


def look_at(folder: Path, tally: Tally) -> None:
    """Count what a killed process has left."""
    with warnings.catch_warnings(record=True) as passed_over:
        warnings.simplefilter("always")
        checkpoint = find_last_good(folder)
    tally.checkpoints_cut_short += len(passed_over)
    if checkpoint is not None:
        tally.steps_gone_on_from.add(torch.load(checkpoint, weights_only=True)["global_step"])


class Process:
    """A forked process that trains in ``folder``, and says when it begins and ends to write a checkpoint.

    Args:
        folder: of its checkpoints, and of its end.
        text: folder of the text.
        whole_files: whether to write checkpoints the package's way; else Lightning's, to a slow disk.
    """

    def __init__(self, folder: Path, text: Path, whole_files: bool) -> None:
        self.is_writing = False
        self._reads, writes = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word, as it ends its parent
            os.close(self._reads)
            code = 1
            try:
                train(folder, text, whole_files, writes)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writes)

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        while said := os.read(self._reads, 1024):
            self.is_writing = said.endswith(b"<")
        os.close(self._reads)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def kill(self, chance: random.Random, seconds_a_run: float) -> int:
        """Kill it at a random moment, and return its exit code, which is 0 if it was faster."""
        if chance.random() < 0.5:
            self._listen(time.monotonic() + chance.uniform(0, seconds_a_run), writes=None)
        else:
            self._listen(time.monotonic() + seconds_a_run, writes=chance.randint(1, 12))
            self._listen(time.monotonic() + chance.uniform(0, 0.01), writes=None)
        os.kill(self._pid, signal.SIGKILL)
        return self.wait()

    def _listen(self, until: float, writes: int | None) -> None:
        """Take note of what it says until a time, its end, or the beginning of so many writes."""
        while (left := until - time.monotonic()) > 0 and writes != 0:
            if select.select([self._reads], [], [], left)[0]:
                said = os.read(self._reads, 1)
                if not said:
                    return
                self.is_writing = said == b"<"
                if writes is not None:
                    writes -= self.is_writing


def train(folder: Path, text: Path, whole_files: bool, announce_to: int) -> None:
    """The command: train, going on from the last good checkpoint, and leave a digest of how the run ended."""
    shutil.move = move_to_a_slow_disk  # Lightning's last step in writing a checkpoint

    class Announcing(WholeFileCheckpointIO if whole_files else TorchCheckpointIO):  # type: ignore[misc]
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            os.write(announce_to, b"<")
            super().save_checkpoint(*args, **kwargs)
            os.write(announce_to, b">")

    pl.seed_everything(1, verbose=False)
    data = TextDataModule(
        "folder", str(text), batch_size=4, eval_batch_size=2, bptt=6, lengths="drawn", cache_dir=str(text)
    )
    module = LanguageModel({**NETWORK, "dropout": 0.2}, vocab_size=data.vocab_size, optimizer=OPTIMIZER)
    sparse, averaging = SelfishSparseCallback(0.67, prune_rate=0.5), NonMonotonicAveraging("val_loss")
    always = {"dirpath": folder, "enable_version_counter": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        gradient_clip_val=0.25,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[Announcing()],
        callbacks=[
            averaging,
            sparse,
            ModelCheckpoint(**always, filename="step", every_n_train_steps=5),
            ModelCheckpoint(**always, filename="validation", every_n_epochs=1, save_on_train_epoch_end=False),
            ModelCheckpoint(**always, filename="best", monitor="val_loss", save_weights_only=True),
        ],
    )
    trainer.fit(module, datamodule=data, ckpt_path=find_last_good(folder))
    if averaging.began_epoch is None or len(sparse.updates) != EPOCHS:
        raise RuntimeError("The run has no averages or too few topology updates: it tries too little.")
    end = {
        "weights": module.state_dict(),
        "training weights": [trainer.optimizers[0].training(parameter) for parameter in module.parameters()],  # type: ignore[attr-defined]
        "optimizer": trainer.optimizers[0].state_dict(),
        "topology": sparse.state_dict(),
        "averaging": averaging.state_dict(),
        "best": float(trainer.checkpoint_callbacks[2].best_model_score),  # type: ignore[attr-defined]
    }
    (folder / "end").write_text(hashlib.sha256(b"".join(pieces(end))).hexdigest())


def move_to_a_slow_disk(source: str, target: str) -> None:
    with Path(source).open("rb") as old, Path(target).open("wb", buffering=0) as new:
        while piece := old.read(8192):
            new.write(piece)
            time.sleep(0.0002)
    Path(source).unlink()


def pieces(value: Any) -> Iterator[bytes]:
    """Yield the bytes of a nested structure of tensors and plain values."""
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().contiguous().numpy().tobytes()
    elif isinstance(value, Mapping):
        for key in value:
            yield repr(key).encode()
            yield from pieces(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from pieces(item)
    else:
        yield repr(value).encode()


def write_text(folder: Path) -> None:
    """Write a text of words that follow each other with some regularity, and tokenise it."""
    chance = random.Random(0)
    folder.mkdir()
    for part, lines in (("train", 90), ("valid", 20), ("test", 20)):
        word, text = 0, []
        for _ in range(lines):
            line = []
            for _ in range(6):
                word = (3 * word + chance.randint(1, 4)) % 40
                line.append(f"w{word}")
            text.append(" ".join(line))
        (folder / f"{part}.txt").write_text("\n".join(text) + "\n")
    TextDataModule("folder", str(folder), cache_dir=str(folder)).prepare_data()


if __name__ == "__main__":
    with interruptible():
        main()
