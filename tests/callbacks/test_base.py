"""Callbacks are known to every Lightning that was imported before them, also by class and from YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CALLBACKS = ("SelfishSparseCallback", "NonMonotonicAveraging", "SparseModelCheckpoint")

KNOWN = """
import sys
from {first} import {name}
import lightning_sparse_rnn
for callback in {callbacks}:
    assert issubclass(getattr(lightning_sparse_rnn, callback), {name}), callback
{more}
"""


def python(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_our_callbacks_are_callbacks_of_the_lightning_in_use(package: str) -> None:
    pytest.importorskip(package)
    more = f"assert issubclass(lightning_sparse_rnn.SparseModelCheckpoint, __import__({package!r}, fromlist=['x'])"
    more += ".callbacks.ModelCheckpoint)"
    python(KNOWN.format(first=package, name="Callback", callbacks=CALLBACKS, more=more))


def test_lightning_is_not_imported_under_a_second_name_for_it() -> None:
    python(
        KNOWN.format(first="pytorch_lightning", name="Callback", callbacks=CALLBACKS, more="")
        + ("\nassert 'lightning.pytorch' not in sys.modules")
    )


CLI = """
import sys, torch
from {package}.cli import LightningCLI
from {package} import LightningModule
sys.path.insert(0, {helpers!r})
from lightning_runs import ToyParts, loaders
class Module(ToyParts, LightningModule):
    def train_dataloader(self): return loaders()[0]
    def val_dataloader(self): return loaders()[1]
cli = LightningCLI(Module, save_config_callback=None, args=["fit", "--config", sys.argv[1]])
sparse, *_ = [each for each in cli.trainer.callbacks if type(each).__name__ == "SelfishSparseCallback"]
best, *_ = [each for each in cli.trainer.checkpoint_callbacks if type(each).__name__ == "SparseModelCheckpoint"]
print(sparse.topology.sparsity, len(sparse.updates), bool(best.best_model_path))
"""

CONFIG = """
trainer:
  max_epochs: 2
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  default_root_dir: {folder}
  callbacks:
    - class_path: lightning_sparse_rnn.SelfishSparseCallback
      init_args: {{sparsity: 0.5, exclude: [linear.*], update_every_n_steps: 4}}
    - class_path: lightning_sparse_rnn.NonMonotonicAveraging
      init_args: {{monitor: rising}}
    - class_path: lightning_sparse_rnn.SparseModelCheckpoint
      init_args: {{monitor: rising, dirpath: {folder}}}
"""


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_the_command_line_interface_takes_them_from_yaml(tmp_path: Path, package: str) -> None:
    pytest.importorskip("jsonargparse")
    pytest.importorskip(package)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    helpers = str(Path(__file__).parents[1] / "helpers")
    assert python(CLI.format(package=package, helpers=helpers), str(config)).split()[-3:] == ["0.5", "3", "True"]
