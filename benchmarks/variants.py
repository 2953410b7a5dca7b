"""What lowers perplexity at the same number of live weights, tried on validation text at a size for a CPU.

    python -m benchmarks.variants --root FOLDER                        # all of them, one seed: hours
    python -m benchmarks.variants --root FOLDER base scaled --seeds 1 2 3 --processes 2
    python -m benchmarks.variants --table                              # of the runs there are, and of those recorded
    python -m benchmarks.variants --root FOLDER --output runs/longer dense static rate05 \\
        --set trainer.max_epochs=40 'callbacks.averaging.restart_at=[0.7]'      # for longer

The text is the first 10,000 lines of the Penn Treebank with its 2,000 most frequent words, all others `<unk>`; the
network a 2×300 LSTM. Embedding, recurrent matrices and decoder have the proportions that they have in the paper's
66 M weights, which a small network with all of the words has not: there the embedding outweighs the rest. 67 % sparse,
16 epochs, averaging after 11 in all runs. Each variant is compared with another one of the same seed, the one that
it changes one thing of.

Each run is one of `sparse-rnn-train`: runs that are finished are not made again, one that fails does not end the
others, and several commands share the work. What a run reached is recorded in `benchmarks/results/variants.json`, from
which `--table` makes the tables without the runs' folders. What `--set` says stands in the records: give it a folder of
its own, and say it again with `--table`. What is only tried is recorded elsewhere by `--json`.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path

from benchmarks.side_by_side import make_runs
from benchmarks.variant_results import Variant, check_lengths, merged, read_records, recorded, table, write_records
from benchmarks.variant_runs import check_known, runs_of
from lightning_sparse_rnn.commands.plain_errors import interruptible
from lightning_sparse_rnn.runs.folder import RESULTS
from lightning_sparse_rnn.runs.jobs import RunInterrupted
from lightning_sparse_rnn.utilities.whole_files import write_text

RECORDS = Path(__file__).parent / "results" / "variants.json"
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
DENSE = ("method=dense",)
ELSEWHERE = "method.growth=random_elsewhere"
AVERAGES = f"method._target_={RULES}.PrunesByAverages"
TWO_EPOCHS = "method.update_every_n_epochs=2"
SCALED = "initial_scale=density"
# The widest network that has no more live weights with one matrix for embedding and decoder.
TIED = ("model.network.tied=true", "model.network.embedding_size=348", "model.network.hidden_size=348")
THREE = (SCALED, "prune_rate=0.5", "model.network.dropout=0.4")
# What DSR's run of this network ends with, but for the input matrix of the second layer (0.395), which has the rest.
DSR_SHARES = "method.allocation={*decoder*: 0.482, *embedding*: 0.385, *hh_l0: 0.155, *hh_l1: 0.211, *ih_l0: 0.216}"
DENSER_DECODER = "method.allocation={*decoder*: 0.48}"
FOUR = (SCALED, "prune_rate=0.5", "model.network.dropout=0.3", "optimizer.lr=20")
VARIANTS = {
    "base": Variant("the paper's choices"),
    "dense": Variant("dense: three times the weights", DENSE),
    "dense_dropout03": Variant("dense with dropout 0.3", (*DENSE, "model.network.dropout=0.3"), "dense"),
    "dense_dropout04": Variant("dense with dropout 0.4", (*DENSE, "model.network.dropout=0.4"), "dense"),
    "dense_dropout04_tied": Variant(
        "dense with dropout 0.4, one matrix for embedding and decoder, 348 units",
        (*DENSE, "model.network.dropout=0.4", *TIED),
        "dense_dropout04",
    ),
    "dense_lr20": Variant("dense with learning rate 20 instead of 30", (*DENSE, "optimizer.lr=20"), "dense"),
    "dense_lr40": Variant("dense with learning rate 40", (*DENSE, "optimizer.lr=40"), "dense"),
    "dense_dropout04_lr20": Variant(
        "dense with dropout 0.4 and learning rate 20",
        (*DENSE, "model.network.dropout=0.4", "optimizer.lr=20"),
        "dense_dropout04",
    ),
    "dense_dropout04_lr10": Variant(
        "dense with dropout 0.4 and learning rate 10",
        (*DENSE, "model.network.dropout=0.4", "optimizer.lr=10"),
        "dense_dropout04_lr20",
    ),
    "dense_dropout03_lr20": Variant(
        "dense with dropout 0.3 and learning rate 20",
        (*DENSE, "model.network.dropout=0.3", "optimizer.lr=20"),
        "dense_dropout04_lr20",
    ),
    "dense_dropout04_lr20_tied": Variant(
        "dense with dropout 0.4 and learning rate 20, one matrix for embedding and decoder, 348 units",
        (*DENSE, "model.network.dropout=0.4", "optimizer.lr=20", *TIED),
        "dense_dropout04_lr20",
    ),
    "small_dense": Variant("a dense network of as few weights", ("method=small_dense",)),
    "static": Variant("the topology never changes", ("method=static",)),
    "static_dropout03": Variant("the same with dropout 0.3", ("method=static", "model.network.dropout=0.3"), "static"),
    "elsewhere": Variant("what was just pruned does not regrow at once", (ELSEWHERE,)),
    "oldvalue": Variant("what regrows at once keeps its value", (f"method._target_={RULES}.KeepsOldValues",)),
    "byaverages": Variant("pruned by averaged weights", (AVERAGES,)),
    "gradient": Variant("regrown by gradient", ("method.growth=gradient",)),
    "model": Variant("redistribution over the whole model", ("method.redistribution=model",)),
    "rate05": Variant("initial rate 0.5 instead of 0.8", ("prune_rate=0.5",)),
    "rate03": Variant("initial rate 0.3", ("prune_rate=0.3",)),
    "rate05else": Variant(
        "initial rate 0.5, and what was just pruned does not regrow at once", ("prune_rate=0.5", ELSEWHERE), "rate05"
    ),
    "lstmfirst": Variant(
        "recurrent matrices denser than embedding and decoder", (f"method.allocation={RULES}.lstm_first",)
    ),
    "rarerows": Variant(
        "rows of frequent words begin and regrow denser", (f"method._target_={RULES}.FavoursFrequentWords",)
    ),
    "liveclip": Variant("clipping over live gradients", (f"method._target_={RULES}.ClipsLiveGradients",)),
    "halfepoch": Variant(
        "an update twice an epoch", ("method.update_every_n_epochs=null", "method.update_every_n_steps=159")
    ),
    "twoepochs": Variant("an update every second epoch", (TWO_EPOCHS,)),
    "dropout04": Variant("dropout 0.4 instead of 0.5", ("model.network.dropout=0.4",)),
    "rate05dropout04": Variant(
        "initial rate 0.5 and dropout 0.4", ("prune_rate=0.5", "model.network.dropout=0.4"), "rate05"
    ),
    "rate05dropout03": Variant(
        "initial rate 0.5 and dropout 0.3", ("prune_rate=0.5", "model.network.dropout=0.3"), "rate05"
    ),
    "gradient05dropout03": Variant(
        "the same, regrown by gradient",
        ("prune_rate=0.5", "model.network.dropout=0.3", "method.growth=gradient"),
        "rate05dropout03",
    ),
    "scaled": Variant("a start scaled by 1/√density", (SCALED,)),
    "scaled_static": Variant("scaled, and the topology never changes", (SCALED, "method=static"), "scaled"),
    "scaled_gradient": Variant("scaled, regrown by gradient", (SCALED, "method.growth=gradient"), "scaled"),
    "scaled_tied": Variant(
        "scaled, one matrix for embedding and decoder, 348 units instead of 300: 1.29 times the multiplications per "
        "token, 1.16 times the state",
        (SCALED, *TIED),
        "scaled",
    ),
    "scaled_embedding015": Variant(
        "scaled, density 0.15 in the embedding, 0.3 in the decoder, 0.42 in the recurrent matrices: 1.16 times the "
        "multiplications per token",
        (SCALED, "method.allocation={*embedding*: 0.15, *decoder*: 0.3}"),
        "scaled",
    ),
    "scaled_both015": Variant(
        "scaled, density 0.15 in embedding and decoder, 0.48 in the recurrent matrices: 1.16 times the multiplications "
        "per token",
        (SCALED, "method.allocation={*embedding*: 0.15, *decoder*: 0.15}"),
        "scaled",
    ),
    "scaled_parts": Variant(
        "scaled, the text in 20 parts, in another order in every epoch", (SCALED, "data.shuffle_parts=20"), "scaled"
    ),
    "scaled_twoepochs": Variant("scaled, an update every second epoch", (SCALED, TWO_EPOCHS), "scaled"),
    "scaled_elsewhere": Variant("scaled, what was just pruned does not regrow at once", (SCALED, ELSEWHERE), "scaled"),
    "scaled_byaverages": Variant("scaled, pruned by averaged weights", (SCALED, AVERAGES), "scaled"),
    "scaled_lr20": Variant("scaled, learning rate 20 instead of 30", (SCALED, "optimizer.lr=20"), "scaled"),
    "scaled_lr40": Variant("scaled, learning rate 40", (SCALED, "optimizer.lr=40"), "scaled"),
    "scaled_dropout04": Variant("scaled, dropout 0.4", (SCALED, "model.network.dropout=0.4"), "scaled"),
    "scaled_dropout03": Variant("scaled, dropout 0.3", (SCALED, "model.network.dropout=0.3"), "scaled"),
    "scaled_rate05": Variant("scaled, initial rate 0.5", (SCALED, "prune_rate=0.5"), "scaled"),
    "scaled_rate05_dropout04": Variant("scaled, initial rate 0.5, dropout 0.4", THREE, "scaled"),
    "scaled_rate05_dropout03_lr20": Variant(
        "scaled, initial rate 0.5, dropout 0.3, learning rate 20",
        FOUR,
        "scaled_rate05_dropout04",
    ),
    "scaled_rate05_dropout03_lr10": Variant(
        "the same with learning rate 10", (*FOUR[:-1], "optimizer.lr=10"), "scaled_rate05_dropout03_lr20"
    ),
    "scaled_rate05_lr20": Variant(
        "the same with dropout 0.5 and learning rate 20",
        (SCALED, "prune_rate=0.5", "optimizer.lr=20"),
        "scaled_rate05_dropout03_lr20",
    ),
    "scaled_rate05_dropout04_lr20": Variant(
        "the same with dropout 0.4 and learning rate 20", (*THREE, "optimizer.lr=20"), "scaled_rate05_dropout03_lr20"
    ),
    "scaled_rate05_dropout03_lr20_tied": Variant(
        "the same with dropout 0.3, one matrix for embedding and decoder, 348 units",
        (*FOUR, *TIED),
        "scaled_rate05_dropout03_lr20",
    ),
    "scaled_rate05_dropout03_lr20_model": Variant(
        "the same with 300 units, redistribution over the whole model",
        (*FOUR, "method.redistribution=model"),
        "scaled_rate05_dropout03_lr20",
    ),
    "scaled_rate05_dropout03_lr20_dsr_shares": Variant(
        "the same with the densities that DSR ends with, from the start",
        (*FOUR, DSR_SHARES),
        "scaled_rate05_dropout03_lr20",
    ),
    "scaled_rate05_dropout03_lr20_decoder": Variant(
        "the same with density 0.48 in the decoder", (*FOUR, DENSER_DECODER), "scaled_rate05_dropout03_lr20"
    ),
    **{
        f"scaled_rate05_dropout03_lr20_{method}": Variant(
            f"the same with 300 units and method={method}", (*FOUR, f"method={method}"), "scaled_rate05_dropout03_lr20"
        )
        for method in ("dsr", "rigl", "set", "static")
    },
    "scaled_rate05_dropout04_tied": Variant(
        "the same, one matrix for embedding and decoder, 348 units", (*THREE, *TIED), "scaled_rate05_dropout04"
    ),
    "scaled_rate05_dropout04_twoepochs": Variant(
        "the same with two matrices, an update every second epoch", (*THREE, TWO_EPOCHS), "scaled_rate05_dropout04"
    ),
    "scaled_rate05_dropout04_tied_twoepochs": Variant(
        "one matrix, 348 units, and an update every second epoch",
        (*THREE, *TIED, TWO_EPOCHS),
        "scaled_rate05_dropout04_tied",
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="these seeds of each, not so many (1)")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time (1); several share the cores")
    parser.add_argument("--table", action="store_true", help="make no runs, print those there are")
    parser.add_argument("--json", type=Path, default=RECORDS, help="where what runs reached is recorded")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides, of all runs")
    given = parser.parse_args(arguments)
    check_known(parser, given.variants, VARIANTS)
    if given.processes < 1:
        parser.error(f"Expected --processes of at least 1, got {given.processes}.")

    def record(*folders: Path) -> None:
        if not folders:
            return
        new = [recorded(folder, given.set, PLATEAU) for folder in folders]
        records = merged(read_records(given.json), new)
        try:
            check_lengths(records)
        except ValueError as error:
            parser.error(str(error))
        write_records(given.json, records)

    failed: list[Path] = []
    if not given.table:
        if given.root is None:
            parser.error("Expected --root FOLDER with the Penn Treebank, or --table.")
        text = given.output / "text"
        write_frequent_words(given.root, text)
        always = (*SETTING, f"data.root={text.resolve()}")
        runs = runs_of(given, VARIANTS, always)
        try:
            failed = make_runs(runs, given.processes, record)
        except KeyboardInterrupt:
            raise RunInterrupted(
                "Interrupted. The same command goes on from the last epoch that each run has finished."
            ) from None
    # Those that other commands have made, too.
    folders = [path.parent for path in given.output.glob(f"*/{RESULTS}")]
    record(*(folder for folder in folders if folder.name.rpartition(".")[0] in VARIANTS))
    records = read_records(given.json)
    if given.table and not records:
        raise SystemExit(
            f"Expected runs recorded in {given.json} or finished ones in {given.output}, got none. Say where with "
            "--json or --output, or make them, without --table."
        )
    print(table(VARIANTS, records))
    if failed:
        raise SystemExit("These runs have failed; the same command tries them again: " + ", ".join(map(str, failed)))


def write_frequent_words(root: Path, to: Path) -> None:
    """Write the corpus with rare words as `<unk>`; words are counted in all of its training text."""
    to.mkdir(parents=True, exist_ok=True)
    texts = {part: (root / f"ptb.{part}.txt").read_text(encoding="utf-8").splitlines() for part in PARTS}
    counts = collections.Counter(word for line in texts["train"] for word in line.split())
    kept = {word for word, _ in counts.most_common(WORDS - 2)}  # and <unk> and <eos>
    texts["train"] = texts["train"][:LINES]
    for part, lines in texts.items():
        rewritten = (" ".join(word if word in kept else "<unk>" for word in line.split()) for line in lines)
        write_text(to / f"{part}.txt", "\n".join(rewritten) + "\n")


if __name__ == "__main__":
    with interruptible():
        main()
