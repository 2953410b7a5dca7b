"""What NonMonotonicAveraging does in a plain run: the trigger, what validation and the module show, messages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, loaders, make_trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from toy_runs import Net, fit, net, weights

from lightning_sparse_rnn import SNTASGD, NonMonotonicAveraging, SelfishSparseCallback

pytestmark = QUIET


class Scripted(Net):
    """Logs a given loss after each validation, instead of its own."""

    def __init__(self, losses: Sequence[float], nonmono: int = 1) -> None:
        super().__init__(lambda parameters: SNTASGD(parameters, lr=0.5, nonmono=nonmono))
        self.losses = list(losses)

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("scripted", 9.0 if self.trainer.sanity_checking else self.losses[self.trainer.current_epoch])


class Weights(pl.Callback):
    """Keeps the weights after every training batch, and those that each validation sees."""

    def __init__(self) -> None:
        self.trained: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []
        self.saved: list[dict[str, Tensor]] = []
        self.copied: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.trained.append(weights(pl_module))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if not trainer.sanity_checking and args[2] == 0:
            self.validated.append(weights(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.copied.append(copy.deepcopy(pl_module).state_dict())


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def mean(history: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([moment[name] for moment in history]).mean(0) for name in history[0]}


# ------------------------------------------------------------------------------------------------------- the trigger


@pytest.mark.parametrize(
    ("losses", "nonmono", "began"),
    [
        ([5, 4, 3, 2, 1, 0], 1, None),
        ([1, 2, 3, 4, 5, 6], 1, 2),  # 3 > min(1): the last one is left out
        ([1, 2, 3, 4, 5, 6], 3, 4),
        ([3, 1, 2, 2, 0, 0], 1, 3),
        ([3, 3, 3, 3, 3, 3], 1, None),  # not better, and not worse
        ([1, 1, 1, 1, 1, 2], 5, None),
        ([1, 1, 1, 1, 1, 2], 4, 5),
    ],
)
def test_averaging_begins_when_a_loss_is_worse_than_the_best_of_all_but_the_last(
    tmp_path: Path, losses: list[float], nonmono: int, began: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    module = Scripted(losses, nonmono)
    averaging = NonMonotonicAveraging("scripted")
    trainer = fit(tmp_path, module, averaging, num_sanity_val_steps=1)  # which logs 9, and does not count
    assert averaging.began_epoch == began
    assert trainer.optimizers[0].averaging == (began is not None)
    assert trainer.optimizers[0].history == tuple(losses)
    said = [message.partition(" scripted ")[0] for message in caplog.messages if "Averaging begins" in message]
    assert said == ([] if began is None else [f"In the {['3rd', '4th', '5th', '6th'][began - 2]} epoch"])


def test_a_metric_that_rises_is_followed_by_its_falls(tmp_path: Path) -> None:
    module, averaging = Scripted([1, 2, 3, 2, 1, 0]), NonMonotonicAveraging("scripted", mode="max")
    trainer = fit(tmp_path, module, averaging)
    assert averaging.began_epoch == 4  # 1 < max(1, 2, 3): the last one is left out; 2 at epoch 3 equals the best then
    assert trainer.optimizers[0].history == (-1, -2, -3, -2, -1, 0)


# -------------------------------------------------------------------------------------------- what is seen, and when


def test_validation_and_the_trained_module_see_averages_while_training_goes_on_with_its_own(tmp_path: Path) -> None:
    module = Scripted([1, 2, 3, 0, 0, 0])
    before = copy.deepcopy(module)
    record = Weights()
    averaging = NonMonotonicAveraging("scripted")
    fit(tmp_path, module, record, averaging)
    assert averaging.began_epoch == 2
    for epoch in range(3):
        assert_equal(record.validated[epoch], record.trained[5 * epoch + 4])
    for epoch in range(3, 6):
        expected = mean(record.trained[15 : 5 * epoch + 5])
        for name, seen in record.validated[epoch].items():
            torch.testing.assert_close(seen, expected[name], rtol=1e-5, atol=1e-6)
        # The checkpoint's weights are those validated; a copy of the module has its own, which training goes on with.
        assert_equal(record.saved[epoch], record.validated[epoch])
        assert_equal(record.copied[epoch], record.trained[5 * epoch + 4])
    assert_equal(weights(module), record.validated[-1])

    alone = Weights()
    fit(tmp_path, before, alone)  # nothing feeds its trigger: plain SGD, with other weights in validation
    for with_averages, without in zip(record.trained, alone.trained, strict=True):
        assert_equal(with_averages, without)


def test_hooks_of_the_module_see_the_averages(tmp_path: Path) -> None:
    def renamed_and_halved(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        state["head.weight"] = state.pop("linear.weight")
        state["linear.bias"] = state["linear.bias"] / 2

    module, record = Scripted([1, 2, 3, 0, 0, 0]), Weights()
    module.register_state_dict_post_hook(renamed_and_halved)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(tmp_path, module, record, NonMonotonicAveraging("scripted"), saver)
    expected = record.validated[-1]
    assert not torch.equal(expected["linear.weight"], record.trained[-1]["linear.weight"])
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for state in (record.saved[-1], checkpoint["state_dict"]):
        assert "linear.weight" not in state
        assert torch.equal(state["head.weight"], expected["linear.weight"])
        assert torch.equal(state["linear.bias"], expected["linear.bias"] / 2)


@pytest.mark.parametrize(
    ("losses", "restarts", "column"),
    [
        ([1, 2, 3, 0, 0, 0], (), [0, 0, 0, 1, 1, 1]),  # fires in epoch 2, whose validation is over by then
        ([9, 8, 7, 6, 5, 5], (2,), [0, 0, 1, 1, 1, 1]),  # begins with epoch 2
        ([6, 5, 4, 3, 2, 9], (), [0, 0, 0, 0, 0, 0]),  # fires in the last validation
    ],
)
def test_it_tells_which_validations_saw_averages(
    tmp_path: Path, losses: list[float], restarts: tuple[int, ...], column: list[int]
) -> None:
    averaging = NonMonotonicAveraging("scripted", restarts)
    told = []

    class Told(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            told.append(int(averaging.validates_averages))

    fit(tmp_path, Scripted(losses), Told(), averaging)
    assert told == column


def test_every_weight_is_averaged_since_it_was_last_born(tmp_path: Path) -> None:
    module = Scripted([1, 2, 3, 0, 0, 0])
    sparse, record = SelfishSparseCallback(0.5), Weights()
    births: dict[str, Tensor] = {}  # the step after which each weight was last born
    masks: dict[str, Tensor] = {}

    class Births(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            if trainer.global_step == 15:  # averaging has begun
                births.update({name: torch.full_like(value, 15) for name, value in weights(pl_module).items()})
            if trainer.global_step in (15, 20, 25):  # an update has been: what is zero now is born or not live
                for name, value in weights(pl_module).items():
                    births[name][value == 0] = trainer.global_step
            masks.update({name: sparse.topology.masks[p].clone() for name, p in sparse.topology.parameters.items()})

    fit(tmp_path, module, sparse, record, NonMonotonicAveraging("scripted"), Births())
    assert {int(step) for step in births["lstm.weight_hh_l0"].unique()} == {15, 20, 25}
    for name, value in weights(module).items():
        history = torch.stack([moment[name] for moment in record.trained])
        counted = torch.arange(1, 31).view(-1, *[1] * value.dim()) > births[name]
        expected = (history * counted).sum(0) / counted.sum(0) * masks.get(name, 1.0)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_a_tied_weight_is_averaged_under_all_its_names(tmp_path: Path) -> None:
    module = Scripted([1, 2, 3, 0, 0, 0])
    module.twin = torch.nn.Linear(6, 2)
    module.twin.weight = module.linear.weight
    record = Weights()
    fit(tmp_path, module, record, NonMonotonicAveraging("scripted"))
    saved = record.saved[-1]
    torch.testing.assert_close(saved["linear.weight"], mean(record.trained[15:])["linear.weight"])
    assert torch.equal(saved["twin.weight"], saved["linear.weight"])
    assert module.twin.weight is module.linear.weight


def test_several_optimizers_average_and_others_are_left_alone(tmp_path: Path) -> None:
    class Two(Scripted):
        def __init__(self) -> None:
            super().__init__([1, 2, 3, 4, 0, 0])
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.SGD(self.linear.parameters(), lr=0.1),
                SNTASGD([self.lstm.weight_hh_l0, self.lstm.weight_ih_l0], lr=0.5, nonmono=1),
                SNTASGD([self.lstm.bias_hh_l0, self.lstm.bias_ih_l0], lr=0.5, nonmono=2),
            ]

        def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            for optimizer in self.optimizers():
                optimizer.step()

    module, record, averaging = Two(), Weights(), NonMonotonicAveraging("scripted")
    fit(tmp_path, module, record, averaging)
    assert averaging.began_epoch == 2
    begins = {"weight": 15, "bias": 20}  # the second of two windows is one validation longer
    for name, value in weights(module).items():
        expected = record.trained[-1][name]
        if name.startswith("lstm"):
            expected = mean(record.trained[begins[name.split(".")[1].split("_")[0]] :])[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_a_module_without_the_callback_can_feed_the_trigger_of_the_optimizer_it_is_handed(tmp_path: Path) -> None:
    class Feeds(Scripted):
        def __init__(self) -> None:
            super().__init__([])
            self.automatic_optimization = False

        def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

        def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
            with self.optimizers().averaged_weights():
                self.loss(batch)

        def on_validation_epoch_end(self) -> None:
            self.optimizers().observe(float(self.trainer.current_epoch))

    module, record = Feeds(), Weights()
    trainer = fit(tmp_path, module, record, num_sanity_val_steps=0)
    (optimizer,) = trainer.optimizers
    assert optimizer.history == (0, 1, 2, 3, 4, 5)
    for name, parameter in module.named_parameters():
        expected = mean(record.trained[15:])[name]  # it fires in epoch 2
        torch.testing.assert_close(optimizer.averaged(parameter), expected, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------- phases and fits


def test_a_phase_begins_at_each_epoch_asked_for_and_its_average_is_that_phases(tmp_path: Path) -> None:
    module, record = Scripted([9, 1, 2, 3, 4, 5]), Weights()
    averaging = NonMonotonicAveraging("scripted", restart_epochs=[4, 2])
    trainer = fit(tmp_path, module, record, averaging)
    assert averaging.began_epoch == 2
    assert trainer.optimizers[0].history == (4, 5)  # cleared at epoch 4
    for epoch, since in ((2, 10), (3, 10), (4, 20), (5, 20)):
        expected = mean(record.trained[since : 5 * epoch + 5])
        for name, seen in record.validated[epoch].items():
            torch.testing.assert_close(seen, expected[name], rtol=1e-5, atol=1e-6)


def test_one_callback_serves_one_run_after_another(tmp_path: Path) -> None:
    averaging = NonMonotonicAveraging("scripted", restart_epochs=[4])
    for _ in range(2):
        module, record = Scripted([9] * 6), Weights()
        fit(tmp_path, module, record, averaging)
        assert averaging.began_epoch == 4
        for name, value in weights(module).items():
            torch.testing.assert_close(value, mean(record.trained[20:])[name], rtol=1e-5, atol=1e-6)
    fit(tmp_path, Scripted([9] * 6), averaging, max_epochs=4)
    assert averaging.began_epoch is None


@pytest.mark.parametrize(
    ("share", "epochs", "began"),
    [(2 / 3, 6, 4), (0.667, 6, 4), (2 / 3, 18, 12), (0.667, 18, 12), (0.5, 3, 2), (0.1, 4, 1), (0.9, 2, None)],
)
def test_a_share_of_training_is_a_whole_epoch(tmp_path: Path, share: float, epochs: int, began: int | None) -> None:
    averaging = NonMonotonicAveraging("scripted", restart_at=[share])
    fit(tmp_path, Scripted([9] * epochs), averaging, max_epochs=epochs, limit_train_batches=1, limit_val_batches=1)
    assert averaging.began_epoch == began


def test_a_longer_run_begins_a_phase_at_its_own_share(tmp_path: Path) -> None:
    """A run of 2 epochs, resumed for 6, begins again at half of the 6."""
    path = tmp_path / "two.ckpt"
    first = fit(tmp_path, Scripted([9] * 2), NonMonotonicAveraging("scripted", restart_at=[0.5]), max_epochs=2)
    first.save_checkpoint(path)
    module, record = Scripted([9] * 6), Weights()
    averaging = NonMonotonicAveraging("scripted", restart_at=[0.5])
    make_trainer(tmp_path, [record, averaging], max_epochs=6).fit(module, *loaders(), ckpt_path=str(path))
    assert averaging.began_epoch == 1
    assert len(record.trained) == 20
    for name, value in weights(module).items():
        torch.testing.assert_close(value, mean(record.trained[5:])[name], rtol=1e-5, atol=1e-6)


def test_restarts_saved_as_a_count_are_understood() -> None:
    averaging = NonMonotonicAveraging(restart_epochs=[2, 5])
    for count, epoch in ((0, 0), (1, 2), (2, 5)):
        averaging.load_state_dict({"began_epoch": None, "validates_averages": False, "restarts": count})
        assert averaging.state_dict()["restarted"] == epoch


def test_a_share_of_a_run_without_planned_epochs_is_refused(tmp_path: Path) -> None:
    averaging = NonMonotonicAveraging("scripted", restart_at=[0.5])
    with pytest.raises(MisconfigurationException, match=r"and this Trainer has none\. Set `max_epochs`"):
        fit(tmp_path, Scripted([9] * 6), averaging, max_epochs=-1, max_steps=3)


@pytest.mark.parametrize("every", [1, 4])
def test_a_phase_begins_in_a_run_resumed_from_right_before_it(tmp_path: Path, every: int) -> None:
    def run(module: Scripted, *callbacks: pl.Callback, **options: Any) -> dict[str, Tensor]:
        module.dropout.p = 0.0
        _, batches = loaders()  # the two unshuffled ones
        averaging = NonMonotonicAveraging("scripted", restart_epochs=[2])
        trainer = make_trainer(tmp_path, [averaging, *callbacks], max_epochs=4, check_val_every_n_epoch=every)
        trainer.fit(module, batches, batches, **options)
        return weights(module)

    # Resuming from a save made on an epoch's last batch, Lightning skips the start of the next.
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    whole = run(Scripted([9] * 4), save)
    assert_equal(run(Scripted([9] * 4), ckpt_path=str(tmp_path / "step=4.ckpt")), whole)


# ---------------------------------------------------------------------------------------------------------- messages


def test_a_metric_that_was_not_logged_is_refused_with_those_that_were(tmp_path: Path) -> None:
    message = r"\(monitor='val_ppl'\) found no such metric after validation\. Logged: rising, val_loss\. Log it with"
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, net(), NonMonotonicAveraging("val_ppl"))


def test_a_run_without_sntasgd_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="expects an SNTASGD among the optimizers, got Adam"):
        fit(tmp_path, net("adam"), NonMonotonicAveraging("val_loss"))


def test_a_run_without_validation_is_pointed_out_and_never_averages(tmp_path: Path) -> None:
    averaging = NonMonotonicAveraging("val_loss")
    with pytest.warns(UserWarning, match="waits for 'val_loss' after validations, and this run has none"):
        trainer = fit(tmp_path, net(), averaging, limit_val_batches=0)
    assert not trainer.optimizers[0].averaging


@pytest.mark.parametrize("epochs", [[0], [3, 1.5], [-1]])
def test_bad_restart_epochs_are_refused(epochs: list[float]) -> None:
    with pytest.raises(ValueError, match="Expected `restart_epochs` to be whole numbers of at least 1, got "):
        NonMonotonicAveraging("val_loss", restart_epochs=epochs)  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", [[0.0], [1.0], [0.5, 12], [-0.5], [True], ["0.5"]])
def test_shares_out_of_range_are_refused(shares: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected `restart_at` to be shares .* between 0 and 1, got "):
        NonMonotonicAveraging(restart_at=shares)


@pytest.mark.parametrize("shares", [0.5, "0.5"])
def test_one_share_is_refused_with_how_to_write_it(shares: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected `restart_at` as a list of shares .* such as \[0\.667\], got"):
        NonMonotonicAveraging(restart_at=shares)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `mode` to be 'min' or 'max', got 'lowest'"):
        NonMonotonicAveraging(mode="lowest")
