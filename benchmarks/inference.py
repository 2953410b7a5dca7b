"""What packed weights save on a CPU: time and memory, beside dense products and what torch has against zeros.

    python -m benchmarks.inference                    # about five minutes, one thread
    python -m benchmarks.inference --threads 2
    LIGHTNING_SPARSE_RNN_KERNEL=avx2 python -m benchmarks.inference
    python -m benchmarks.inference --small            # to try it, in seconds

All sides of a comparison take turns in one process. Times are medians, and ratios medians of the ratios turn by turn to
the dense product: above 1 is faster. Weights are random, at the density that the table names.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import functools
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.machine import machine, versions
from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.inference import compress
from lightning_sparse_rnn.inference.build import kernel
from lightning_sparse_rnn.inference.compression import REPLACED, held_bytes
from lightning_sparse_rnn.inference.packing import Packed, pack
from lightning_sparse_rnn.models import GRU, LSTM, Network, RecurrentHighwayNetwork

Module = TypeVar("Module", bound=nn.Module)
Sides = Mapping[str, Callable[[], Any]]
VALUES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
DENSE, SAME = "dense float32", "dense, same code"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--repeats", type=int, default=31, help="turns of each comparison (default: 31)")
    parser.add_argument("--only", choices=tuple(TABLES), help="one of the tables")
    parser.add_argument("--small", action="store_true", help="weights of toy size")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")  # torch's own of quantisation and CSR matrices
    built = kernel()
    if built is None:
        raise SystemExit("python -m benchmarks.inference: there is no kernel for packed weights here.")
    about = machine(torch.device("cpu"), given.threads)
    of = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"{about['processor']}, {given.threads} thread(s), kernel {built.path}, {datetime.date.today()}, {of}\n")
    torch.manual_seed(0)
    with torch.inference_mode():
        for name, table in TABLES.items():
            if given.only in (None, name):
                table(given)


def take_turns(sides: Sides, repeats: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each side, turn by turn: the processor's with one thread, which others disturb least."""
    now = time.process_time if threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 2):
        for name, run in sides.items():
            start = now()
            run()
            if turn > 1:
                times[name].append(now() - start)
    return times


def ratio(times: Mapping[str, list[float]], name: str, to: str = DENSE) -> float:
    """How many times faster than the dense side, the median turn by turn."""
    return statistics.median(a / b for a, b in zip(times[to], times[name], strict=True))


# Single products


def _products(given: argparse.Namespace) -> None:
    shapes = [(64, 48)] if given.small else [(6000, 1500), (2600, 650), (600, 200)]
    densities, batches = ((0.33,), (1, 4)) if given.small else ((0.33, 0.1, 0.05), (1, 4, 20, 64))
    bandwidth, rate = _bandwidth(given), _expansions_per_second(given)
    print(f"Floors from {bandwidth / 1e9:.1f} GB/s read and {rate / 1e9:.2f} G expansions of 16 weights per second.\n")
    columns = ["packed float32", "packed bfloat16", "packed int8", "torch CSR", "dynamic int8", "torch.compile"]
    print("| weight | density | batch | dense | " + " | ".join(columns) + " | floor, packed float32 |")
    print("|---" * (5 + len(columns)) + "|")
    for rows, size in shapes:
        for density in densities:
            weight, bias = torch.randn(rows, size) * (torch.rand(rows, size) < density), torch.randn(rows)
            with torch.inference_mode(False):
                packed = {name: pack(weight.clone(), dtype) for name, dtype in VALUES.items()}
            others = _others(weight, bias)
            for batch in batches:
                x = torch.randn(batch, size)
                times = take_turns(_product_sides(x, weight, bias, packed, others), given.repeats, given.threads)
                floor = max(packed["float32"].nbytes / bandwidth, math.ceil(rows / 16) * size / rate)
                cells = [f"{rows}×{size}", f"{density}", f"{batch}", _time(statistics.median(times[DENSE]))]
                cells += [f"{ratio(times, name):.2f}" for name in columns]
                print("| " + " | ".join([*cells, _time(floor)]) + " |", flush=True)
    print()


def _others(weight: Tensor, bias: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    with torch.inference_mode(False), torch.no_grad():
        layer = nn.Linear(weight.size(1), weight.size(0))
        layer.weight.copy_(weight.clone())
        layer.bias.copy_(bias.clone())
    torch.compiler.reset()  # else it gives up compiling after a few shapes
    csr, column = weight.to_sparse_csr(), bias.unsqueeze(1)
    return {
        "torch CSR": lambda x: torch.addmm(column, csr, x.t()),
        "dynamic int8": torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8),
        "torch.compile": torch.compile(copy.deepcopy(layer), dynamic=False),
    }


def _product_sides(
    x: Tensor, weight: Tensor, bias: Tensor, packed: Mapping[str, Packed], others: Mapping[str, Any]
) -> dict[str, Callable[[], Any]]:
    return {
        DENSE: lambda: F.linear(x, weight, bias),
        **{f"packed {name}": lambda each=each: each.linear(x, bias) for name, each in packed.items()},
        **{name: lambda run=run: run(x) for name, run in others.items()},
    }


def _bandwidth(given: argparse.Namespace) -> float:
    """Bytes per second that a sum over a large tensor reads."""
    large = torch.ones(2**20 if given.small else 2**26)
    return large.nbytes / min(take_turns({"sum": large.sum}, 5, given.threads)["sum"])


def _expansions_per_second(given: argparse.Namespace) -> float:
    """By the kernel, of a weight that stays in the processor's cache."""
    rows, size = 16 * 32 * given.threads, 768
    with torch.inference_mode(False):
        packed = pack(torch.randn(rows, size) * (torch.rand(rows, size) < 0.33))
    x = torch.randn(1, size)
    times = take_turns({"one": lambda: packed.linear(x)}, 101, given.threads)["one"]
    return rows // 16 * size / min(times)


# Many vectors, and many steps


def _many(given: argparse.Namespace) -> None:
    """Products with so many vectors that what is saved on reading weights no longer counts."""
    shapes, batches = ([(64, 48)], (70,)) if given.small else ([(6000, 1500), (2600, 650)], (128, 256, 700, 1500))
    print("| weight, density 0.33 | " + " | ".join(f"{batch} vectors" for batch in batches) + " |")
    print("|---" * (1 + len(batches)) + "|")
    for rows, size in shapes:
        weight, bias = torch.randn(rows, size) * (torch.rand(rows, size) < 0.33), torch.randn(rows)
        with torch.inference_mode(False):
            packed = {name: pack(weight.clone(), dtype) for name, dtype in VALUES.items()}
        turns = {}
        for batch in batches:
            sides = _product_sides(torch.randn(batch, size), weight, bias, packed, {})
            turns[batch] = take_turns(sides, given.repeats // 2, given.threads)
        for name in VALUES:
            cells = [f"{ratio(turns[batch], f'packed {name}'):.2f}" for batch in batches]
            print("| " + " | ".join([f"{rows}×{size}, {name}", *cells]) + " |", flush=True)
    print()


def _sequences(given: argparse.Namespace) -> None:
    """Torch's layers over whole sequences, beside the packed ones."""
    sizes = [16] if given.small else [256, 300, 400, 650, 1500]
    kinds = [*((nn.LSTM, size) for size in sizes), *((kind, 650) for kind in (nn.GRU, nn.RNN) if not given.small)]
    many = [(35, columns) for columns in (1, 4, 20, 28, 40, 64, 200)]
    shapes = [(3, 2)] if given.small else [(1, 1), (1, 20), *many]
    print("| layer, density 0.33 | " + " | ".join(f"{steps} × {columns}" for steps, columns in shapes) + " |")
    print("|---" * (1 + len(shapes)) + "|")
    for kind, size in kinds:
        with torch.inference_mode(False), torch.no_grad():
            layer = sparse(kind(size, size), 0.33)
            packed = compress(layer, smallest=1 if given.small else None)
        cells = []
        for steps, columns in shapes:
            x = torch.randn(steps, columns, size)
            sides = {DENSE: functools.partial(layer, x), "packed": functools.partial(packed, x)}
            cells.append(f"{ratio(take_turns(sides, given.repeats // 2, given.threads), 'packed'):.2f}")
        print("| " + " | ".join([f"{kind.__name__} {size}", *cells]) + " |", flush=True)
    print()


# Whole networks, one token at a time


def _networks(given: argparse.Namespace) -> None:
    made: dict[str, Callable[[], Network]] = {
        "stacked LSTM 2×1500": lambda: LSTM(10_000, 1500, 1500, 2),
        "GRU 2×650": lambda: GRU(10_000, 650, 650, 2),
        "RHN 830, depth 10": lambda: RecurrentHighwayNetwork(10_000),
    }
    if given.small:
        made = {"LSTM 2×64": lambda: LSTM(300, 64, 64, 2)}
    columns = [SAME, *(f"packed {name}" for name in VALUES), "dynamic int8"]
    print("| network | density | batch | dense, tokens/s | " + " | ".join(columns) + " |")
    print("|---" * (4 + len(columns)) + "|")
    sizes: list[list[str]] = []
    smallest = 1 if given.small else None
    for what, make in made.items():
        for density in (0.33, 0.1):
            with torch.inference_mode(False), torch.no_grad():
                network = sparse(make(), density)
                sides = {
                    DENSE: network,
                    SAME: _same_code(network),
                    **{f"packed {name}": compress(network, dtype, smallest) for name, dtype in VALUES.items()},
                }
                layers = {nn.Linear, nn.LSTM, nn.GRU}
                sides["dynamic int8"] = torch.ao.quantization.quantize_dynamic(_plain(network), layers)
            held = _shares(network, sides)
            for batch in (1, 4, 20):
                runs = {name: _generator(side, batch) for name, side in sides.items()}
                times = take_turns(runs, given.repeats if batch == 1 else given.repeats // 2, given.threads)
                dense = statistics.median(times[DENSE])
                cells = [
                    what,
                    f"{density}",
                    f"{batch}",
                    f"{batch / dense:.0f}",
                    *(f"{ratio(times, n):.2f}" for n in columns),
                ]
                print("| " + " | ".join(cells) + " |", flush=True)
            # Twenty vectors may have made CSR matrices, which are kept.
            after = _shares(network, sides)
            shares = [f"{a:.3f}" if a == b else f"{a:.3f}, then {b:.3f}" for a, b in zip(held, after, strict=True)]
            sizes.append([what, f"{density}", f"{held_bytes(network) / 1e6:.1f} MB", *shares])
    print("\n| network | density | dense, held | " + " | ".join(columns[1:-1]) + " |")
    print("|---" * (3 + len(VALUES)) + "|")
    for row in sizes:
        print("| " + " | ".join(row) + " |")


def _shares(network: Network, sides: Mapping[str, nn.Module]) -> list[float]:
    """Bytes that the packed sides hold, over those of the dense network."""
    return [held_bytes(sides[f"packed {name}"]) / held_bytes(network) for name in VALUES]


def sparse(network: Module, density: float) -> Module:
    """Make a share of every matrix zero."""
    for parameter in network.parameters():
        if parameter.dim() == 2:
            parameter.mul_(torch.rand_like(parameter) < density)
    return network.eval()


def _same_code(network: Network) -> nn.Module:
    """The network with the layers that packed weights have, and no weight packed."""
    layers = [layer for layer in network.modules() if type(layer) in REPLACED and not isinstance(layer, nn.Embedding)]
    return copy.deepcopy(network, {id(layer): REPLACED[type(layer)](layer, {}) for layer in layers})


def _plain(network: Network) -> Network:
    """A copy whose products are torch's own layers, which are the ones that its quantisation knows."""
    result = copy.deepcopy(network)
    decoder = nn.Linear(result.decoder.in_features, result.decoder.out_features)
    decoder.weight, decoder.bias = result.decoder.weight, result.decoder.bias
    result.decoder = decoder
    return result


def _generator(network: nn.Module, batch: int) -> Callable[[], None]:
    """One token after another: each call reads one and computes the distribution over the next, the state carried."""
    tokens, carried = torch.randint(network.vocab_size, (1, batch)), []

    def run() -> None:
        output = network(tokens, carried.pop() if carried else None)
        network.log_probs(output.hidden)
        carried.append(output.state)

    return run


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


TABLES = {"products": _products, "many": _many, "sequences": _sequences, "networks": _networks}

if __name__ == "__main__":
    with interruptible():
        main(sys.argv[1:])
