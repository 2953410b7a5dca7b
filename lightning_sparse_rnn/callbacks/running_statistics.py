"""Running statistics of batch normalisation that belong to ŵ, beside those that training gathers for w."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.seed import isolate_rng
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader
from torchmetrics import Metric

__all__ = ["RunningStatistics", "layers_with_statistics"]


def layers_with_statistics(module: nn.Module) -> dict[str, _BatchNorm]:
    """The batch normalisations of a module, by name, that evaluate with running statistics."""
    layers = module.named_modules()
    return {name: layer for name, layer in layers if isinstance(layer, _BatchNorm) and layer.running_mean is not None}


class RunningStatistics:
    """Computes the statistics of ŵ as ``torch.optim.swa_utils.update_bn`` does, shows them, and puts those of w back.

    They are plain averages over training batches, which go through ``training_step`` in training mode, without
    gradients and without logging. Data and dropout are drawn from the number of the step, so that a resumed run
    computes the same ones, and training's random state stays as it is.

    Layers that were in evaluation mode in the last training batch, such as batch normalisations that are kept as they
    are, stay in it and keep the statistics of w. Afterwards all other buffers of the module and its metrics of
    torchmetrics are as they were; plain attributes that a ``training_step`` writes are not put back.

    Args:
        trainer: the Trainer of the fit.
        module: the module that is trained.
        batches: how many training batches to take, at most an epoch's. ``True``: an epoch.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, batches: bool | int) -> None:
        self._trainer, self._module, self._batches = trainer, module, batches
        self._layers = layers_with_statistics(module)
        self._modules = dict(module.named_modules())
        self.evaluating: list[str] = []  # the names of those that the last training batch found in evaluation mode
        self._training: dict[str, Tensor] | None = None  # those of w, while the layers have those of ŵ
        self._averaged: dict[str, Tensor] = {}
        self.revision: Any = None  # of the ŵ that `_averaged` are for
        self.computing = False

    def note_modes(self) -> None:
        """Take note of what is in evaluation mode, after a training batch: in a validation everything is."""
        self.evaluating = [name for name, module in self._modules.items() if not module.training]

    @property
    def shown(self) -> bool:
        """Whether the layers have the statistics of ŵ."""
        return self._training is not None

    def show(self, revision: Any, *, agree: bool = True) -> None:
        """Put the statistics of ŵ into the layers of the module, which shows ŵ, and compute them if it is another.

        Args:
            revision: equal to an earlier one if ŵ is.
            agree: let all processes take those of the first, which all have to ask for.
        """
        if self._training is None:
            self._training = self._copied()
        if revision != self.revision:
            self._compute()
            self._averaged, self.revision = self._copied(), revision
            if agree and self._trainer.world_size > 1:
                self._averaged = {
                    name: self._trainer.strategy.broadcast(value) for name, value in self._averaged.items()
                }
        self._load(self._averaged)

    def put_back(self) -> None:
        """Put the statistics of w back into the layers, if they have those of ŵ."""
        if self._training is not None:
            self._load(self._training)
            self._training = None

    def averaged(self) -> dict[str, Tensor]:
        """Those of ŵ last shown, by name in the module."""
        return dict(self._averaged)

    def training(self) -> dict[str, Tensor]:
        """Those of w, whatever the layers have."""
        return self._copied() if self._training is None else dict(self._training)

    def load_training(self, saved: dict[str, Tensor]) -> None:
        """Take over those of w that a checkpoint holds."""
        self._load(saved)

    # --------------------------------------------------------------------------------------------------------------

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        for name, layer in self._layers.items():
            for own, buffer in layer.named_buffers(recurse=False):
                yield f"{name}.{own}" if name else own, buffer

    def _copied(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self._buffers()}

    def _load(self, values: dict[str, Tensor]) -> None:
        for name, buffer in self._buffers():
            buffer.copy_(values[name])

    @torch.no_grad()
    def _compute(self) -> None:
        seed = self._trainer.global_step
        with isolate_rng(), self._busy():
            torch.manual_seed(seed)
            with self._loader(seed) as loader:  # which draws its order when it is opened
                for batch, index, _ in loader:
                    self._take(batch, index)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.computing = True
        evaluating = {self._modules[name] for name in self.evaluating if name in self._modules}
        layers = [layer for layer in self._layers.values() if layer not in evaluating]
        try:
            with (
                _in_training_mode(self._module, evaluating),
                _without_logging(self._module),
                _unchanged(self._module, layers),
                _plain(layers),
            ):
                yield
        finally:
            self.computing = False

    def _take(self, batch: Any, index: int) -> None:
        trainer, module = self._trainer, self._module
        batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))  # or the DataModule's
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        arguments = [batch]
        if is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2):
            arguments.append(index)
        with trainer.precision_plugin.train_step_context():
            module.training_step(*arguments)

    @contextmanager
    def _loader(self, seed: int) -> Iterator[Any]:
        """The batches of training, beside an epoch that may be going on: generators are as they were afterwards."""
        generators: dict[torch.Generator, Tensor] = {}

        def fresh(loader: DataLoader) -> DataLoader:
            for generator in (loader.generator, getattr(loader.sampler, "generator", None)):
                if generator is not None:
                    generators.setdefault(generator, generator.get_state())
                    generator.manual_seed(seed)
            beside = copy.copy(loader)
            beside._iterator = None  # persistent workers belong to the epoch that is going on
            return beside

        most = self._trainer.num_training_batches
        wanted = most if self._batches is True else min(most, self._batches)
        loaders = tree_map_only(DataLoader, fresh, self._trainer.train_dataloader)
        batches = iter(CombinedLoader(loaders, "max_size_cycle"))
        try:
            yield batches if wanted == float("inf") else itertools.islice(batches, int(wanted))
        finally:
            for generator, state in generators.items():
                generator.set_state(state)


@contextmanager
def _plain(layers: list[_BatchNorm]) -> Iterator[None]:
    """Let statistics begin anew and be plain averages over batches."""
    momenta = {layer: layer.momentum for layer in layers}
    try:
        for layer in momenta:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum


@contextmanager
def _in_training_mode(module: nn.Module, evaluating: set[nn.Module]) -> Iterator[None]:
    modes = {each: each.training for each in module.modules()}
    try:
        module.train()
        for each in evaluating:
            each.training = False
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


@contextmanager
def _unchanged(module: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Put back buffers, but for those of ``layers``, and all that metrics have: their states and counts of updates."""
    spaces: list[dict[str, Any]] = [each._buffers for each in module.modules() if each not in set(layers)]
    spaces += [vars(each) for each in module.modules() if isinstance(each, Metric)]
    kept = [(space, {name: (value, _copy(value)) for name, value in space.items()}) for space in spaces]
    try:
        yield
    finally:
        for space, values in kept:
            for name, (value, before) in values.items():
                if isinstance(value, Tensor):  # the tensor itself: graphs and other metrics may share it
                    value.copy_(before)
                elif isinstance(value, list):
                    value[:] = before
                space[name] = value


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return list(value) if isinstance(value, list) else value


@contextmanager
def _without_logging(module: LightningModule) -> Iterator[None]:
    """Let ``self.log`` do nothing: these are no steps of training."""
    attributes = vars(module)
    own: dict[str, Any] = {name: attributes[name] for name in ("log", "log_dict") if name in attributes}
    try:
        attributes["log"] = attributes["log_dict"] = _nothing
        yield
    finally:
        del attributes["log"], attributes["log_dict"]
        attributes.update(own)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Logs nothing."""
