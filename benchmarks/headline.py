"""The paper's stacked LSTM on the Penn Treebank, whole: 100 epochs, for which a GPU is wanted.

    python -m benchmarks.headline data.root=FOLDER                       # folder of ptb.train.txt, …
    python -m benchmarks.headline data.root=FOLDER seed=2                # another seed
    python -m benchmarks.headline data.root=FOLDER method=dense          # dense, with the same settings
    python -m benchmarks.headline data.root=FOLDER output=/tmp/runs \
        model.network.embedding_size=64 model.network.hidden_size=64 trainer.max_epochs=2 data.train_lines=500

The same as `sparse-rnn-train experiment=ptb_stacked_lstm compact_checkpoints=true`, with any overrides after it. At the
end it prints the perplexities beside the paper's, and what the run took: seconds, seconds an epoch and tokens a second,
as `metrics.csv` has them. Given again after an interruption it goes on, on another machine too if the run's folder,
whose files have at most 100 MB, was brought there; given again after the end it only prints.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from benchmarks.epoch_seconds import epoch_seconds, usual
from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.naming import run_name

RECIPE = ("experiment=ptb_stacked_lstm", "compact_checkpoints=true")
PAPER = {"val_ppl": 73.79, "test_ppl": 71.65}


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(argument in ("-h", "--help") for argument in given):
        print(__doc__)
        return
    overrides = [*RECIPE, *given]
    if not torch.cuda.is_available():
        print("There is no GPU here: the run is made on the CPU, where the whole recipe takes weeks.", flush=True)
    run = subprocess.Popen([sys.executable, "-m", "lightning_sparse_rnn.commands.train", *overrides])
    try:
        code = run.wait()
    finally:  # after Ctrl-C, too, which the run has met as well
        run.wait()
    if code:
        raise SystemExit(code)  # it has said why
    print(summary(folder_of(overrides)))


def folder_of(overrides: Sequence[str]) -> Path:
    """The folder in which `sparse-rnn-train` has made the run."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", list(overrides))
    assert isinstance(config, DictConfig)
    return Path(config.output) / run_name(overrides, config.output, config.name)


def summary(folder: Path) -> str:
    """What a finished run reached, and what it took."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    config = OmegaConf.load(folder / "config.yaml")
    epoch = usual(epoch_seconds(folder))
    steps = int(rows[-1]["step"]) / len(rows)
    tokens = steps * config.data.batch_size * config.data.bptt
    ours = ", ".join(f"{name} {results[name]:.2f} (paper: {value})" for name, value in PAPER.items())
    return (
        f"{ours}\n{results['live_weights']:,} of {results['total_weights']:,} weights, {len(rows)} epochs in "
        f"{results['seconds']:.0f} s; an epoch, validation included: {epoch:.2f} s, "
        f"{steps / epoch:.1f} steps a second, about {tokens / epoch:,.0f} tokens a second\n{folder}"
    )


if __name__ == "__main__":
    with interruptible():
        main()
