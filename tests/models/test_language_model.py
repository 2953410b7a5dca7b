"""Training, evaluation, resuming: the LightningModule around a network."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from process_runs import in_processes
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_sparse_rnn.models import LanguageModel, StackedLSTM

# Lightning 2.6's own, with the newest torch.
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")

CONF = Path(__file__).parents[2] / "conf"
VOCAB = 17
NETWORK = {
    "_target_": "lightning_sparse_rnn.models.StackedLSTM",
    "embedding_size": 6,
    "hidden_size": 5,
    "num_layers": 2,
    "dropout": 0.0,
}
SGD = {"_target_": "torch.optim.SGD", "lr": 2.0}


class Batches:
    """Columns of a text, resumable as the data module's are."""

    def __init__(self, columns: Tensor, bptt: int = 4) -> None:
        self.columns, self.bptt, self.start = columns, bptt, 0

    def __iter__(self):
        start, self.start = self.start, 0
        rows = len(self.columns) - 1
        for at in range(start * self.bptt, rows, self.bptt):
            end = min(at + self.bptt, rows)
            yield self.columns[at:end], self.columns[at + 1 : end + 1]

    def __len__(self) -> int:
        return math.ceil((len(self.columns) - 1) / self.bptt)


class ResumableBatches(Batches):
    """Reads its position from the trainer, since the loader runs one batch ahead."""

    trainer: pl.Trainer

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.trainer.fit_loop.epoch_loop.batch_progress.current.processed % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["batch"]


def text(rows: int = 23, columns: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, columns), generator=torch.Generator().manual_seed(seed))


def language_model(**options) -> LanguageModel:
    torch.manual_seed(1)
    return LanguageModel(**{"network": NETWORK, "vocab_size": VOCAB, "optimizer": SGD, **options})


def trainer(path: Path, **options) -> pl.Trainer:
    return pl.Trainer(
        **{
            "default_root_dir": path,
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **options,
        }
    )


def fit(path: Path, model: LanguageModel, ckpt_path=None, **options) -> pl.Trainer:
    loader = ResumableBatches(text())
    loader.trainer = trainer(path, **options)
    loader.trainer.fit(model, loader, Batches(text(13, 3, seed=1)), ckpt_path=ckpt_path)
    return loader.trainer


def same_weights(one: LanguageModel, other: LanguageModel) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def plain_loss(model: LanguageModel, columns: Tensor) -> Tensor:
    """The loss of every token of `columns`, (time, columns), read in one go."""
    with torch.no_grad():
        log_probs = model.network.log_probs(model.network(columns[:-1]).hidden)
    return -log_probs.gather(-1, columns[1:, :, None]).squeeze(-1)


class TestTraining:
    def test_equals_a_plain_loop(self, tmp_path):
        model, network = language_model(), language_model().network
        run = fit(tmp_path, model)
        optimizer = torch.optim.SGD(network.parameters(), lr=2.0)
        for _ in range(2):
            state, losses = None, []
            for tokens, targets in Batches(text()):
                output = network(tokens, state)
                state = tuple(part.detach() for part in output.state)
                loss = network.loss(output.hidden, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append((loss.item(), targets.numel()))
        for ours, theirs in zip(model.network.parameters(), network.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        mean = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
        assert run.callback_metrics["train_loss"].item() == pytest.approx(mean, rel=1e-6)
        assert run.callback_metrics["train_ppl"].item() == pytest.approx(math.exp(mean), rel=1e-6)

    def test_padding_has_no_part_in_a_mean_over_batches(self, tmp_path):
        model, columns = language_model(), text(13, 3)
        batches = [(tokens, targets.clone()) for tokens, targets in Batches(columns)]
        batches[0][1][1:], batches[2][1][:, 1:] = -100, -100  # 3, 12 and 4 targets count
        losses, loader = plain_loss(model, columns), DataLoader(batches, batch_size=None)
        expected = torch.cat([losses[:1].flatten(), losses[4:8].flatten(), losses[8:, 0]]).mean()
        (found,) = trainer(tmp_path).validate(model, loader, verbose=False)
        assert found["val_loss"] == pytest.approx(expected.item(), rel=1e-6)
        still = language_model(optimizer={**SGD, "lr": 0.0})
        run = trainer(tmp_path, max_epochs=1)
        run.fit(still, loader, Batches(columns))
        assert run.callback_metrics["train_loss"].item() == pytest.approx(expected.item(), rel=1e-6)

    def test_a_batch_of_padding_alone_adds_nothing(self, tmp_path):
        model, columns = language_model(), text(13, 3)
        batches = [(tokens, targets.clone()) for tokens, targets in Batches(columns)]
        batches[1][1].fill_(-100)
        losses, loader = plain_loss(model, columns), DataLoader(batches, batch_size=None)
        (found,) = trainer(tmp_path).validate(model, loader, verbose=False)
        assert found["val_loss"] == pytest.approx(torch.cat([losses[:4], losses[8:]]).mean().item(), rel=1e-6)
        before = copy.deepcopy(model.state_dict())
        run = trainer(tmp_path, max_epochs=1)
        run.fit(model, DataLoader(batches[1:2], batch_size=None), Batches(columns))
        assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
        assert run.callback_metrics["train_loss"].isnan()  # the mean over no token

    def test_regularisers(self, tmp_path):
        tokens, targets = text()[:4], text()[1:5]
        model = language_model(network={**NETWORK, "dropout": 0.5}, ar=2.0, tar=3.0)
        losses = []

        class Once(Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                losses.append(outputs["loss"])

        torch.manual_seed(5)
        trainer(tmp_path, max_steps=1, callbacks=[Once()]).fit(model, Batches(text()), Batches(text()))
        reference = language_model(network={**NETWORK, "dropout": 0.5}).network
        torch.manual_seed(5)
        hidden, raw, _ = reference(tokens)
        expected = reference.loss(hidden, targets) + 2.0 * (hidden**2).mean() + 3.0 * ((raw[1:] - raw[:-1]) ** 2).mean()
        assert torch.allclose(losses[-1], expected.detach())

    @pytest.mark.parametrize("lr_bptt", [None, 4, 8])
    def test_learning_rate_of_a_length(self, tmp_path, lr_bptt):
        scheduler = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": 0.5}
        model = language_model(lr_bptt=lr_bptt, scheduler=scheduler)
        seen, nominal = [], []

        class Watch(Callback):
            def on_before_optimizer_step(self, trainer, module, optimizer):
                seen.append(optimizer.param_groups[0]["lr"])

            def on_train_batch_end(self, trainer, module, *_):
                nominal.append(trainer.optimizers[0].param_groups[0]["lr"])

        trainer(tmp_path, callbacks=[Watch()]).fit(model, Batches(text()), Batches(text()))
        lengths = [4, 4, 4, 4, 4, 2]
        scale = [1.0 if lr_bptt is None else length / lr_bptt for length in lengths]
        assert seen == [rate * factor for rate in (2.0, 1.0) for factor in scale]
        # Lightning steps the scheduler before the last batch's end hook.
        assert nominal == [2.0] * 5 + [1.0] * 6 + [0.5]

    def test_learning_rate_comes_back_when_a_step_fails(self, tmp_path):
        model = language_model(lr_bptt=8)

        class Fail(Callback):
            def on_before_optimizer_step(self, *_):
                raise RuntimeError("stop")

        run = trainer(tmp_path, callbacks=[Fail()])
        with pytest.raises(RuntimeError, match="stop"):
            run.fit(model, Batches(text()), Batches(text()))
        assert run.optimizers[0].param_groups[0]["lr"] == 2.0

    def test_scheduler_with_lightnings_options(self):
        plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 3}
        config = language_model(scheduler={"scheduler": plateau, "monitor": "val_loss"}).configure_optimizers()
        assert config["lr_scheduler"]["monitor"] == "val_loss"
        assert config["lr_scheduler"]["scheduler"].patience == 3
        assert config["lr_scheduler"]["scheduler"].optimizer is config["optimizer"]

    def test_bfloat16(self, tmp_path):
        exact, mixed = language_model(), language_model()
        fit(tmp_path, exact)
        run = fit(tmp_path, mixed, precision="bf16-mixed")
        assert not same_weights(exact, mixed)
        for ours, theirs in zip(mixed.parameters(), exact.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=0.05)
        assert run.callback_metrics["val_loss"].dtype == torch.float32

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
    def test_compiled(self, tmp_path):
        plain, model = language_model(), language_model()
        fit(tmp_path, plain)
        fit(tmp_path, torch.compile(model, backend="eager"))
        # Compiled products are torch's own, which round in another way.
        torch.testing.assert_close(model.state_dict(), plain.state_dict())

    def test_deepcopy_in_training_goes_its_own_way(self, tmp_path):
        model = language_model()
        fit(tmp_path, model)
        twin = copy.deepcopy(model)
        before = copy.deepcopy(model.state_dict())
        fit(tmp_path, twin, max_epochs=1)
        assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
        assert not same_weights(model, twin)

    def test_nothing_but_the_networks_weights_in_the_state_dict(self, tmp_path):
        model = language_model()
        fit(tmp_path, model)
        assert {name.removeprefix("network.") for name in model.state_dict()} == set(model.network.state_dict())


class TestEvaluation:
    def test_loss_over_all_tokens_with_carried_state(self, tmp_path):
        model, columns = language_model(), text(12, 3, seed=2)
        run = trainer(tmp_path)
        loss = plain_loss(model, columns).mean().item()
        for method, stage in ((run.validate, "val"), (run.test, "test")):
            (metrics,) = method(model, Batches(columns), verbose=False)
            assert metrics[f"{stage}_loss"] == pytest.approx(loss, rel=1e-6)
            assert metrics[f"{stage}_ppl"] == pytest.approx(math.exp(loss), rel=1e-6)

    def test_each_evaluation_starts_from_zeros(self, tmp_path):
        model, run = language_model(), trainer(tmp_path)
        first = run.validate(model, Batches(text()), verbose=False)
        run.test(model, Batches(text(9, 2)), verbose=False)
        assert run.validate(model, Batches(text()), verbose=False) == first

    def test_validation_leaves_training_alone(self, tmp_path):
        often, never = language_model(), language_model()
        fit(tmp_path, often, val_check_interval=2)
        fit(tmp_path, never, limit_val_batches=0)
        assert same_weights(often, never)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_is_shown(self, tmp_path, value):
        model = language_model()
        with torch.no_grad():
            model.network.decoder.bias[3] = value
        (metrics,) = trainer(tmp_path).validate(model, Batches(text()), verbose=False)
        assert not math.isfinite(metrics["val_loss"])


class Save(Callback):
    """Saves after every training batch."""

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"step={trainer.global_step}.ckpt")


class Interrupt(Callback):
    """Raises at the given batch of the second epoch, in the given hook."""

    def __init__(self, hook: str, batch_idx: int) -> None:
        self.batch_idx = batch_idx
        setattr(self, hook, self.stop)

    def stop(self, trainer, *_):
        if trainer.current_epoch == 1 and trainer.fit_loop.batch_idx == self.batch_idx:
            raise RuntimeError("interrupted")

    def on_exception(self, trainer, module, exception):
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "interrupted.ckpt")


class TestResuming:
    @pytest.mark.parametrize(
        "hook", ["on_train_batch_start", "on_before_zero_grad", "on_before_optimizer_step", "on_train_batch_end"]
    )
    @pytest.mark.parametrize("batch_idx", [0, 3])
    def test_after_an_exception(self, tmp_path, hook, batch_idx):
        whole = language_model(ar=0.5)
        expected = fit(tmp_path, whole).callback_metrics
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(tmp_path, language_model(ar=0.5), callbacks=[Interrupt(hook, batch_idx)])
        resumed = language_model(ar=0.5)
        metrics = fit(tmp_path, resumed, ckpt_path=tmp_path / "interrupted.ckpt").callback_metrics
        assert same_weights(whole, resumed)
        assert metrics == expected

    @pytest.mark.parametrize("step", [6, 8, 11])
    def test_from_a_save_every_few_steps(self, tmp_path, step):
        whole = language_model()
        expected = fit(tmp_path, whole, callbacks=[Save()]).callback_metrics
        resumed = language_model()
        metrics = fit(tmp_path, resumed, ckpt_path=tmp_path / f"step={step}.ckpt").callback_metrics
        assert same_weights(whole, resumed)
        assert metrics["train_loss"] == expected["train_loss"]

    def test_on_another_number_of_processes(self, tmp_path):
        fit(tmp_path, language_model(), callbacks=[Save()])
        path = tmp_path / "step=8.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["carried_training_state"] *= 2
        torch.save(checkpoint, path)
        with pytest.raises(RuntimeError, match="state that 1 processes carried into batch 2"):
            fit(tmp_path, language_model(), ckpt_path=path)
        trainer(tmp_path).test(language_model(), Batches(text()), ckpt_path=path, verbose=False)


class TestCheckpoints:
    def test_loads_in_a_fresh_process(self, tmp_path):
        config = OmegaConf.create(
            {"network": NETWORK, "optimizer": {**SGD, "lr": "${rate}"}, "rate": 3.0, "vocab_size": VOCAB}
        )
        model = LanguageModel(config.network, config.vocab_size, config.optimizer)
        path = tmp_path / "last.ckpt"
        fit(tmp_path, model).save_checkpoint(path)
        assert torch.load(path, weights_only=True)["hyper_parameters"]["optimizer"] == {**SGD, "lr": 3.0}
        code = (
            "import sys, torch\n"
            "from lightning_sparse_rnn.models import LanguageModel\n"
            "model = LanguageModel.load_from_checkpoint(sys.argv[1], weights_only=True)\n"
            "torch.save(model.network(torch.arange(6).view(3, 2)).hidden, sys.argv[2])\n"
        )
        subprocess.run([sys.executable, "-c", code, path, tmp_path / "hidden.pt"], check=True)
        hidden = torch.load(tmp_path / "hidden.pt")
        assert torch.equal(hidden, model.network(torch.arange(6).view(3, 2)).hidden)

    def test_of_a_built_network(self, tmp_path):
        network = StackedLSTM(VOCAB, 6, 5)
        model = LanguageModel(network, optimizer=SGD)
        path = tmp_path / "last.ckpt"
        fit(tmp_path, model).save_checkpoint(path)
        with pytest.raises(ValueError, match=r"load_from_checkpoint\(path, network=\.\.\.\)"):
            LanguageModel.load_from_checkpoint(path)
        assert same_weights(LanguageModel.load_from_checkpoint(path, network=StackedLSTM(VOCAB, 6, 5)), model)

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (
                {**NETWORK, "hidden_size": 7},
                r"network\.decoder\.weight, \(17, 5\) there and \(17, 7\) here, .* and \d+ more",
            ),
            ({**NETWORK, "num_layers": 3}, r"it lacks network\.layers\.weight_ih_l2 \(20, 5\), "),
            ({**NETWORK, "num_layers": 1}, r"only it has network\.layers\.weight_ih_l1 \(20, 5\), "),
            ({**NETWORK, "_target_": "lightning_sparse_rnn.models.GRU"}, "Expected a checkpoint of .*GRU, got .*LSTM"),
        ],
    )
    def test_of_another_network(self, tmp_path, network, message):
        path = tmp_path / "last.ckpt"
        fit(tmp_path, language_model()).save_checkpoint(path)
        for load in (trainer(tmp_path).test, trainer(tmp_path).validate):
            with pytest.raises(ValueError, match=message):
                load(language_model(network=network), Batches(text()), ckpt_path=path)
        with pytest.raises(ValueError, match=message):
            fit(tmp_path, language_model(network=network), ckpt_path=path)

    def test_of_a_network_of_fewer_layers_if_that_is_asked_for(self, tmp_path):
        path = tmp_path / "last.ckpt"
        saved = language_model()
        fit(tmp_path, saved).save_checkpoint(path)
        larger = {**NETWORK, "num_layers": 3}
        with pytest.warns(UserWarning, match="keys that are in the model state dict but not in the checkpoint"):
            model = LanguageModel.load_from_checkpoint(path, network=larger, strict=False)
        assert torch.equal(model.network.decoder.weight, saved.network.decoder.weight)
        with pytest.raises(RuntimeError, match=r"Missing key.*network\.layers\.weight_ih_l2"):
            LanguageModel.load_from_checkpoint(path, network=larger)
        with pytest.raises(ValueError, match=r"shapes differ in network\.embedding\.weight"):
            LanguageModel.load_from_checkpoint(path, network={**larger, "embedding_size": 7}, strict=False)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"network": None}, "Expected `network`, got None"),
            ({"network": {"hidden_size": 5}}, "Expected `network` as a dict with a `_target_`"),
            ({"ar": -1.0}, "Expected `ar` and `tar` of at least 0, got -1.0 and 0.0"),
            ({"lr_bptt": 0}, "Expected `lr_bptt` to be a whole number of at least 1, got 0"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            language_model(**options)

    def test_training_without_an_optimizer(self, tmp_path):
        with pytest.raises(ValueError, match="Expected `optimizer`, got None"):
            fit(tmp_path, language_model(optimizer=None))

    def test_state_of_other_columns(self):
        model = language_model()
        state = model(text(3, 2)).state
        with pytest.raises(ValueError, match="Expected a state of 4 columns, as the batch has, got one of 2"):
            model(text(3, 4), state)


def train_on_one_rank_of_two(rank: int, folder: Path) -> tuple[dict, dict]:
    warnings.filterwarnings("error", "It is recommended to use")  # sync_dist=True, which is Lightning's advice
    model = language_model(ar=0.5)
    columns = text(columns=4)[:, 2 * rank : 2 * rank + 2]
    loader = ResumableBatches(columns)
    loader.trainer = trainer(folder, devices=2, strategy="ddp", callbacks=[Save()])
    loader.trainer.fit(model, loader, Batches(text(13, 3, seed=1)))
    resumed = language_model(ar=0.5)
    loader = ResumableBatches(columns)
    loader.trainer = trainer(folder, devices=2, strategy="ddp")
    loader.trainer.fit(resumed, loader, Batches(text(13, 3, seed=1)), ckpt_path=folder / "step=8.ckpt")
    assert same_weights(model, resumed)
    return model.state_dict(), {name: value.item() for name, value in loader.trainer.callback_metrics.items()}


def test_two_processes_train_as_one_with_all_columns(tmp_path):
    weights, metrics = in_processes(2, train_on_one_rank_of_two, tmp_path)[0]
    one = language_model(ar=0.5)
    expected = fit(tmp_path, one).callback_metrics
    for name, weight in one.state_dict().items():
        assert torch.allclose(weights[name], weight, atol=1e-6)
    for name in ("train_loss", "train_ppl", "val_loss", "val_ppl"):
        assert metrics[name] == pytest.approx(expected[name].item(), rel=1e-5)


SIZES = {
    "stacked_lstm": (10_000, 66.0),
    "small_lstm": (10_000, 2.0),
    "gru": (10_000, 4.5),
    "rhn": (10_000, 23.5),
    "on_lstm": (10_000, 25.2),
    "awd_lstm": (10_000, 24.2),
    "awd_lstm_mos": (33_278, 34.9),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_config_builds_the_published_size(name):
    vocab_size, millions = SIZES[name]
    overrides = [f"+model={name}", "+optimizer._target_=torch.optim.SGD", "+optimizer.lr=7", "+data.bptt=70"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=overrides)
    with torch.device("meta"):
        model = instantiate(config.model, optimizer=config.optimizer, vocab_size=vocab_size)
    assert isinstance(model, LanguageModel)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1) == millions
    assert model.configure_optimizers().param_groups[0]["lr"] == 7
    drawn = name in {"on_lstm", "awd_lstm", "awd_lstm_mos"}
    options = {option: model.hparams[option] for option in ("ar", "tar", "lr_bptt")}
    assert options == ({"ar": 2.0, "tar": 1.0, "lr_bptt": 70} if drawn else {"ar": 0.0, "tar": 0.0, "lr_bptt": None})
