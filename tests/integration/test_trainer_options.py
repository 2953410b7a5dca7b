"""Sparse training under the Trainer's options: steps, limits, accumulation, clipping, manual optimization."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import QUIET, loaders, make_trainer
from torch import Tensor
from toy_runs import MemoryLogger, Net, Watch, fit, net, weights

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback

pytestmark = QUIET


def rates(sparse: SelfishSparseCallback) -> list[float]:
    return [update["rate"] for update in sparse.updates[1:]]


def steps(sparse: SelfishSparseCallback) -> list[int]:
    return [update["step"] for update in sparse.updates[1:]]


def norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())


def linear(**options: Any) -> SelfishSparseCallback:
    """A callback whose rate is 0.5 at the start, 0 at the end: it shows how far training has come."""
    return SelfishSparseCallback(0.5, schedule="linear", prune_rate=0.5, min_prune_rate=0.0, **options)


# -------------------------------------------------------------------------------------- steps, limits and schedules


@pytest.mark.parametrize(
    ("options", "at", "total"),
    [
        ({"max_epochs": 4}, [5, 10, 15], 20),
        ({"max_epochs": 4, "accumulate_grad_batches": 2}, [3, 6, 9], 12),  # the last window of an epoch has one batch
        ({"max_epochs": 4, "accumulate_grad_batches": 7}, [1, 2, 3], 4),
        ({"max_epochs": 4, "limit_train_batches": 3}, [3, 6, 9], 12),
        ({"max_epochs": 4, "limit_train_batches": 0.6}, [3, 6, 9], 12),
        ({"max_epochs": 4, "overfit_batches": 2}, [2, 4, 6], 8),
        ({"max_epochs": -1, "max_steps": 12}, [5, 10], 12),
        ({"max_epochs": 10, "max_steps": 12}, [5, 10], 12),
        ({"max_epochs": 3, "max_steps": 100}, [5, 10], 15),
        ({"max_epochs": 4, "val_check_interval": 2}, [5, 10, 15], 20),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [5, 10, 15], 20),
        ({"max_epochs": 4, "reload_dataloaders_every_n_epochs": 1}, [5, 10, 15], 20),
        ({"max_epochs": 4, "limit_val_batches": 0}, [5, 10, 15], 20),
        ({"max_epochs": 4, "num_sanity_val_steps": 0}, [5, 10, 15], 20),
        ({"max_epochs": 4, "limit_val_batches": 0, "barebones": True}, [5, 10, 15], 20),
    ],
)
@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling")
def test_updates_and_rates_go_by_optimizer_steps(
    tmp_path: Path, options: dict[str, Any], at: list[int], total: int
) -> None:
    sparse = linear()
    watch = Watch(sparse)
    fit(tmp_path, net("adam"), watch, sparse, **options)
    assert steps(sparse) == at
    assert rates(sparse) == pytest.approx([0.5 * (1 - step / total) for step in at])
    assert watch.batches


class Endless(torch.utils.data.IterableDataset):
    """Batches without a number."""

    def __iter__(self) -> Any:
        return iter(loaders()[1].dataset)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"max_epochs": 4}, [0.375, 0.25, 0.125]), ({"max_epochs": 9, "max_steps": 15}, [0.5 * 2 / 3, 0.5 / 3])],
)
def test_rates_go_by_epochs_or_max_steps_where_batches_have_no_number(
    tmp_path: Path, options: dict[str, Any], expected: list[float]
) -> None:
    sparse = linear()
    train = torch.utils.data.DataLoader(Endless(), batch_size=8)
    make_trainer(tmp_path, [sparse], **options).fit(net("adam"), train, loaders()[1])
    assert rates(sparse) == pytest.approx(expected)


def test_updates_by_steps_count_accumulated_steps(tmp_path: Path) -> None:
    sparse = linear(update_every_n_steps=2)
    fit(tmp_path, net("adam"), sparse, max_epochs=3, accumulate_grad_batches=3)
    assert steps(sparse) == [2, 4]  # two windows an epoch, of three batches and two
    assert rates(sparse) == pytest.approx([0.5 * 4 / 6, 0.5 * 2 / 6])


def test_a_development_run_trains_one_batch_sparse(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5)
    watch = Watch(sparse)
    trainer = fit(tmp_path, net(), watch, sparse, NonMonotonicAveraging("val_loss"), fast_dev_run=True)
    assert watch.batches == 1
    assert len(trainer.optimizers[0].history) == 1
    assert len(sparse.updates) == 1


@pytest.mark.parametrize(
    ("options", "validations"),
    [
        ({"val_check_interval": 2}, 8),
        ({"val_check_interval": 0.4}, 8),
        ({"check_val_every_n_epoch": 2}, 2),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 6),
        ({"limit_val_batches": 1}, 4),
        ({"num_sanity_val_steps": 2}, 4),
        ({"limit_val_batches": 0}, 0),
    ],
)
@pytest.mark.filterwarnings("ignore:NonMonotonicAveraging waits for 'val_loss' after validations")
def test_every_validation_and_no_other_feeds_the_trigger(
    tmp_path: Path, options: dict[str, Any], validations: int
) -> None:
    sparse = SelfishSparseCallback(0.5)
    averaging = NonMonotonicAveraging("val_loss")
    trainer = fit(tmp_path, net(), averaging, sparse, max_epochs=4, **options)
    assert len(trainer.optimizers[0].history) == validations


# ------------------------------------------------------------------------------------------ accumulation and clipping


def test_accumulated_batches_train_as_one_batch_of_their_size(tmp_path: Path) -> None:
    def run(batch_size: int, accumulate: int) -> tuple[dict[str, Tensor], SelfishSparseCallback]:
        module, sparse = net("momentum"), SelfishSparseCallback(0.5)
        module.dropout.p = 0.0
        data = loaders()[1].dataset
        train, validation = (torch.utils.data.DataLoader(data, batch_size=size) for size in (batch_size, 20))
        make_trainer(tmp_path, [sparse], max_epochs=3, accumulate_grad_batches=accumulate).fit(
            module, train, validation
        )
        return weights(module), sparse

    (small, sparse), (large, expected) = run(4, 5), run(20, 1)
    for name, weight in small.items():
        torch.testing.assert_close(weight, large[name], rtol=1e-4, atol=1e-6)
    assert sparse.updates == expected.updates


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_with_those_of_inactive_weights(tmp_path: Path, algorithm: str) -> None:
    module = net("sgd")
    module.dropout.p = 0.0
    by_hand = copy.deepcopy(module)
    _, batches = loaders()
    sparse = SelfishSparseCallback(0.8, update_every_n_epochs=None)
    limits = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    make_trainer(tmp_path, [sparse], max_epochs=1, limit_train_batches=1, **limits).fit(module, batches, batches)

    masks = {name: sparse.topology.masks.get(parameter, 1.0) for name, parameter in module.named_parameters()}
    with torch.no_grad():
        for name, parameter in by_hand.named_parameters():
            parameter.mul_(masks[name])
    by_hand.loss(next(iter(batches))).backward()
    gradients = {name: parameter.grad for name, parameter in by_hand.named_parameters()}
    whole = norm(gradients.values())
    assert 0.01 < norm(gradient * masks[name] for name, gradient in gradients.items()) < 0.95 * whole
    for name, parameter in by_hand.named_parameters():
        step = gradients[name] * 0.01 / whole if algorithm == "norm" else gradients[name].clamp(-0.01, 0.01)
        expected = (parameter - 0.1 * step) * masks[name]
        torch.testing.assert_close(weights(module)[name], expected, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------- manual optimization, several optimizers


class Manual(Net):
    """Two optimizers: one steps at every batch, the other at every second one."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.lstm.parameters(), lr=0.01),
            torch.optim.SGD(self.linear.parameters(), lr=0.1, momentum=0.9),
        ]

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        first, second = self.optimizers()
        first.zero_grad()
        self.manual_backward(self.loss(batch))
        self.clip_gradients(first, 0.1, "norm")
        first.step()
        if batch_idx % 2:
            second.step()
            second.zero_grad()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epochs": 4}, [0.375, 0.25, 0.125]),
        ({"max_epochs": -1, "max_steps": 28}, [0.375, 0.25, 0.125]),  # Lightning counts both: seven an epoch
    ],
)
def test_manual_optimization_with_two_optimizers(
    tmp_path: Path, options: dict[str, Any], expected: list[float]
) -> None:
    sparse, logger = linear(), MemoryLogger()
    watch = Watch(sparse)
    module = Manual()
    fit(tmp_path, module, sparse, watch, logger=logger, log_every_n_steps=1, **options)
    assert watch.batches == 20
    assert rates(sparse) == pytest.approx(expected)
    assert steps(sparse) == [5, 10, 15]
    # On the axis of Lightning's own metrics, which counts batches with a step and not the steps of both.
    assert [step for step, metrics in logger.rows if "sparsity/prune_rate" in metrics] == [5, 10, 15]


def test_manual_accumulation_goes_by_epochs(tmp_path: Path) -> None:
    class Accumulates(Manual):
        def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
            self.manual_backward(self.loss(batch))
            if batch_idx == 4:
                for optimizer in self.optimizers():
                    optimizer.step()
                    optimizer.zero_grad()

    sparse = linear()
    fit(tmp_path, Accumulates(), sparse, max_epochs=4)
    assert steps(sparse) == [1, 2, 3]
    assert rates(sparse) == pytest.approx([0.375, 0.25, 0.125])
