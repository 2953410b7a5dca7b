"""The LightningModule that trains and evaluates any of the networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn

from lightning_sparse_rnn.checkpoints.fits import check_fits
from lightning_sparse_rnn.checkpoints.reading import load_checkpoint
from lightning_sparse_rnn.models.building import rebuilt
from lightning_sparse_rnn.models.kernels.recorded_pass import Pass
from lightning_sparse_rnn.models.kernels.softmax_loss import counts
from lightning_sparse_rnn.models.kernels.state import State, map_state, state_batch_size
from lightning_sparse_rnn.models.learning_rate import scaled_lr
from lightning_sparse_rnn.models.metrics import UNKNOWN_ID, TokenMean, counted_tokens, measures, tests_untrained
from lightning_sparse_rnn.models.network import Output
from lightning_sparse_rnn.models.recording import PassRecorder
from lightning_sparse_rnn.utilities.checks import check_flags, check_whole
from lightning_sparse_rnn.utilities.making import make
from lightning_sparse_rnn.utilities.plain_values import plain
from lightning_sparse_rnn.utilities.trainer_state import batch_runs

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LanguageModel"]

_CHECKPOINT_KEY = "carried_training_state"


class _Carried(NamedTuple):
    """What one training batch hands to the next: the network's state and the sums of the epoch's loss."""

    state: State
    total: Tensor
    tokens: Tensor


class LanguageModel(pl.LightningModule):
    """Trains a recurrent network to predict the next token, by truncated backpropagation through time.

    A batch is a pair of integer tensors, (tokens, targets), both (time, columns): each column reads its own part of
    the text from batch to batch, and `targets` is `tokens` one step ahead. The network's state is carried, detached,
    from batch to batch, and starts from zeros with the first batch of every epoch and of every evaluation.

    Logged, all averaged over tokens: `train_loss`, `train_ppl`, `val_loss`, `val_ppl`, `test_loss`, `test_ppl`
    (losses in nats, ppl = exp(loss)), and every `Trainer.log_every_n_steps` steps the batch's own `ppl`.
    Training losses are those of the prediction alone, without the two regularisers. Of a `TextDataModule`: bits per
    character, `val_bpc` and `test_bpc`, if tokens are no words; `test_ppl_known`, without `<unk>` that training lacks.

    With a network given as a dict, everything needed to build the module is in its checkpoints:
    `LanguageModel.load_from_checkpoint(path)`, which makes nothing that the file names but networks of this package
    and optimizers.

    Args:
        network: a `Network`, or a dict with its `_target_` and arguments (all but `vocab_size`).
        vocab_size: number of distinct tokens; goes to the network's `_target_`.
        optimizer: a dict with the `_target_` and arguments (all but the parameters) of an optimizer. Only needed to
            train.
        scheduler: a dict with the `_target_` and arguments (all but the optimizer) of a learning-rate scheduler, or
            Lightning's dict of `interval`, `monitor` and so on with such a dict under `scheduler`.
        ar: weight α of activation regularisation, α·mean(h²) over the last layer's output after dropout
            (Merity et al. 2017).
        tar: weight β of temporal activation regularisation, β·mean((hₜ₊₁ − hₜ)²) over it before dropout.
        lr_bptt: number of time steps the learning rate is meant for: a batch of T steps is trained with
            lr·T / lr_bptt, as recipes with sequences of random length ask for. None: lr whatever the length.
        cuda_graphs: on a GPU, record what is done with a batch of each shape and launch it as one CUDA graph forward
            and one backward. Where hooks, several devices or the network itself forbid it, one line says so and all is
            done kernel by kernel. Recorded gradients live in fixed memory: the next backward pass writes over them.

    Raises:
        ValueError: if `network` is None or names no `_target_`, `ar` or `tar` is negative, or `lr_bptt` is not
            positive.

    Examples:
        >>> from lightning_sparse_rnn.models import LanguageModel
        >>> model = LanguageModel(
        ...     network={"_target_": "lightning_sparse_rnn.models.LSTM", "embedding_size": 16, "hidden_size": 16},
        ...     vocab_size=50,
        ...     optimizer={"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 20.0},
        ... )
        >>> sum(parameter.numel() for parameter in model.parameters())
        6002

        To be trained by `Trainer.fit(model, datamodule=TextDataModule(...))`.
    """

    def __init__(
        self,
        network: Mapping[str, Any] | nn.Module | None,
        vocab_size: int | None = None,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        ar: float = 0.0,
        tar: float = 0.0,
        lr_bptt: int | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        super().__init__()
        if network is None:
            raise ValueError(
                "Expected `network`, got None. This module was made from a built network, of which a checkpoint "
                "only keeps the weights: pass it again, as in `load_from_checkpoint(path, network=...)`."
            )
        if ar < 0 or tar < 0:
            raise ValueError(f"Expected `ar` and `tar` of at least 0, got {ar} and {tar}.")
        if lr_bptt is not None:
            check_whole(lr_bptt=lr_bptt)
        check_flags(cuda_graphs=cuda_graphs)
        built = isinstance(network, nn.Module)
        self.save_hyperparameters(
            {
                "network": None if built else plain(network),
                "vocab_size": vocab_size,
                "optimizer": plain(optimizer),
                "scheduler": plain(scheduler),
                "ar": ar,
                "tar": tar,
                "lr_bptt": lr_bptt,
                "cuda_graphs": cuda_graphs,
            }
        )
        self.network: Any = network if built else _build("network", self.hparams["network"], vocab_size=vocab_size)
        self.train_loss = TokenMean()
        self.val_loss = TokenMean()
        self.test_loss = TokenMean()
        self.test_loss_known = TokenMean()
        # What came out of the last completed training batch, and what came out of the present one.
        self._before: _Carried | None = None
        self._after: _Carried | None = None
        self._time_steps = 0
        self._eval_state: State = None
        self._recorder = PassRecorder(cuda_graphs)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        trusted: bool = False,
        **options: Any,
    ) -> Self:
        """Make the model of a checkpoint.

        Nothing that the file names is made but the networks of this package, optimizers and schedulers of torch and of
        this package, all with plain values for arguments; and no network of other sizes than the file's own weights.

        Args:
            checkpoint_path: a local file.
            map_location: where tensors go, as `torch.load` has it. None: where they were saved from, or to the CPU on a
                machine without a GPU.
            hparams_file: a YAML file of hyperparameters that take the place of the checkpoint's, for instance because
                it has none; as little trusted as the checkpoint.
            strict: whether all weights must be there and no others. None: as the module's `strict_loading`.
            weights_only: False reads objects other than tensors and plain values. None: as not `trusted`.
            trusted: whether to make whatever the file names, such as a network of your own. Only for files whose
                makers you trust: it lets the file run any code.
            options: arguments of the class that take the place of the checkpoint's. A network of your own can be passed
                in this way, without `trusted`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or of another module, or names something that is not known here.
        """
        if map_location is None and not torch.cuda.is_available():
            map_location = "cpu"
        weights_only = not trusted if weights_only is None else weights_only
        saved = load_checkpoint(checkpoint_path, weights_only=weights_only, map_location=map_location)
        if hparams_file is not None:
            saved["hyper_parameters"] = yaml.safe_load(Path(hparams_file).read_text(encoding="utf-8"))
        return rebuilt(cls, saved, options, trusted=trusted, strict=strict)

    def forward(self, tokens: Tensor, state: State = None) -> Output:
        """Read `tokens` (time, columns), continuing from `state` (None: zeros).

        Raises:
            ValueError: if `state` was made for another number of columns.
        """
        if state is not None and state_batch_size(state) != tokens.size(1):
            raise ValueError(
                f"Expected a state of {tokens.size(1)} columns, as the batch has, got one of "
                f"{state_batch_size(state)}. Give every batch of an epoch the same number of columns."
            )
        output: Output = self.network(tokens, state)
        return output

    # Training

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if batch_idx == 0:
            self.train_loss.reset()
            self._after = _Carried(None, self.train_loss.total, self.train_loss.tokens)
        elif self._after is None:
            raise RuntimeError(
                f"Expected the state that {self.trainer.world_size} processes carried into batch {batch_idx} of the "
                "epoch; the checkpoint has none, or that of another number of processes. Resume on as many processes "
                "as saved it, or from a checkpoint of an epoch's end."
            )
        self._before = self._after
        self._time_steps = batch[0].size(0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        assert self._before is not None
        tokens, targets = batch
        state = map_state(lambda part: part.to(self.device), self._before.state)
        regularised = (self.hparams["ar"], self.hparams["tar"])
        objective, loss, state = self._recorder.run(self, self._train_on, regularised, tokens, targets, state)
        self.train_loss.update(loss, counted_tokens(targets))
        self._after = _Carried(state, self.train_loss.total, self.train_loss.tokens)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            # On the CPU, so that a progress bar that shows it at every step does not wait for the device each time.
            self.log("ppl", loss.float().exp().cpu(), prog_bar=True)
        return objective

    def _train_on(self, tokens: Tensor, targets: Tensor, state: State) -> Pass:
        output = self(tokens, state)
        loss = self.network.loss(output.hidden, targets)
        return Pass(loss + self._regularisers(output), loss.detach(), map_state(Tensor.detach, output.state))

    def _regularisers(self, output: Output) -> Tensor | float:
        penalty: Tensor | float = 0.0
        if self.hparams["ar"]:
            penalty = penalty + self.hparams["ar"] * output.hidden.pow(2).mean()
        if self.hparams["tar"] and output.raw.size(0) > 1:
            penalty = penalty + self.hparams["tar"] * output.raw.diff(dim=0).pow(2).mean()
        return penalty

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_loss)

    # Evaluation

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluation_step(batch, batch_idx, self.val_loss)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_loss)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if tests_untrained(getattr(self.trainer, "datamodule", None)):
            hidden = self(batch[0], self._eval_state if batch_idx else None).hidden
            known = (batch[1] != UNKNOWN_ID) & counts(batch[1])
            if known.any():
                self.test_loss_known.update(self.network.loss(hidden[known], batch[1][known]), int(known.sum()))
        self._evaluation_step(batch, batch_idx, self.test_loss)

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", self.test_loss)
        if self.test_loss_known.update_called:
            self.log("test_ppl_known", self.test_loss_known.compute().exp(), sync_dist=True)
            self.test_loss_known.reset()

    def _evaluation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, metric: TokenMean) -> None:
        if batch_idx == 0:
            metric.reset()
            self._eval_state = None
        tokens, targets = batch
        _, loss, self._eval_state = self._recorder.run(self, self._evaluate_on, (), tokens, targets, self._eval_state)
        metric.update(loss, counted_tokens(targets))

    def _evaluate_on(self, tokens: Tensor, targets: Tensor, state: State) -> Pass:
        output = self(tokens, state)
        loss = self.network.loss(output.hidden, targets)
        return Pass(loss, loss, output.state)

    def _log_epoch(self, stage: str, metric: TokenMean) -> None:
        self._eval_state = None
        loss = metric.compute()
        data: Any = getattr(self.trainer, "datamodule", None)
        # `compute` has already made the ranks agree; `sync_dist` keeps Lightning from warning that they may not.
        for name, value in measures(stage, loss, data).items():
            self.log(name, value, sync_dist=True, prog_bar=name == f"{stage}_ppl")

    def teardown(self, stage: str) -> None:
        self._recorder.clear()

    # Optimisation

    def configure_optimizers(self) -> Any:
        if self.hparams["optimizer"] is None:
            raise ValueError("Expected `optimizer`, got None. Give LanguageModel the optimizer to train with.")
        optimizer = _build("optimizer", self.hparams["optimizer"], self.parameters())
        scheduler = self.hparams["scheduler"]
        if scheduler is None:
            return optimizer
        config = dict(scheduler) if "scheduler" in scheduler else {"scheduler": scheduler}
        config["scheduler"] = _build("scheduler", config["scheduler"], optimizer)
        return {"optimizer": optimizer, "lr_scheduler": config}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        lr_bptt = self.hparams["lr_bptt"]
        with scaled_lr(optimizer.param_groups, 1.0 if lr_bptt is None else self._time_steps / lr_bptt):
            optimizer.step(closure=optimizer_closure)

    # Resuming in the middle of an epoch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A batch that an exception broke off is trained on again after resuming: keep what it started from.
        carried = self._before if batch_runs(self.trainer) else self._after
        if carried is not None:
            # Every rank calls this hook, and one of them writes the file.
            parts = (map_state(torch.clone, carried.state), carried.total, carried.tokens)
            checkpoint[_CHECKPOINT_KEY] = _of_each_rank(self.all_gather(parts), self.trainer.world_size)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_network(checkpoint)
        saved = checkpoint.get(_CHECKPOINT_KEY, [])
        world_size = self._trainer.world_size if self._trainer is not None else 1
        self._before = self._after = None
        if len(saved) == world_size:
            self._before = self._after = _Carried(*saved[self.global_rank])
            self.train_loss.load(self._after.total, self._after.tokens)

    def _check_network(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError if `checkpoint` is plainly one of another network."""
        ours, theirs = self.hparams["network"], checkpoint.get("hyper_parameters", {}).get("network")
        if ours and theirs and ours["_target_"] != theirs.get("_target_"):
            raise ValueError(f"Expected a checkpoint of {ours['_target_']}, got one of {theirs.get('_target_')}.")
        # Outside of a Trainer it is `load_from_checkpoint` that knows whether all tensors must be there.
        check_fits(checkpoint, self, strict=self._trainer is not None and self.strict_loading)


def _of_each_rank(gathered: State, world_size: int) -> list[State]:
    """Split what `all_gather` returned, tensors of shape (rank, ...), into one structure per rank."""
    if world_size == 1:
        return [gathered]
    return [map_state(lambda part, rank=rank: part[rank].clone(), gathered) for rank in range(world_size)]  # type: ignore[misc]


def _build(name: str, config: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise ValueError(f"Expected `{name}` as a dict with a `_target_`, got {config!r}.")
    return make(config, *args, **kwargs)
