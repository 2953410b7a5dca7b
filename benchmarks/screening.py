"""What may go below the paper's line, tried at its size on validation text: 40 epochs each, for which a GPU is wanted.

    python -m benchmarks.screening --root FOLDER                    # of ptb.train.txt, …; all variants, seed 1
    python -m benchmarks.screening --root FOLDER --minutes 12       # until then; given again it goes on
    python -m benchmarks.screening --root FOLDER base best --seeds 1 2 3
    python -m benchmarks.screening --table                          # of the runs there are

All variants have at most the paper's 21.78 M live weights, and averages after 28 epochs. Each run is one of
`sparse-rnn-train` in a folder of its own: finished runs are not made again, and one that was broken off goes on from
its last finished epoch, on another machine too if its folder, whose files have at most 100 MB, was brought there. With
`--minutes` no run begins that would not end in time, by what the longest so far took, and one that is late all the same
is broken off. `trainer.max_time` would not do: a run that ends by it counts as finished, and its prune rates follow
another schedule.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.epoch_seconds import epoch_seconds, usual
from benchmarks.side_by_side import COMMAND
from benchmarks.variant_results import Variant
from benchmarks.variant_runs import check_known, runs_of
from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.runs.folder import RESULTS

PAPER = "experiment=ptb_stacked_lstm"
BEST = "experiment=ptb_stacked_lstm_best"
SETTING = (
    "trainer.max_epochs=40",
    "callbacks.averaging.restart_at=[0.7]",
    "trainer.enable_progress_bar=false",
    "compact_checkpoints=true",
)
RATE = "prune_rate=0.5"
SCALED = "initial_scale=density"
# One matrix for embedding and decoder, and the live weights that it sets free for all.
TIED = ("model.network.tied=true", "sparsity=0.573")
PLACES = tuple(
    f"+model.network.dropout_{place}={rate}" for place, rate in {"input": 0.63, "between": 0.31, "output": 0.69}.items()
)
VARIANTS = {
    "base": Variant("the paper's choices", (PAPER,)),
    "rate05": Variant("initial rate 0.5 instead of 0.8", (PAPER, RATE)),
    "scaled": Variant("a start scaled by 1/√density", (PAPER, SCALED)),
    "dropout055": Variant("dropout 0.55 instead of 0.65", (PAPER, "model.network.dropout=0.55")),
    "places": Variant("dropout 0.63 before, 0.31 between and 0.69 after the layers", (PAPER, *PLACES)),
    "tied": Variant("one matrix for embedding and decoder", (PAPER, *TIED)),
    "embedding02": Variant(
        "density 0.2 in embedding and decoder", (PAPER, "method.allocation={*embedding*: 0.2, *decoder*: 0.2}")
    ),
    "byaverages": Variant(
        "pruned by averaged weights", (PAPER, "method._target_=benchmarks.variant_rules.PrunesByAverages")
    ),
    "parts": Variant("the text in 20 parts, in another order in every epoch", (PAPER, "data.shuffle_parts=20")),
    "tied_scaled_rate05": Variant("one matrix, a scaled start, rate 0.5", (PAPER, *TIED, SCALED, RATE)),
    "best": Variant("the same, dropouts of each place, learning rate 30", (BEST,), "tied_scaled_rate05"),
    "best_lr40": Variant("with learning rate 40", (BEST, "optimizer.lr=40"), "best"),
    "best_dropout055": Variant(
        "with dropout 0.55 at all places",
        (BEST, *(f"model.network.dropout_{place}=0.55" for place in ("input", "between", "output"))),
        "best",
    ),
    "best_recurrent": Variant(
        "with the one matrix as sparse as in the paper, the recurrent ones denser",
        (BEST, "method.allocation={*embedding*: 0.33}"),
        "best",
    ),
    "best_parts": Variant(
        "with the text in 20 parts, in another order in every epoch", (BEST, "data.shuffle_parts=20"), "best"
    ),
}
_TO_END = 120.0  # seconds that a run which is broken off has for ending by itself


class Budget:
    """Minutes for all runs together; None: no end."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._longest = 0.0

    @property
    def left(self) -> float | None:
        """Seconds that are left; None: no end."""
        return None if self._end is None else self._end - time.monotonic()

    def note(self, seconds: float) -> None:
        """Take note of what a whole run took."""
        self._longest = max(self._longest, seconds)

    def allows_another(self) -> bool:
        """Whether a run that takes as long as the longest so far would end in time."""
        return self.left is None or self.left > self._longest


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.screening",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("variants", nargs="*", metavar="variant", help=f"any of {', '.join(VARIANTS)}")
    parser.add_argument("--root", type=Path, help="folder of the Penn Treebank: ptb.train.txt, …")
    parser.add_argument("--output", type=Path, default=Path("runs/screening"), help="where runs go (runs/screening)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="these seeds of each, not so many (1)")
    parser.add_argument("--minutes", type=float, help="for all runs together")
    parser.add_argument("--table", action="store_true", help="make no runs, print those there are")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides, to try it small")
    given = parser.parse_args(arguments)
    check_known(parser, given.variants, VARIANTS)
    if not given.table:
        if given.root is None:
            parser.error("Expected --root FOLDER with the Penn Treebank, or --table.")
        if not torch.cuda.is_available():
            print("There is no GPU here: runs are made on the CPU, where each takes days.", flush=True)
        always = [*SETTING, f"data.root={given.root.resolve()}"]
        runs = runs_of(given, VARIANTS, always)
        make_runs(runs, Budget(given.minutes))
    print(table(given.output))


def make_runs(runs: Mapping[Path, Sequence[str]], budget: Budget) -> None:
    """Make the runs that are not finished, by folder the overrides of each, as far as time reaches.

    Raises:
        subprocess.CalledProcessError: a run failed; it has said why.
    """
    for folder, overrides in runs.items():
        if (folder / RESULTS).exists():
            budget.note(_results(folder)["seconds"])
            continue
        if not budget.allows_another():
            print(f"No time is left for {folder}. The same command goes on there.", flush=True)
            return
        began = time.monotonic()
        if not run([f"hydra.run.dir={folder}", *overrides], budget.left):
            print(f"Time is over within {folder}. The same command goes on there.", flush=True)
            return
        budget.note(time.monotonic() - began)


def run(overrides: Sequence[str], seconds: float | None) -> bool:
    """Make one run, or go on with it, and return whether it has ended in so many seconds; None: however many.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [*COMMAND, *overrides]
    process = subprocess.Popen(command)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        return False
    finally:  # after Ctrl-C, too, which the run has met as well
        with suppress(subprocess.TimeoutExpired):
            process.wait(_TO_END)
        process.kill()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return True


def table(folder: Path) -> str:
    """The finished runs, and how far each is from the variant that it stands beside, with its own seed."""
    found = {path.parent.name: _results(path.parent) for path in folder.glob(f"*/{RESULTS}")}
    head = ("name", "what", "validation", "beside", "difference, seed by seed", "live weights", "seconds per epoch")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, variant in VARIANTS.items():
        seeds = sorted(int(run.rpartition(".")[2]) for run in found if run.rpartition(".")[0] == name)
        if not seeds:
            continue
        own = [found[f"{name}.{seed}"] for seed in seeds]
        beside = "" if variant.beside == name else variant.beside
        steps = [
            f"{result['val_ppl'] - found[f'{beside}.{seed}']['val_ppl']:+.2f}"
            for seed, result in zip(seeds, own, strict=True)
            if f"{beside}.{seed}" in found
        ]
        mean = statistics.mean(result["val_ppl"] for result in own)
        live = ", ".join(f"{count:,}" for count in sorted({result["live_weights"] for result in own}))
        epoch = statistics.median(usual(epoch_seconds(folder / f"{name}.{seed}")) for seed in seeds)
        cells = [
            f"`{name}`",
            variant.what,
            f"{mean:.2f}",
            beside and f"`{beside}`",
            ", ".join(steps),
            live,
            f"{epoch:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / RESULTS).read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    with interruptible():
        main()
