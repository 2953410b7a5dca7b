"""A sweep and its report, step by step: three methods, two seeds each, about two minutes on a CPU, nothing to download.

The same from a terminal:

    sparse-rnn-train -m method=dense,static,selfish seed=1,2 trainer.max_epochs=6 output=runs/examples/sweep \\
        model.network.embedding_size=100 model.network.hidden_size=100 optimizer=adam optimizer.lr=0.003
    sparse-rnn-report runs/examples/sweep

Six epochs show how it goes, not which method is best: weights that move need more of them to be worth it.
"""

import csv
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path("runs/examples/sweep")


def run(command: str, *arguments: str) -> None:
    """Run a command of the package; where it fails or is interrupted, end with its status: it has said why."""
    ended = subprocess.run([sys.executable, "-m", f"lightning_sparse_rnn.commands.{command}", *arguments])
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the commands, which hear it as well
    # One run for each combination. A sweep that was interrupted goes on when this is started again, and what is
    # finished is not run twice; started in two terminals at once, both work on it.
    sweep = ["method=dense,static,selfish", "seed=1,2", "trainer.max_epochs=6", f"output={FOLDER}"]
    small = [
        "model.network.embedding_size=100",
        "model.network.hidden_size=100",
        "optimizer=adam",
        "optimizer.lr=0.003",
    ]
    run("train", "-m", *sweep, *small)

    # A page to open in a browser, and its tables as CSV and Markdown. Runs that differ in seeds alone are one row.
    run("report", str(FOLDER))

    with (FOLDER / "report" / "comparison.csv").open() as file:
        for row in csv.DictReader(file):
            print(f"{row['method']:10} test perplexity {row['test']}, {row['live weights']} weights")
    print(f"Open {FOLDER / 'report' / 'report.html'} in a browser.")
