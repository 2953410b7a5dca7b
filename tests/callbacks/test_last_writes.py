"""What is written into weights after the last masking is masked before it is saved, and when the fit ends."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_sparse_rnn import SNTASGD, NonMonotonicAveraging, SelfishSparseCallback

pytestmark = QUIET


class Two(pl.LightningModule):
    """Two layers, each with an optimizer of its own that steps in every other batch if ``toggled``."""

    def __init__(self, toggled: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not toggled
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def loss(self, batch: Tensor) -> Tensor:
        return self.second(self.first(batch)).square().mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        if self.automatic_optimization:
            return self.loss(batch)
        optimizer = self.optimizers()[batch_idx % 2]  # type: ignore[index]
        self.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return None

    def configure_optimizers(self) -> Any:
        if self.automatic_optimization:
            return torch.optim.SGD(self.parameters(), lr=0.01)
        return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (self.first, self.second)]


def loader() -> torch.utils.data.DataLoader[Any]:
    rows: Any = torch.arange(32.0).view(-1, 8).sin().repeat(4, 1)
    return torch.utils.data.DataLoader(rows, batch_size=4)


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        **options,
    )


def inactive_nonzero(weight: Tensor, mask: Tensor) -> int:
    return int(((weight != 0) & (mask == 0)).sum())


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end", "on_train_end"])
def test_what_a_hook_of_the_module_writes_last_is_masked(hook: str, tmp_path: Path) -> None:
    module, sparse = Two(), SelfishSparseCallback(0.5)

    def write(*args: Any) -> None:
        with torch.no_grad():
            module.first.weight.add_(0.1)

    setattr(module, hook, write)
    trainer(tmp_path, sparse, ModelCheckpoint(tmp_path, filename="end"), max_epochs=2).fit(module, loader())
    mask = sparse.topology.masks[module.first.weight]
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]["first.weight"]
    assert inactive_nonzero(saved, mask) == 0
    assert inactive_nonzero(module.first.weight, mask) == 0


def test_what_is_written_past_torchs_versions_is_masked_before_it_is_validated_and_saved(tmp_path: Path) -> None:
    class Validated(Two):
        def on_train_batch_end(self, *args: Any) -> None:
            self.first.weight.data.add_(0.1)

        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            self.log("loss", 1.0)
            seen.append(inactive_nonzero(self.first.weight, sparse.topology.masks[self.first.weight]))

        def configure_optimizers(self) -> Any:
            return SNTASGD(self.parameters(), lr=0.01)

    seen: list[int] = []
    module, sparse = Validated(), SelfishSparseCallback(0.5)
    callbacks = (sparse, NonMonotonicAveraging("loss"), ModelCheckpoint(tmp_path, filename="end"))
    trainer(tmp_path, *callbacks, max_epochs=2, num_sanity_val_steps=0).fit(module, loader(), loader())
    assert set(seen) == {0}
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    mask = sparse.topology.masks[module.first.weight]
    assert inactive_nonzero(saved["state_dict"]["first.weight"], mask) == 0
    assert inactive_nonzero(module.first.weight, mask) == 0


class Swapping(torch.optim.SGD):
    """Goes between the weights that it trains and those that are scored, as schedule-free optimizers do."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.01)
        self.own = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    @torch.no_grad()
    def swap(self, share: float) -> None:
        for group, own in zip(self.param_groups, self.own, strict=True):
            for parameter, state in zip(group["params"], own, strict=True):
                parameter.lerp_(state, share)


@pytest.mark.parametrize("hook", ["on_validation_model_eval", "on_validation_start", "on_validation_epoch_start"])
def test_weights_that_an_optimizer_swaps_for_evaluation_are_scored_as_they_are_saved(hook: str, tmp_path: Path) -> None:
    scored: list[dict[str, Tensor]] = []

    class Swapped(Two):
        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            if batch_idx == 0:
                scored.append({name: weight.detach().clone() for name, weight in self.named_parameters()})
            self.log("loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            return Swapping(self.parameters())

    def swap(*args: Any) -> None:
        module.eval()
        module.optimizers().swap(0.5)  # type: ignore[union-attr]

    module, sparse = Swapped(), SelfishSparseCallback(0.5)
    setattr(module, hook, swap)
    save = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="loss", save_top_k=-1)
    trainer(tmp_path, sparse, save, max_epochs=2, num_sanity_val_steps=0).fit(module, loader(), loader())
    assert len(scored) == 2
    for epoch, weights in enumerate(scored):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(weights[name], saved[name]) for name in saved)
        assert int(weights["first.weight"].count_nonzero()) == 32


@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_save_while_gradients_wait_is_gone_on_from_exactly(tmp_path: Path) -> None:
    def fit(**options: Any) -> tuple[SelfishSparseCallback, Two]:
        torch.manual_seed(0)
        module, sparse = Two(toggled=True), SelfishSparseCallback(0.5, growth="gradient", update_every_n_steps=3)
        saves = [] if options else [ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)]
        trainer(tmp_path, sparse, *saves, max_epochs=2).fit(module, loader(), **options)
        return sparse, module

    whole, module = fit()
    waiting = 0
    for path in sorted(tmp_path.glob("*.ckpt")):
        state = torch.load(path, weights_only=True)["callbacks"]["SelfishSparseCallback"]
        waiting += bool(state["gradients"])
        resumed, again = fit(ckpt_path=path)
        assert [update["step"] for update in resumed.updates] == [update["step"] for update in whole.updates]
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert waiting


def test_a_sparse_tensor_of_a_checkpoint_that_is_frozen_or_left_out_is_named_and_can_be_frozen_later(
    tmp_path: Path,
) -> None:
    class Frozen(Two):
        def on_train_start(self) -> None:
            self.first.requires_grad_(False)

    save = ModelCheckpoint(tmp_path, filename="end")
    trainer(tmp_path, SelfishSparseCallback(0.5), save, max_epochs=1).fit(Two(), loader())
    path = tmp_path / "end.ckpt"

    module = Two.load_from_checkpoint(path)
    module.first.requires_grad_(False)
    with pytest.raises(ValueError, match=r"has first\.weight, but frozen.*`on_train_start`"):
        trainer(tmp_path, SelfishSparseCallback.from_checkpoint(path), max_epochs=1).fit(module, loader())
    sparse = SelfishSparseCallback.from_checkpoint(path, exclude="first.*")
    with pytest.raises(ValueError, match=r"has first\.weight, but left out: by `include` or `exclude`"):
        trainer(tmp_path, sparse, max_epochs=1).fit(Two.load_from_checkpoint(path), loader())

    for growth in ("random", "gradient"):
        later, sparse = Frozen.load_from_checkpoint(path), SelfishSparseCallback.from_checkpoint(path, growth=growth)
        before = later.first.weight.detach().clone()
        trainer(tmp_path, sparse, max_epochs=3).fit(later, loader())
        assert torch.equal(later.first.weight, before)
        assert inactive_nonzero(before, sparse.topology.masks[later.first.weight]) == 0
        assert int(sparse.topology.masks[later.first.weight].sum()) == 32
        assert any(sparse.updates[-1]["pruned"]["second.weight"].values())


def test_a_copy_goes_its_own_way(tmp_path: Path) -> None:
    module, sparse = Two(), SelfishSparseCallback(0.5)
    trainer(tmp_path, sparse, max_epochs=2).fit(module, loader())
    topology, updates = sparse.topology, list(sparse.updates)
    other = copy.copy(sparse)
    trainer(tmp_path, other, max_epochs=3).fit(Two(), loader())
    assert sparse.topology is topology
    assert sparse.updates == updates
    assert other.topology is not topology
