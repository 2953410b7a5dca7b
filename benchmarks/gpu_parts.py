"""The parts of `benchmarks.gpu_check`: each measures or checks one thing on a GPU, and returns what goes into the JSON.

All take a `Place`. On a CPU nothing is recorded and no cell is fused; there they only show that the check runs.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.epoch_seconds import epoch_seconds
from benchmarks.models import CLIP, LEARNING_RATE, SPARSITY, WEIGHT_DECAY
from benchmarks.setting import RECIPE, SMALL, Setting
from benchmarks.training_step import dense_loop
from benchmarks.turns import take_turns
from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.models import LanguageModel, StackedLSTM
from lightning_sparse_rnn.models.kernels import cuda_graphs
from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.folder import METRICS
from lightning_sparse_rnn.sparsity import SparseTopology

__all__ = ["PARTS", "Place"]

ROOT = Path(__file__).parents[1]
# What needs a GPU, or behaves in another way on one.
_TESTS = [
    "tests/models/kernels",
    "tests/models/test_recording_on_gpu.py",
    "tests/models/test_stacked.py",
    "tests/models/test_awd_lstm.py",
    "tests/integration/test_precision.py",
    "tests/callbacks/test_exact_resume.py",
    "tests/optim",
]


@dataclass(frozen=True)
class Place:
    """Where to measure: on a GPU at the recipe's size, or, `dry`, on the CPU at toy size."""

    dry: bool
    root: str | None = None  # the folder of the Penn Treebank; None: random text of its size
    seconds: float = 480.0

    @property
    def setting(self) -> Setting:
        if self.dry:
            return Setting(SMALL, torch.device("cpu"), repeats=1, batches=2)
        return Setting(RECIPE, torch.device("cuda"), repeats=5, batches=40)


class Steps:
    """Training steps of a sparse language model without a Trainer: pass, backward, clipping, optimizer, state."""

    def __init__(
        self, place: Place, network: nn.Module, columns: int, steps: int, graphs: bool, sparsity: float = SPARSITY
    ) -> None:
        self._setting = place.setting
        device = self._setting.device
        self.model = LanguageModel(network, cuda_graphs=graphs).to(device)
        self.optimizer = SNTASGD(self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.optimizer.set_masks(SparseTopology(self.model, sparsity).masks)
        self.batch = torch.randint(network.vocab_size, (2, steps, columns), device=device)  # type: ignore[call-overload]
        self.state: Any = None

    def train(self) -> None:
        self.model.train()
        for _ in range(self._setting.batches):
            found = self.model._recorder.run(self.model, self.model._train_on, (), *self.batch, self.state)
            self.state = found.state
            self.optimizer.zero_grad()
            found.objective.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()

    @torch.inference_mode()
    def evaluate(self) -> None:
        """As many tokens as `train` has, four times as many at once, as the data module reads them."""
        self.model.eval()
        tokens, targets = (part.repeat(4, 1) for part in self.batch)
        state: Any = None
        for _ in range(max(1, self._setting.batches // 4)):
            found = self.model._recorder.run(self.model, self.model._evaluate_on, (), tokens, targets, state)
            state = found.state


def dropout(place: Place) -> dict[str, Any]:
    """Whether masks are new in each replay: of our networks, and of cuDNN's dropout between the layers it runs."""
    setting = place.setting
    size, device = setting.size, setting.device
    steps = Steps(place, _stacked(place, fused=False), size.columns, size.steps, graphs=True)
    steps.optimizer.param_groups[0]["lr"] = 0.0
    losses = []
    for _ in range(4):
        found = steps.model._recorder.run(steps.model, steps.model._train_on, (), *steps.batch, None)
        losses.append(float(found.loss))
    result: dict[str, Any] = {"ours_fresh": len(set(losses)) == 4, "losses": losses}
    layers = nn.LSTM(size.width, size.width, 2, dropout=0.5).to(device)  # no other dropout, and weights stay
    x, results = torch.randn(size.steps, size.columns, size.width, device=device), []

    def run() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (layers(x)[0],)

    if device.type == "cuda":
        ((replay, (output,)),) = cuda_graphs.record([run], device)
        for _ in range(4):
            replay()
            assert output is not None
            results.append(output.clone())
        result["cudnn_fresh"] = not any(torch.equal(a, b) for a, b in itertools.combinations(results, 2))
    return result


def steps(place: Place) -> dict[str, Any]:
    """A training step of the paper's stacked LSTM: dense in a bare loop, kernel by kernel, recorded, by fused cells.

    And one of the recipe that is to go below the paper's line.
    """
    size = place.setting.size
    torch.set_float32_matmul_precision("high")
    sides: dict[str, Callable[[], Any]] = {"dense loop, nn.LSTM, fused SGD": dense_loop(place.setting)}
    for name, fused, graphs in (
        ("kernel by kernel, cuDNN", False, False),
        ("recorded, cuDNN", False, True),
        ("recorded, fused cells", True, True),
    ):
        sides[name] = Steps(place, _stacked(place, fused), size.columns, size.steps, graphs).train
    averaging = Steps(place, _stacked(place, fused=True), size.columns, size.steps, graphs=True)
    averaging.optimizer.restart()
    sides["recorded, fused cells, averaging"] = averaging.train
    for name, fused in (("best recipe, cuDNN", False), ("best recipe, fused cells", True)):
        network, sparsity = _best_recipe(place, fused)
        sides[name] = Steps(place, network, size.columns, size.steps, True, sparsity).train
    times = take_turns(sides, place.setting)
    milliseconds = {name: 1e3 * median(taken) / place.setting.batches for name, taken in times.items()}
    first = next(iter(milliseconds.values()))
    return {"milliseconds": milliseconds, "over_dense": {name: time / first for name, time in milliseconds.items()}}


def precision(place: Place) -> dict[str, Any]:
    """By how much gradients differ from float32's, as shares of their norms: of cuDNN, and of fused cells."""
    size, device = place.setting.size, place.setting.device
    batch = torch.randint(size.vocabulary, (2, size.steps, size.columns), device=device)
    torch.manual_seed(0)
    reference = _stacked(place, fused=False, dropout=0.0).to(device)
    found: dict[str, list[Tensor]] = {}
    for name, fused, rounding in (
        ("float32", False, "highest"),
        ("cuDNN, high", False, "high"),
        ("fused, high", True, "high"),
        ("fused, medium", True, "medium"),
    ):
        torch.set_float32_matmul_precision(rounding)
        torch.backends.cudnn.allow_tf32 = rounding != "highest"
        network = _stacked(place, fused, dropout=0.0).to(device)
        network.load_state_dict(reference.state_dict())
        loss = network.loss(network(batch[0]).hidden, batch[1])
        found[name] = list(torch.autograd.grad(loss, list(network.parameters())))
    exact = found.pop("float32")
    names = [name for name, _ in reference.named_parameters()]
    return {
        side: {
            name: float((ours - theirs).norm() / theirs.norm())
            for name, ours, theirs in zip(names, gradients, exact, strict=True)
        }
        for side, gradients in found.items()
    }


def networks(place: Place) -> dict[str, Any]:
    """Every network: a step with its recurrences alone recorded, as before, and all of it; and evaluation over it."""
    from benchmarks.networks import CASES

    torch.set_float32_matmul_precision("high")
    results = {}
    for name, case in CASES.items():
        make = case.fast
        if place.dry:
            sizes: dict[str, Any] = {"embedding_size": 8, "hidden_size": 8}
            sizes |= {"chunk_size": 4} if name == "ordered" else {"last_size": 8} if name == "mixture" else {}
            make = lambda vocabulary, make=make, sizes=sizes: make(vocabulary, **sizes)  # noqa: E731
        columns, length, vocabulary = (2, 5, 30) if place.dry else (case.columns, case.steps, case.vocab_size)
        before, after = (Steps(place, make(vocabulary), columns, length, graphs) for graphs in (False, True))
        sides = {"before": before.train, "recorded": after.train, "evaluation": after.evaluate}
        setting = Setting(place.setting.size, place.setting.device, 1 if place.dry else 3, place.setting.batches)
        times = {side: median(taken) for side, taken in take_turns(sides, setting).items()}
        results[name] = {
            "milliseconds": 1e3 * times["recorded"] / setting.batches,
            "recorded_over_before": times["recorded"] / times["before"],
            "evaluation_over_training": times["evaluation"] / times["recorded"],
        }
        print(name, results[name], flush=True)
    return results


def epochs(place: Place) -> dict[str, Any]:
    """Seconds of an epoch by `sparse-rnn-train`, validation and checkpoints included.

    By fused cells, as the recipe has them, four of them, to see whether they grow; by cuDNN; with compact checkpoints.
    """
    results: dict[str, Any] = {}
    sides = {
        "fused cells": ["trainer.max_epochs=4"],
        "cuDNN": ["trainer.max_epochs=3", "model.network.fused_cells=false"],
        "compact checkpoints": ["trainer.max_epochs=3", "compact_checkpoints=true"],
    }
    with tempfile.TemporaryDirectory() as folder, _text(place, Path(folder)) as data:
        for name, own in sides.items():
            output = Path(folder) / name.replace(" ", "-")
            overrides = ["experiment=ptb_stacked_lstm", *data, *own]
            overrides += ["trainer.enable_progress_bar=false", f"output={output}"]
            if place.dry:
                overrides += ["model.network.embedding_size=8", "model.network.hidden_size=8", "trainer.max_epochs=2"]
                overrides += ["trainer.accelerator=cpu"]
            command = [sys.executable, "-m", "lightning_sparse_rnn.commands.train", *overrides]
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            found = list(output.glob(f"*/{METRICS}"))
            if not found:
                results[name] = {"error": ended.stderr[-2000:]}
                continue
            results[name] = {"seconds": epoch_seconds(found[0].parent)}
            print(name, results[name], flush=True)
    return results


def tests(place: Place) -> dict[str, Any]:
    """The tests of what a GPU does."""
    chosen = ["tests/utilities/test_checks.py"] if place.dry else _TESTS
    options = ["-q", "-p", "no:benchmark", "-p", "no:cacheprovider", "-rf"]
    if find_spec("xdist") is not None:
        options.append("-n0" if place.dry else "-n4")
    command = [sys.executable, "-m", "pytest", *options, *chosen]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=0.9 * place.seconds)
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return {"rc": None, "said": (said.decode() if isinstance(said, bytes) else said).splitlines()[-20:]}
    return {"rc": ended.returncode, "said": ended.stdout.splitlines()[-40:]}


def figures(place: Place) -> dict[str, Any]:
    """What `python -m benchmarks` measures of steps in a Trainer, of the optimizer, and of evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        options = ["--only", "training_step", "optimizer_step", "evaluation", "--json", str(path)]
        options += ["--small", "--device", "cpu", "--repeats", "1"] if place.dry else ["--repeats", "3"]
        ended = subprocess.run([sys.executable, "-m", "benchmarks", *options], cwd=ROOT, capture_output=True, text=True)
        if not path.exists():
            return {"error": ended.stderr[-2000:]}
        found = json.loads(path.read_text(encoding="utf-8"))
    return {f"{each['benchmark']}: {each['what']}": [each["seconds"], each["ratio"]] for each in found["figures"]}


#: By name, with the seconds that each may take; those that count most come first.
PARTS: dict[str, tuple[Callable[[Place], dict[str, Any]], float]] = {
    "dropout": (dropout, 50),
    "steps": (steps, 80),
    "epochs": (epochs, 150),
    "tests": (tests, 150),
    "precision": (precision, 40),
    "networks": (networks, 120),
    "figures": (figures, 90),
}


def _stacked(place: Place, fused: bool, dropout: float = 0.65) -> StackedLSTM:
    size = place.setting.size
    return StackedLSTM(size.vocabulary, size.width, size.width, size.layers, dropout, fused_cells=fused)


def _best_recipe(place: Place, fused: bool) -> tuple[nn.Module, float]:
    """The network of the recipe that is to go below the paper's line, and its sparsity."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", ["experiment=ptb_stacked_lstm_best", f"model.network.fused_cells={fused}"])
    size = place.setting.size
    network = instantiate(
        config.model.network, vocab_size=size.vocabulary, embedding_size=size.width, hidden_size=size.width
    )
    return network, config.method.sparsity


@contextmanager
def _text(place: Place, folder: Path) -> Any:
    """The overrides that choose the text: the Penn Treebank's, or random words of as many lines."""
    if place.root is not None:
        yield [f"data.root={place.root}"]
        return
    draws = random.Random(0)
    words = [f"w{number}" for number in range(50 if place.dry else 9_999)]
    for name, lines in (("train", 42_068), ("valid", 3_370), ("test", 3_761)):
        several = [" ".join(words)] if name == "train" else []
        several += [" ".join(draws.choices(words, k=21)) for _ in range(lines // 500 if place.dry else lines)]
        (folder / f"{name}.txt").write_text("\n".join(several) + "\n", encoding="utf-8")
    yield ["data=folder", f"data.root={folder}", f"data.cache_dir={folder}"]
