"""The recurrent networks against themselves written plainly, and evaluation against training, at the paper's sizes.

    python benchmarks/networks.py                  # all of them
    python benchmarks/networks.py highway mixture  # some of them
    python benchmarks/networks.py --device cuda    # on a GPU

Prints ratios of times taken in turn in one process, so that a busy machine disturbs both sides alike; on a CPU they are
the processor's, on a GPU from call to end of its work:

- fast / plain: one training step (forward, loss, backward, clip, SGD step) of the package's network over that of the
  same network written one cell at a time for autograd (`tests/models/plain_networks.py`);
- eval / train: forward and loss of a batch in inference mode over a training step of it;
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

from plain_networks import PlainHighwayNetwork, PlainMoS, PlainOrderedNeuronsLSTM

from lightning_sparse_rnn.models import (
    AWDLSTM,
    GRU,
    AWDLSTMMoS,
    Network,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
    StackedLSTM,
)

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
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1.0)
        self.tokens, self.targets = torch.randint(case.vocab_size, (2, case.steps, case.columns)).to(device)

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
        self.network.loss(self.network(self.tokens).hidden, self.targets)


def seconds(function: Callable[[], None], device: str) -> float:
    clock = time.process_time if device == "cpu" else _time_on_gpu
    start = clock()
    function()
    return clock() - start


def _time_on_gpu() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(name: str, plain: bool, threads: int, device: str) -> float:
    """Peak memory in GB, resident or on the GPU, of a fresh process in its training steps."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (name, plain, threads, device))


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
    print(
        f"{'network':<10}{'train s':>9}{'plain s':>9}{'fast/plain':>12}{'eval/train':>12}{'peak GB':>9}{'plain GB':>10}"
    )
    for name in options.networks or CASES:
        case = CASES[name]
        memory = "" if options.skip_memory else f"{peak_memory(name, False, options.threads, options.device):.2f}"
        plain_memory = ""
        if case.plain and not options.skip_memory:
            plain_memory = f"{peak_memory(name, True, options.threads, options.device):.2f}"
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
        cost = median([a / b for a, b in zip(evaluate, train, strict=True)])
        print(
            f"{name:<10}{median(train):>9.3g}{plain_time:>9}{ratio:>12}{cost:>12.3f}{memory:>9}{plain_memory:>10}",
            flush=True,
        )


if __name__ == "__main__":
    main()
