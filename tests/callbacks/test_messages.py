"""What a run says of its topology, and what a callback says of itself."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import QUIET, make_trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from toy_runs import MemoryLogger, fit, net

from lightning_sparse_rnn import SelfishSparseCallback

pytestmark = QUIET


def test_a_run_begins_with_a_table_of_what_is_sparse_and_what_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, net("adam"), SelfishSparseCallback(0.5, exclude="linear.*"), max_epochs=2)
    (table,) = [record.getMessage() for record in caplog.records if "live weights:" in record.getMessage()]
    assert table.splitlines() == [
        "Sparse training, live weights:",
        "  lstm.weight_ih_l0    36 of  72 ( 50.0%)  input, forget, cell, output",
        "  lstm.weight_hh_l0    72 of 144 ( 50.0%)  input, forget, cell, output",
        "  all sparse tensors  108 of 216 ( 50.0%)",
        "  dense, 62 weights: lstm.bias_ih_l0, lstm.bias_hh_l0, linear.weight, linear.bias",
    ]


@pytest.mark.filterwarnings("ignore:No gradient has reached more.0.weight, more.1.weight, .* and 55 more")
def test_the_table_of_a_large_module_is_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = net("adam")
    module.more = nn.ModuleList(nn.Linear(3, 3) for _ in range(60))
    with caplog.at_level("INFO"):
        fit(tmp_path, module, SelfishSparseCallback(0.5), fast_dev_run=True)
    (table,) = [record.getMessage() for record in caplog.records if "live weights:" in record.getMessage()]
    assert len(table.splitlines()) == 34
    assert "... and 33 more" in table
    assert table.endswith("and 57 more")


def test_a_callback_says_what_it_was_made_with() -> None:
    assert repr(SelfishSparseCallback()) == "SelfishSparseCallback(sparsity=0.67)"
    sparse = SelfishSparseCallback(0.9, growth="gradient", include=["lstm.*"], initial_sparsity=0.5)
    said = "SelfishSparseCallback(sparsity=0.9, growth='gradient', include=['lstm.*'], initial_sparsity=0.5)"
    assert repr(sparse) == repr(copy.deepcopy(sparse)) == said


def test_after_a_fit_it_says_what_is_live_and_each_epoch_is_logged(tmp_path: Path) -> None:
    sparse = SelfishSparseCallback(0.5, initial_sparsity=0.1, sparsity_reached_at=0.5)
    logger = MemoryLogger()
    fit(tmp_path, net("adam"), sparse, max_epochs=4, logger=logger, log_every_n_steps=1)
    found = [metrics["sparsity/overall"] for _, metrics in logger.rows if "sparsity/overall" in metrics]
    assert len(found) == 4
    assert found[0] == pytest.approx(0.1, abs=0.01)
    assert found == sorted(found)
    assert found[-1] == sparse.topology.sparsity == pytest.approx(0.5, abs=0.01)
    assert repr(sparse) == f"SelfishSparseCallback(sparsity=0.5, initial_sparsity=0.1, topology={sparse.topology!r})"


def test_gates_and_initial_scale_go_to_the_topology(tmp_path: Path) -> None:
    module = net("adam")
    sparse = SelfishSparseCallback(0.5, gates={"linear.weight": ["up", "down"]}, initial_scale="density")
    before = module.linear.weight.detach().clone()

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            mask = sparse.topology.masks[module.linear.weight]
            torch.testing.assert_close(module.linear.weight, before * mask * 2**0.5)

    fit(tmp_path, module, Look(), sparse, max_epochs=1)
    assert list(sparse.topology.gate_sizes["linear.weight"]) == ["up", "down"]


def test_two_on_one_trainer_are_refused_and_the_docstring_says_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="consult the documentation of `SelfishSparseCallback`"):
        make_trainer(tmp_path, [SelfishSparseCallback(0.5), SelfishSparseCallback(0.9, include="linear.*")])
    assert "A Trainer has one of these" in str(SelfishSparseCallback.__doc__)


class Adapted(nn.Module):
    """A low-rank adapter: one of its two matrices begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(4, 10))
        self.up = nn.Parameter(torch.zeros(20, 4))


@pytest.mark.filterwarnings("ignore:No gradient has reached adapter.down, adapter.up")
def test_a_matrix_that_begins_at_zero_is_not_taken_for_a_sparse_one(tmp_path: Path) -> None:
    module = net("adam")
    module.adapter = Adapted()
    sparse = SelfishSparseCallback(0.5)
    fit(tmp_path, module, sparse, max_epochs=1)  # without another warning, which would be an error
    assert "adapter.up" in sparse.topology.parameters


def test_an_optimizer_with_weights_of_its_own_is_refused(tmp_path: Path) -> None:
    kind = type("CPUOffloadOptimizer", (torch.optim.SGD,), {})
    with pytest.raises(MisconfigurationException, match="does not go with CPUOffloadOptimizer: it steps weights of it"):
        fit(tmp_path, net(lambda p: kind(p, lr=0.1)), SelfishSparseCallback(0.5), max_epochs=1)
