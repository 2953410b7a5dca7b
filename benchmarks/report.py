"""How long the report on many runs takes, on one core.

    OMP_NUM_THREADS=1 python benchmarks/report.py                # 100 runs of 100 epochs: 34 methods, 3 seeds
    OMP_NUM_THREADS=1 python benchmarks/report.py --seeds 1      # 100 runs that all differ
    OMP_NUM_THREADS=1 python benchmarks/report.py --runs 3 --hidden 1500   # masks of the paper's size
    OMP_NUM_THREADS=1 python benchmarks/report.py --profile      # where it goes

The runs are made up: curves, two-layer LSTMs' gates that drift, and ten kept topologies each, of 10,000 words and
200 neurons. Prints wall-clock and processor seconds of everything after the imports, and the page's size.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.report.files import write_report
from lightning_sparse_rnn.sparsity.mask_files import save_masks
from lightning_sparse_rnn.utilities.whole_files import write_csv

GATES = ("input", "forget", "cell", "output")


def shapes(words: int, hidden: int) -> dict[str, tuple[int, int]]:
    recurrent = [f"network.layers.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")]
    words_too = ("network.embedding.weight", "network.decoder.weight")
    return {**dict.fromkeys(words_too, (words, hidden)), **dict.fromkeys(recurrent, (4 * hidden, hidden))}


def make_run(folder: Path, method: str, seed: int, epochs: int, sizes: dict[str, tuple[int, int]]) -> None:
    """Leave what a run of so many epochs leaves."""
    random = np.random.default_rng([seed, *method.encode()])
    (folder / "masks").mkdir(parents=True)
    config = {"seed": seed, "sparsity": 0.67, "data": {"source": "ptb"}, "chosen": {"method": method}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    final = random.uniform(80, 200)
    values = final + 500 * np.exp(-np.arange(epochs) / 8) + random.normal(0, 2, epochs)
    rows = [
        {"epoch": epoch, "train_ppl": 0.8 * value, "val_ppl": value, "averaging": int(epoch > epochs // 2)}
        for epoch, value in enumerate(values)
    ]
    write_csv(folder / "metrics.csv", ("epoch", "train_ppl", "val_ppl", "averaging"), rows)
    topology = []
    for epoch in range(epochs):
        for tensor, (height, width) in sizes.items():
            gates = GATES if "layers" in tensor else ("all",)
            for index, gate in enumerate(gates):
                total = height * width // len(gates)
                live = int(total * (0.33 + (index - 1.5) * 0.001 * epoch * (len(gates) > 1)))
                moved = int(0.5 * live * (1 - epoch / epochs))
                row = {"update": epoch, "epoch": epoch, "tensor": tensor, "gate": gate, "total": total, "live": live}
                topology.append({**row, "pruned": moved, "regrown": moved})
    write_csv(folder / "topology.csv", tuple(topology[0]), topology)
    masks = {name: torch.from_numpy(random.random(size) < 0.33) for name, size in sizes.items()}
    for epoch in range(0, epochs, max(1, epochs // 10)):
        for name, mask in masks.items():
            anew = torch.from_numpy(random.random(mask.shape) < 0.1)
            masks[name] = torch.where(anew, torch.from_numpy(random.random(mask.shape) < 0.33), mask)
        save_masks(folder / "masks" / f"{epoch:04d}.npz", masks)
    costs = {"inference_flops": 0.33, "training_flops": 0.4, "explored": 0.7, "turnover": 0.2}
    results = {"test_ppl": final, "val_ppl": final, "sparsity": 0.67, "live_weights": 1, "accounting": costs}
    (folder / "results.json").write_text(json.dumps(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method")
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / f"run{number:03d}" for number in range(given.runs)]
        for number, folder in enumerate(folders):
            method, seed = f"method{number // given.seeds}", number % given.seeds
            make_run(folder, method, seed, given.epochs, shapes(given.words, given.hidden))
        output = Path(temporary) / "report"
        output.mkdir()
        profile = cProfile.Profile(builtins=False)
        if given.profile:
            profile.enable()
        began, began_cpu = time.perf_counter(), time.process_time()
        made = write_report(folders, output)
        taken, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        profile.disable()
        size = (output / "report.html").stat().st_size / 1e6
        print(
            f"{given.runs} runs of {given.epochs} epochs: {taken:.1f} s, {cpu:.1f} s of processor time, {size:.2f} MB"
        )
        print(*made.left_out, sep="\n")
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(30)


if __name__ == "__main__":
    with interruptible():
        main()
