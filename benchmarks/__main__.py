"""What sparse training costs, side by side, and beside the least that the hardware allows.

    python -m benchmarks --json benchmarks/results/cpu.json     # about seven minutes on one CPU core
    python -m benchmarks --small                                # to try it, in seconds
    python -m benchmarks --only topology_update training_step
    python -m benchmarks --render                               # the tables of docs/benchmarks.md from results/*.json

Measures on a GPU if there is one, else on the CPU (`--device cpu` in any case), at the size of the paper's stacked LSTM
on the Penn Treebank. All sides of a comparison take turns in one process; figures are medians, and ratios are medians
of the ratios turn by turn.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.floors import measure_floors
from benchmarks.machine import machine, versions
from benchmarks.rendering import lines, render_into
from benchmarks.setting import RECIPE, SMALL, Setting
from lightning_sparse_rnn.commands.plain_errors import interruptible

BENCHMARKS = (
    "training_step",
    "optimizer_step",
    "topology_update",
    "averages",
    "checkpoint",
    "evaluation",
    "loading",
)
RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME", help="some of them"
    )
    parser.add_argument("--small", action="store_true", help="a network of toy size")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU, if there is one")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each figure (default: 5)")
    parser.add_argument("--json", type=Path, help="write figures, machine and versions there")
    parser.add_argument("--render", action="store_true", help="measure nothing; write the tables into the document")
    given = parser.parse_args(arguments)
    if given.render:
        render_into(DOCUMENT, sorted(RESULTS.glob("*.json")))
        return
    command = "python -m benchmarks " + " ".join(sys.argv[1:] if arguments is None else arguments)
    result = measure(given, command.strip())
    print("\n".join(lines(result)))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(given: argparse.Namespace, command: str) -> dict[str, Any]:
    """Measure what was asked for, and return what goes into the JSON."""
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("python -m benchmarks: torch sees no GPU here. Leave --device out, or give --device cpu.")
    if device.type == "cpu" and not torch.cuda.is_available():
        print("There is no GPU here: figures are of the CPU.", file=sys.stderr)
    torch.set_num_threads(given.threads)
    if device.type == "cuda":
        # cuDNN's recurrent layers round to TF32 by themselves; so do all other products, and the floor's.
        torch.set_float32_matmul_precision("high")
    setting = Setting(SMALL if given.small else RECIPE, device, given.repeats, 1 if device.type == "cpu" else 20)
    floors = measure_floors(setting)
    figures = []
    for name in given.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        figures += importlib.import_module(f"benchmarks.{name}").measure(setting, floors)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "machine": machine(device, given.threads),
        "versions": versions(),
        "size": {**asdict(setting.size), "weights": setting.size.weights},
        "repeats": setting.repeats,
        "floors": asdict(floors),
        "figures": [asdict(figure) for figure in figures],
    }


if __name__ == "__main__":
    with interruptible():
        main()
