"""What sparse training costs beside plain SGD: an optimizer step, a topology update, memory.

On the 66 million weights of the PTB stacked LSTM (embedding and decoder 10,000 × 1500, two LSTM layers of 1500), at
sparsity 0.67, with weight decay. All optimizers work on the same parameters and gradients, and take turns, so that a
change of the machine's speed meets them all.

    python benchmarks/optimizer_and_topology.py --json results.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.sparsity import SparseTopology

BASELINE = "SGD(fused=True)"
RATES = (0.8, 0.5, 0.1)
RECIPE = {"lr": 40.0, "weight_decay": 1.2e-6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=7, help="measurements of each figure, of which the median counts"
    )
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="write the figures, the machine and the versions here"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    module = nn.ModuleDict(
        {"embedding": nn.Embedding(10_000, 1500), "rnn": nn.LSTM(1500, 1500, 2), "decoder": nn.Linear(1500, 10_000)}
    )
    parameters = list(module.parameters())
    weights = sum(parameter.numel() for parameter in parameters)
    for parameter in parameters:
        parameter.grad = 1e-5 * torch.randn_like(parameter)
    topology = SparseTopology(module, 0.67)

    plain, averaging = (SNTASGD(parameters, **RECIPE) for _ in range(2))
    plain.set_masks(topology.masks)
    averaging.set_masks(topology.masks)
    averaging.restart()
    steps = median_times(
        {
            BASELINE: SGD(parameters, **RECIPE, fused=True).step,
            "SGD(foreach=True)": SGD(parameters, **RECIPE, foreach=True).step,
            "SNTASGD before the trigger": plain.step,
            "SNTASGD averaging": averaging.step,
        },
        arguments.repeats,
    )
    updates = topology_updates(topology, averaging, arguments.repeats)
    memory = {"SNTASGD before the trigger": bytes_held(topology, plain) / weights}
    memory["SNTASGD averaging"] = bytes_held(topology, averaging) / weights
    with averaging.averaged_weights():
        memory["SNTASGD showing averages"] = bytes_held(topology, averaging) / weights

    print(f"{weights:,} weights, {arguments.threads} thread(s), medians of {arguments.repeats}\n")
    print(f"{'one step':<28}{'ms':>8}{'ratio':>8}")
    for name, seconds in steps.items():
        print(f"{name:<28}{1e3 * seconds:>8.1f}{seconds / steps[BASELINE]:>8.2f}")
    print(f"\n{'one topology update':<28}{'s':>8}{'masks to the optimizer, s':>28}")
    for rate, (update, handover) in updates.items():
        print(f"{f'rate {rate}':<28}{update:>8.2f}{handover:>28.2f}")
    print(f"\n{'beside weight and gradient':<28}{'bytes a weight':>16}")
    for name, size in memory.items():
        print(f"{name:<28}{size:>16.2f}")

    if arguments.json is not None:
        results = {
            "machine": {"platform": platform.platform(), "processor": processor(), "threads": arguments.threads},
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "weights": weights,
            "repeats": arguments.repeats,
            "step_seconds": steps,
            "step_ratio_to_fused_sgd": {name: seconds / steps[BASELINE] for name, seconds in steps.items()},
            "topology_update_seconds": {str(rate): update for rate, (update, _) in updates.items()},
            "set_masks_seconds": {str(rate): handover for rate, (_, handover) in updates.items()},
            "bytes_per_weight": memory,
        }
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def median_times(actions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each action; they take turns, after one unmeasured turn."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            seconds = timed(action)
            if turn:
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def topology_updates(topology: SparseTopology, optimizer: SNTASGD, repeats: int) -> dict[float, tuple[float, float]]:
    """Return by rate the median seconds of an update and of handing it to the optimizer, some training in between."""
    times: dict[float, tuple[list[float], list[float]]] = {rate: ([], []) for rate in RATES}
    for _ in range(repeats):
        for rate, (updates, handovers) in times.items():
            train(topology)
            optimizer.step()
            start = time.perf_counter()
            update = topology.update(rate)
            updates.append(time.perf_counter() - start)
            handovers.append(timed(lambda born=update.born: optimizer.set_masks(topology.masks, born)))
    return {
        rate: (statistics.median(updates), statistics.median(handovers)) for rate, (updates, handovers) in times.items()
    }


@torch.no_grad()
def train(topology: SparseTopology) -> None:
    """Move all live weights, the newborn away from zero, as an epoch of training would."""
    for parameter, mask in topology.masks.items():
        parameter.add_(torch.randn_like(parameter).mul_(mask), alpha=0.05)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def bytes_held(topology: SparseTopology, optimizer: SNTASGD) -> int:
    """Return the size of all tensors that the topology and the optimizer hold besides parameters and gradients."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in tensors_in([vars(topology), vars(optimizer)])}
    return sum(
        size for pointer, size in held.items() if pointer not in {p.data_ptr() for p in parameters_of(optimizer)}
    )


def parameters_of(optimizer: SNTASGD) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors_in(entry)


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
