"""The recurrent networks against themselves written plainly, and evaluation against training, at the paper's sizes.

    python benchmarks/networks.py                  # all of them
    python benchmarks/networks.py highway mixture  # some of them
    python benchmarks/networks.py --device cuda    # on a GPU

Prints ratios of times taken in turn in one process, so that a busy machine disturbs both sides alike; on a CPU they are
the processor's, on a GPU from call to end of its work:

- fast / plain: one training step (forward, loss, backward, clip, step of SNT-ASGD with masks) of the package's network
  over that of the same network written one cell at a time for autograd (`tests/helpers/plain_networks.py`);
- eval / train: forward and loss in inference mode, as many tokens at once as `TextDataModule` reads, over the training
  steps of the same tokens;
- peak memory: of a process that does nothing but training steps; on a GPU, of what torch has allocated there.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from plain_networks import PlainHighwayNetwork, PlainMoS, PlainOrderedNeuronsLSTM

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.data.datamodule import AT_ONCE_IN_EVALUATION
from lightning_sparse_rnn.models import (
    AWDLSTM,
    GRU,
    AWDLSTMMoS,
    Network,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
    StackedLSTM,
)
from lightning_sparse_rnn.sparsity import SparseTopology

SPARSITY = 0.67
# The first call sets things up; on a GPU the second records the recurrences.
_WARM_UP = 2


@dataclass
class Case:
    """One network at the size of its recipe, on batches of (steps, columns) tokens."""

    fast: Callable[[int], Network]
    plain: Callable[[int], Network] | None
    vocab_size: int
    steps: int
    columns: int


CASES = {
    "stacked": Case(StackedLSTM, None, 10_000, 35, 20),
    "gru": Case(GRU, None, 10_000, 35, 20),
    "highway": Case(RecurrentHighwayNetwork, PlainHighwayNetwork, 10_000, 35, 20),
    "ordered": Case(OrderedNeuronsLSTM, PlainOrderedNeuronsLSTM, 10_000, 70, 20),
    "awd": Case(AWDLSTM, None, 10_000, 70, 20),
    "mixture": Case(AWDLSTMMoS, PlainMoS, 33_278, 70, 15),
}


class Bench:
    """A network with its optimizer, batch and carried state."""

    def __init__(self, case: Case, make: Callable[[int], Network], device: str) -> None:
        torch.manual_seed(0)
        self.network = make(case.vocab_size).to(device)
        self.optimizer = SNTASGD(self.network.parameters(), lr=1.0)
        self.optimizer.set_masks(SparseTopology(self.network, SPARSITY).masks)
        text = torch.randint(case.vocab_size, (2, AT_ONCE_IN_EVALUATION * case.steps, case.columns)).to(device)
        self.text, (self.tokens, self.targets) = text, text[:, : case.steps]

    def train(self) -> None:
        self.network.train()
        output = self.network(self.tokens)
        self.optimizer.zero_grad()
        self.network.loss(output.hidden, self.targets).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 0.25)
        self.optimizer.step()

    @torch.inference_mode()
    def evaluate(self) -> None:
        self.network.eval()
        tokens, targets = self.text
        self.network.loss(self.network(tokens).hidden, targets)


def seconds(function: Callable[[], None], device: str) -> float:
    clock = time.process_time if device == "cpu" else _time_on_gpu
    start = clock()
    function()
    return clock() - start


def _time_on_gpu() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_memories(name: str, threads: int, device: str) -> tuple[str, str]:
    """Peak memory in GB, resident or on the GPU, of training steps in a fresh process; and of the plain network's."""
    sides = [False, True] if CASES[name].plain else [False]
    found = []
    for plain in sides:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(f"{pool.apply(_peak_memory, (name, plain, threads, device)):.2f}")
    return found[0], "".join(found[1:])


def _peak_memory(name: str, plain: bool, threads: int, device: str) -> float:
    torch.set_num_threads(threads)
    case = CASES[name]
    bench = Bench(case, case.plain if plain and case.plain else case.fast, device)
    for _ in range(3):  # on a GPU recurrences are recorded in the second
        bench.train()
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return torch.cuda.max_memory_allocated() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="network", help=f"any of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--skip-memory", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(CASES):
        parser.error(f"Expected networks among {', '.join(CASES)}, got {', '.join(sorted(unknown))}.")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("There is no GPU here: leave --device out.")
    torch.set_num_threads(options.threads)
    names = options.networks or list(CASES)
    # Before this process grows: a new one begins with its parent's peak.
    peaks = (
        {} if options.skip_memory else {name: peak_memories(name, options.threads, options.device) for name in names}
    )
    print(
        f"{'network':<10}{'train s':>9}{'plain s':>9}{'fast/plain':>12}{'eval/train':>12}{'peak GB':>9}{'plain GB':>10}"
    )
    for name in names:
        case = CASES[name]
        memory, plain_memory = peaks.get(name, ("", ""))
        fast = Bench(case, case.fast, options.device)
        plain = Bench(case, case.plain, options.device) if case.plain else None
        sides = [fast.train, fast.evaluate, *([plain.train] if plain else [])]
        times: list[list[float]] = [[] for _ in sides]
        for repeat in range(options.repeats + _WARM_UP):
            for side, taken in zip(sides, times, strict=True):
                duration = seconds(side, options.device)
                if repeat >= _WARM_UP:
                    taken.append(duration)
                gc.collect()
        train, evaluate, *others = times
        plain_time = ratio = ""
        if others:
            plain_time = f"{median(others[0]):.3g}"
            ratio = f"{median([a / b for a, b in zip(train, others[0], strict=True)]):.2f}"
        cost = median([a / b for a, b in zip(evaluate, train, strict=True)]) / AT_ONCE_IN_EVALUATION
        print(
            f"{name:<10}{median(train):>9.3g}{plain_time:>9}{ratio:>12}{cost:>12.3f}{memory:>9}{plain_memory:>10}",
            flush=True,
        )


if __name__ == "__main__":
    with interruptible():
        main()
