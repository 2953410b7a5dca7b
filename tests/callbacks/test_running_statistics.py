"""Batch normalisation beside averaged weights: ŵ is validated and saved with statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, differences, end_state, loaders, make_trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import CatMetric, MinMaxMetric, SumMetric
from toy_runs import Net, fit

from lightning_sparse_rnn import SNTASGD, NonMonotonicAveraging, SelfishSparseCallback

pytestmark = QUIET
STEPS = 5  # an epoch


class Normalised(Net):
    """The toy with a batch normalisation; its losses are written down."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(lambda parameters: SNTASGD(parameters, lr=0.5, nonmono=1))
        self.norm = nn.BatchNorm1d(6)
        self.validated: list[float] = []

    def loss(self, batch: Sequence[Tensor]) -> Tensor:
        hidden = self.dropout(self.norm(self.lstm(batch[0])[0][:, -1]))
        return (self.linear(hidden) - batch[1]).square().mean()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        self.log_dict({"again": loss})
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if not self.trainer.sanity_checking:
            self.validated.append(self.loss(batch).item())


class Watch(pl.Callback):
    """Keeps all that training goes on with after each batch, and what each validation sees."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.seen: list[dict[str, Tensor]] = []

    def all_of(self, module: nn.Module) -> dict[str, Tensor]:
        both = [*module.named_parameters(), *module.named_buffers()]
        return {name: tensor.detach().clone() for name, tensor in both}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.trained.append(self.all_of(pl_module))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.seen.append(self.all_of(pl_module))


def averaging(**options: Any) -> NonMonotonicAveraging:
    return NonMonotonicAveraging("rising", **{"update_statistics": True, **options})


def run(folder: Path, *callbacks: Any, module: Normalised | None = None, **options: Any) -> Normalised:
    module = module or Normalised()
    torch.manual_seed(0)
    make_trainer(folder, callbacks, **options).fit(module, in_order(), loaders()[1])
    return module


def in_order() -> DataLoader:
    """The batches of an epoch, the same ones every time."""
    return DataLoader(loaders()[0].dataset, 8)


def by_torch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with its statistics as torch computes them."""
    module = Normalised()
    module.load_state_dict(state)

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return module.norm(module.lstm(x)[0][:, -1])

    torch.optim.swa_utils.update_bn((batch for batch, _ in in_order()), Features())
    return module.state_dict()


def test_averages_are_validated_with_their_own_statistics(tmp_path: Path) -> None:
    module = run(tmp_path, watch := Watch(), averaging())
    seen = watch.seen[-1]
    right = by_torch(seen)
    for name in ("norm.running_mean", "norm.running_var"):
        torch.testing.assert_close(seen[name], right[name], rtol=1e-4, atol=1e-6)
    assert seen["norm.num_batches_tracked"] == STEPS
    assert not torch.equal(seen["norm.running_mean"], watch.trained[-1]["norm.running_mean"])
    for name, value in module.state_dict().items():  # what the module ends with
        assert torch.equal(value, seen[name]), name


def test_averages_with_their_own_statistics_are_the_better_ones(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"running statistics of the weights that are trained, in norm\. NonMonotonic"):
        without = run(tmp_path, averaging(update_statistics=False))
    assert run(tmp_path, averaging()).validated[-1] < without.validated[-1]


def test_statistics_are_of_the_batches_that_a_hook_of_the_data_module_makes(tmp_path: Path) -> None:
    def hundredfold(self: Any, batch: Sequence[Tensor], dataloader_idx: int) -> Sequence[Tensor]:
        return [100 * batch[0], batch[1]]

    class InModule(Normalised):
        on_before_batch_transfer = hundredfold

    class InData(pl.LightningDataModule):
        on_before_batch_transfer = hundredfold

        def train_dataloader(self) -> DataLoader:
            return in_order()

        def val_dataloader(self) -> DataLoader:
            return loaders()[1]

    run(tmp_path, by_module := Watch(), averaging(), module=InModule())
    torch.manual_seed(1)
    module, by_data = Normalised(), Watch()
    torch.manual_seed(0)
    make_trainer(tmp_path, [by_data, averaging()]).fit(module, datamodule=InData())
    for name, value in by_module.seen[-1].items():
        assert torch.equal(value, by_data.seen[-1][name]), name


class Frozen(Normalised):
    """Has a second normalisation and a dropout that it keeps in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.modes: list[tuple[bool, bool]] = []

    def on_train_epoch_start(self) -> None:
        self.kept.eval()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        self.modes.append((self.norm.training, self.kept[0].training or self.kept[1].training))
        return self.loss([self.kept(batch[0].flatten(0, 1)).view_as(batch[0]), batch[1]])


def test_layers_that_training_keeps_in_evaluation_mode_stay_as_they_are(tmp_path: Path) -> None:
    module = run(tmp_path, watch := Watch(), averaging(), module=Frozen())
    assert set(module.modes) == {(True, False)}
    assert len(module.modes) > 6 * STEPS
    assert not torch.equal(watch.seen[-1]["norm.running_mean"], watch.trained[-1]["norm.running_mean"])
    for state in [*watch.trained, *watch.seen]:
        assert not state["kept.0.running_mean"].any()
        assert state["kept.0.num_batches_tracked"] == 0


def test_a_run_resumed_at_its_end_knows_which_layers_were_in_evaluation_mode(tmp_path: Path) -> None:
    run(tmp_path, averaging(), ModelCheckpoint(tmp_path, save_last=True), module=Frozen())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    module = Frozen()
    make_trainer(tmp_path, [averaging()]).fit(module, in_order(), loaders()[1], ckpt_path=str(tmp_path / "last.ckpt"))
    assert set(module.modes) == {(True, False)}
    for name, value in module.state_dict().items():
        assert torch.equal(value, saved[name]), name


class Counting(Normalised):
    """Keeps metrics and buffers in its training steps, and writes down at each epoch's end what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.all, self.largest = SumMetric(), CatMetric(), MinMaxMetric(SumMetric())
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))
        self.instance = nn.InstanceNorm1d(3, track_running_stats=True)
        self.counts: list[Any] = []

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        self.steps += 1  # in place
        self.last = self.steps * 2  # another tensor
        self.instance(torch.randn(2, 3, 4))
        for metric in (self.total, self.all, self.largest):
            metric(torch.tensor(float(batch_idx + 1)))
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.counts.append([self.total.compute(), self.total.update_count, self.largest.compute()])
        self.counts[-1] += [self.all.compute().tolist(), self.steps.item(), self.last.item()]
        self.counts[-1].append(self.instance.running_mean.tolist())
        for metric in (self.total, self.all, self.largest):
            metric.reset()


@pytest.mark.filterwarnings("ignore:Averaged weights will be validated with the running statistics")
def test_metrics_and_other_buffers_do_not_notice(tmp_path: Path) -> None:
    without, module = (
        run(tmp_path, averaging(update_statistics=update), module=Counting(), val_check_interval=2)
        for update in (False, True)
    )
    assert module.validated != without.validated
    assert module.counts == without.counts
    assert [count[:2] for count in module.counts] == [[1 + 2 + 3 + 4 + 5, STEPS]] * 6
    assert module.steps == 6 * STEPS


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}])
@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.filterwarnings("ignore:Averaged weights will be validated with the running statistics")
def test_training_does_not_notice(tmp_path: Path, options: dict[str, Any], generator: bool) -> None:
    trained = []
    for update in (False, True, 2):
        watch = Watch()
        module, (train, valid) = Normalised(), loaders()
        if generator:
            train = DataLoader(train.dataset, 8, shuffle=True, generator=torch.Generator().manual_seed(3))
        torch.manual_seed(0)
        make_trainer(tmp_path, [watch, averaging(update_statistics=update)], **options).fit(module, train, valid)
        trained.append(watch.trained)
        if update:
            assert watch.seen[-1]["norm.num_batches_tracked"] == (STEPS if update is True else 2)
    assert differences(trained[0], trained[1]) == []
    assert differences(trained[0], trained[2]) == []


@pytest.mark.parametrize("weights_only", [False, True])
@pytest.mark.parametrize("moment", [{"every_n_train_steps": 1}, {"save_on_train_epoch_end": True}], ids=str)
def test_checkpoints_hold_the_statistics_of_their_averages(
    tmp_path: Path, moment: dict[str, Any], weights_only: bool
) -> None:
    watch = Watch()
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_weights_only=weights_only, **moment)
    run(tmp_path, watch, averaging(), SelfishSparseCallback(0.5), saver)
    for step in (20, 30) if "save_on_train_epoch_end" in moment else (16, 20, 23, 30):
        saved = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        right = by_torch(saved["state_dict"])
        for name in ("norm.running_mean", "norm.running_var"):
            torch.testing.assert_close(saved["state_dict"][name], right[name], rtol=1e-4, atol=1e-6)
        if not weights_only:
            training = saved["lightning_sparse_rnn.training_statistics"]
            assert all(torch.equal(training[name], watch.trained[step - 1][name]) for name in training)
            assert len(training) == 3


@pytest.mark.parametrize("step", [4, 6, 8, 10])  # the ends of epochs; it begins to average after step 6
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path, step: int) -> None:
    def trained(seed: int, *callbacks: Any, **options: Any) -> tuple[pl.Trainer, Normalised]:
        module = Normalised()
        torch.manual_seed(seed)
        trainer = make_trainer(tmp_path, [SelfishSparseCallback(0.5), averaging(), *callbacks])
        _, batches = loaders()
        trainer.fit(module, batches, batches, **options)
        return trainer, module

    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole, module = trained(0, saver)
    resumed, other = trained(5, ckpt_path=str(tmp_path / f"step={step}.ckpt"))
    assert differences(end_state(whole), end_state(resumed)) == []
    assert other.validated == module.validated[len(module.validated) - len(other.validated) :]


def test_what_training_goes_on_with_is_put_back_if_a_validation_fails(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.current_epoch == 4:
                raise ValueError("stop")

    module, watch = Normalised(), Watch()
    with pytest.raises(ValueError, match="stop"):
        run(tmp_path, watch, averaging(), Fails(), module=module)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        assert torch.equal(value, watch.trained[-1][name]), name


def test_a_module_without_such_layers_costs_nothing(tmp_path: Path) -> None:
    class Counts(Net):
        calls = 0

        def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
            self.calls += 1
            return super().training_step(batch, batch_idx)

    module = Counts()
    fit(tmp_path, module, averaging())
    assert module.calls == 6 * STEPS


def test_manual_optimization_is_refused(tmp_path: Path) -> None:
    module = Normalised()
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match=r"in manual optimization takes steps\. Leave it out"):
        run(tmp_path, averaging(), module=module)


@pytest.mark.parametrize("batches", [0, -1, 2.5])
def test_numbers_of_batches_out_of_range_are_refused(batches: Any) -> None:
    with pytest.raises(ValueError, match="Expected `update_statistics` to be a whole number of at least 1, got"):
        NonMonotonicAveraging(update_statistics=batches)
