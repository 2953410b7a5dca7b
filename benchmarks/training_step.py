"""A training step: forward, backward, clipping, optimizer, and all that a Trainer and its callbacks do about it."""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.floors import Floors
from benchmarks.models import CLIP, LEARNING_RATE, WEIGHT_DECAY, DenseLSTM, language_model, text
from benchmarks.setting import Setting
from benchmarks.turns import Figure, compare, take_turns
from benchmarks.waits import PeakMemory, Waits
from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback

__all__ = ["measure"]

DENSE = "dense: `nn.LSTM`, `torch.optim.SGD(fused=True)`, a loop"
SIDES: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "dense: the same in a Trainer": ({"optimizer": "torch.optim.SGD", "fused": True}, False, False),
    "sparse, before the trigger": ({"optimizer": "lightning_sparse_rnn.SNTASGD"}, True, False),
    "sparse, averaging": ({"optimizer": "lightning_sparse_rnn.SNTASGD"}, True, True),
}


def measure(setting: Setting, floors: Floors) -> list[Figure]:
    """Compare the dense loop with Trainers, dense and sparse."""
    runs = {DENSE: dense_loop(setting), **{name: Run(setting, *side) for name, side in SIDES.items()}}
    try:
        times = take_turns(runs, setting)
        more = {name: look_into(run, setting) for name, run in runs.items()}
    finally:
        for run in runs.values():
            if isinstance(run, Run):
                run.end()
    floor = floors.multiplying(setting.size, passes=3)  # forward, and backward to inputs and to weights
    return compare("training step", times, DENSE, dict.fromkeys(runs, floor), more, setting.batches)


def look_into(run: Callable[[AbstractContextManager[Any]], None], setting: Setting) -> dict[str, Any]:
    """Return how often a step waits for the device, and the GPU memory it needs for the time being."""
    waits, memory = Waits(setting), PeakMemory(setting)
    run(memory)
    run(waits)
    found = {"waits_per_step": waits.count / setting.batches}
    return found if memory.bytes_above is None else {**found, "peak_bytes_above_held": memory.bytes_above}


def dense_loop(setting: Setting) -> Callable[..., None]:
    """Return what takes the steps of one measurement, in a context."""
    torch.manual_seed(0)
    model = DenseLSTM(setting.size).to(setting.device)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    batches, state = text(setting)(), None

    def step() -> None:
        nonlocal state
        loss, carried = model(*next(batches), state)
        state = tuple(part.detach() for part in carried)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    def steps(context: AbstractContextManager[Any] = nullcontext()) -> None:  # noqa: B008
        with context:
            for _ in range(setting.batches):
                step()

    return steps


class Run(pl.Callback):
    """A Trainer in a thread of its own, which trains when it is called, until the end of so many batches.

    Only one thread ever runs: the processor time of the process is that of whoever has its turn.
    """

    def __init__(self, setting: Setting, optimizer: dict[str, Any], sparse: bool, average: bool) -> None:
        self._setting, self._average = setting, average
        self._turn: queue.Queue[AbstractContextManager[Any] | None] = queue.Queue()
        self._done: queue.Queue[BaseException | None] = queue.Queue()
        self._batches = 0
        self._context = ExitStack()
        ours = [NonMonotonicAveraging(), SelfishSparseCallback()] if sparse else []
        self._arguments = (language_model(setting.size, **optimizer), [*ours, self])
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()
        self._wait()

    def __call__(self, context: AbstractContextManager[Any] | None = None) -> None:
        self._turn.put(context or nullcontext())
        self._wait()

    def end(self) -> None:
        """Let the Trainer finish."""
        self._turn.put(None)
        self._thread.join()

    def _wait(self) -> None:
        error = self._done.get()
        if error is not None:
            raise error

    def _train(self) -> None:
        try:
            model, callbacks = self._arguments
            self._fit(model, callbacks)
            self._done.put(None)
        except BaseException as error:
            self._done.put(error)

    def _fit(self, model: pl.LightningModule, callbacks: list[pl.Callback]) -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = pl.Trainer(
                max_steps=10**9,
                max_epochs=1,
                gradient_clip_val=CLIP,
                accelerator="cpu" if self._setting.device.type == "cpu" else "gpu",
                devices=1,
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(model, DataLoader(_Endless(self._setting), batch_size=None))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._average:
            trainer.optimizers[0].restart()  # type: ignore[attr-defined]
        self._give_way(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *others: Any) -> None:
        self._batches += 1
        if self._batches % self._setting.batches == 0:
            self._give_way(trainer)

    def _give_way(self, trainer: pl.Trainer) -> None:
        self._context.close()
        self._done.put(None)
        context = self._turn.get()
        if context is None:
            trainer.should_stop = True
        else:
            self._context.enter_context(context)


class _Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, setting: Setting) -> None:
        self._batches = text(setting)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches()
