"""What lowers perplexity at the same number of live weights, tried on validation text at a size for a CPU.

    python -m benchmarks.variants --root FOLDER                        # all of them, one seed: hours
    python -m benchmarks.variants --root FOLDER base elsewhere --seeds 1 2
    python -m benchmarks.variants --table                              # of the runs there are
    python -m benchmarks.variants --root FOLDER --output runs/longer dense static rate05 \\
        --set trainer.max_epochs=40 'callbacks.averaging.restart_at=[0.7]'      # for longer

The text is the first 10,000 lines of the Penn Treebank with its 2,000 most frequent words, all others `<unk>`; the
network a 2×300 LSTM. Embedding, recurrent matrices and decoder have the proportions that they have in the paper's
66 M weights, which a small network with all of the words has not: there the embedding outweighs the rest. 67 % sparse,
16 epochs, averaging from epoch 11 in all runs.

Each run is one of `sparse-rnn-train`: runs that are finished are not made again.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

WORDS, LINES = 2_000, 10_000
PARTS = ("train", "valid", "test")
PLATEAU = 200.0  # a unigram model is at 198
SETTING = (
    "experiment=ptb_small",
    "data=folder",
    "data.train_lines=null",
    "data.batch_size=20",
    "model.network.embedding_size=300",
    "model.network.hidden_size=300",
    "model.network.dropout=0.5",
    "optimizer.lr=30",
    "callbacks.averaging.restart_at=[0.6875]",
    "trainer.max_epochs=16",
    "prune_rate=0.8",
)
RULES = "benchmarks.variant_rules"
ELSEWHERE = "method.growth=random_elsewhere"
VARIANTS = {
    "base": ("the paper's choices", ()),
    "dense": ("dense: three times the weights", ("method=dense",)),
    "dense_dropout03": ("dense with dropout 0.3", ("method=dense", "model.network.dropout=0.3")),
    "dense_dropout04": ("dense with dropout 0.4", ("method=dense", "model.network.dropout=0.4")),
    "small_dense": ("a dense network of as few weights", ("method=small_dense",)),
    "static": ("the topology never changes", ("method=static",)),
    "static_dropout03": ("the same with dropout 0.3", ("method=static", "model.network.dropout=0.3")),
    "elsewhere": ("what was just pruned does not regrow at once", (ELSEWHERE,)),
    "oldvalue": ("what regrows at once keeps its value", (f"method._target_={RULES}.KeepsOldValues",)),
    "byaverages": ("pruned by averaged weights", (f"method._target_={RULES}.PrunesByAverages",)),
    "gradient": ("regrown by gradient", ("method.growth=gradient",)),
    "model": ("redistribution over the whole model", ("method.redistribution=model",)),
    "rate05": ("initial rate 0.5 instead of 0.8", ("prune_rate=0.5",)),
    "rate03": ("initial rate 0.3", ("prune_rate=0.3",)),
    "rate05else": ("initial rate 0.5, and what was just pruned does not regrow at once", ("prune_rate=0.5", ELSEWHERE)),
    "lstmfirst": ("recurrent matrices denser than embedding and decoder", (f"method.allocation={RULES}.lstm_first",)),
    "rarerows": ("rows of frequent words begin and regrow denser", (f"method._target_={RULES}.FavoursFrequentWords",)),
    "liveclip": ("clipping over live gradients", (f"method._target_={RULES}.ClipsLiveGradients",)),
    "halfepoch": (
        "an update twice an epoch",
        ("method.update_every_n_epochs=null", "method.update_every_n_steps=159"),
    ),
    "twoepochs": ("an update every second epoch", ("method.update_every_n_epochs=2",)),
    "dropout04": ("dropout 0.4 instead of 0.5", ("model.network.dropout=0.4",)),
    "rate05dropout04": ("initial rate 0.5 and dropout 0.4", ("prune_rate=0.5", "model.network.dropout=0.4")),
    "rate05dropout03": ("initial rate 0.5 and dropout 0.3", ("prune_rate=0.5", "model.network.dropout=0.3")),
    "gradient05dropout03": (
        "the same, regrown by gradient",
        ("prune_rate=0.5", "model.network.dropout=0.3", "method.growth=gradient"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.variants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("variants", nargs="*", metavar="variant", help=f"any of {', '.join(VARIANTS)}")
    parser.add_argument("--root", type=Path, help="folder of the Penn Treebank: ptb.train.txt, …")
    parser.add_argument("--output", type=Path, default=Path("runs/variants"), help="where runs go (runs/variants)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds of each (1)")
    parser.add_argument("--table", action="store_true", help="make no runs, print those there are")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides, to try it small")
    given = parser.parse_args(arguments)
    if unknown := set(given.variants) - set(VARIANTS):
        parser.error(f"Expected variants among {', '.join(VARIANTS)}, got {', '.join(sorted(unknown))}.")
    if not given.table:
        if given.root is None:
            parser.error("Expected --root FOLDER with the Penn Treebank, or --table.")
        text = given.output / "text"
        write_frequent_words(given.root, text)
        for seed in given.seeds:
            for name in given.variants or VARIANTS:
                run(given.output / f"{name}.{seed}", text, [*VARIANTS[name][1], f"seed={seed}", *given.set])
    print(table(given.output))


def write_frequent_words(root: Path, to: Path) -> None:
    """Write the corpus with rare words as `<unk>`; words are counted in all of its training text."""
    to.mkdir(parents=True, exist_ok=True)
    texts = {part: (root / f"ptb.{part}.txt").read_text(encoding="utf-8").splitlines() for part in PARTS}
    counts = collections.Counter(word for line in texts["train"] for word in line.split())
    kept = {word for word, _ in counts.most_common(WORDS - 2)}  # and <unk> and <eos>
    texts["train"] = texts["train"][:LINES]
    for part, lines in texts.items():
        rewritten = (" ".join(word if word in kept else "<unk>" for word in line.split()) for line in lines)
        (to / f"{part}.txt").write_text("\n".join(rewritten) + "\n", encoding="utf-8")


def run(folder: Path, text: Path, overrides: Sequence[str]) -> None:
    """Make one run in a process of its own."""
    command = [sys.executable, "-m", "lightning_sparse_rnn.commands.train", *SETTING, f"data.root={text.resolve()}"]
    subprocess.run([*command, f"hydra.run.dir={folder}", *overrides], check=True)


def table(folder: Path) -> str:
    """Validation perplexities of the finished runs, and how far each is from the paper's choices with its own seed."""
    found = {path.parent.name: json.loads(path.read_text())["val_ppl"] for path in folder.glob("*/results.json")}
    lines = [
        "| variant | validation perplexity | to the first line, seed by seed | off the plateau in epoch | runs |",
        "|---|---|---|---|---|",
    ]
    for name, (what, _) in VARIANTS.items():
        seeds = sorted(int(run.rpartition(".")[2]) for run in found if run.rpartition(".")[0] == name)
        if not seeds:
            continue
        mean = statistics.mean(found[f"{name}.{seed}"] for seed in seeds)
        steps = [found[f"{name}.{seed}"] - found[f"base.{seed}"] for seed in seeds if f"base.{seed}" in found]
        changes = "" if name == "base" else ", ".join(f"{step:+.2f}" for step in steps)
        left = ", ".join(left_plateau(folder / f"{name}.{seed}") for seed in seeds)
        lines.append(f"| {what} | {mean:.2f} | {changes} | {left} | {len(seeds)} |")
    return "\n".join(lines)


def left_plateau(run: Path) -> str:
    """The first epoch that is better in training than context-free frequencies are: plain SGD takes a while to it."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return next((row["epoch"] for row in csv.DictReader(file) if float(row["train_ppl"]) < PLATEAU), "none")


if __name__ == "__main__":
    main()
