"""How many runs an hour one device makes when several processes share a sweep.

    python -m benchmarks.many_seeds --json benchmarks/results/many_seeds.json -- \
        experiment=ptb_stacked_lstm data.root=FOLDER trainer.max_epochs=2
    python -m benchmarks.many_seeds --processes 1 2 --runs 4 -- trainer.max_epochs=1 +trainer.limit_train_batches=20

For each number k of processes, the same `sparse-rnn-train -m … seed=1,…,n` is started k times at once in a folder of
its own; the processes share out the runs. What counts is the wall time until the last has ended, start-up included, so
give runs that are long beside it. The numbers of processes take turns, from the smallest to the largest and back.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import machine, versions
from lightning_sparse_rnn.commands.plain_errors import interruptible


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_seeds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4], help="numbers to try (1 2 3 4)")
    parser.add_argument("--runs", type=int, default=12, help="runs of a sweep (12: what 1 to 4 divide)")
    parser.add_argument("--turns", type=int, default=1, help="measurements of each number (1)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("overrides", nargs="+", help="of sparse-rnn-train, after --")
    given = parser.parse_args(arguments)
    if min(*given.processes, given.runs, given.turns) < 1:
        parser.error("Expected numbers of at least 1.")
    if not torch.cuda.is_available():
        print("There is no GPU here: figures are of the CPU.", file=sys.stderr)

    hours: dict[int, list[float]] = {processes: [] for processes in given.processes}
    for turn in range(given.turns):
        for processes in given.processes[:: -1 if turn % 2 else 1]:
            hours[processes].append(sweep(processes, given.runs, given.overrides) / 3600)
    rates = {processes: given.runs / statistics.median(taken) for processes, taken in hours.items()}
    first = rates[given.processes[0]]
    print(f"{'processes':>9}{'runs an hour':>14}{f'to {given.processes[0]}':>8}")
    for processes, rate in rates.items():
        print(f"{processes:>9}{rate:>14.1f}{rate / first:>8.2f}")
    if given.json is not None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        result = {
            "command": "python -m benchmarks.many_seeds " + " ".join(sys.argv[1:] if arguments is None else arguments),
            "runs": given.runs,
            "turns": given.turns,
            "date": datetime.date.today().isoformat(),
            "machine": {**machine(device, torch.get_num_threads()), "cores": os.cpu_count()},
            "versions": versions(),
            "runs_an_hour": rates,
        }
        given.json.write_text(json.dumps(result, indent=1) + "\n")


def sweep(processes: int, runs: int, overrides: Sequence[str]) -> float:
    """Return the seconds that so many processes need for all runs.

    Raises:
        RuntimeError: a process failed, or a run is missing; with what it said last.
    """
    with tempfile.TemporaryDirectory() as folder:
        seeds = ",".join(str(seed + 1) for seed in range(runs))
        command = [sys.executable, "-m", "lightning_sparse_rnn.commands.train", "-m", *overrides]
        command += [f"seed={seeds}", f"output={folder}/runs"]
        begin = time.perf_counter()
        logs = [(Path(folder) / f"log-{number}").open("w+") for number in range(processes)]
        started = [subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) for log in logs]
        codes = [process.wait() for process in started]
        seconds = time.perf_counter() - begin
        ended = len(list(Path(folder).glob("runs/*/results.json")))
        said = []
        for log in logs:
            log.seek(0)
            said.append(log.read()[-2000:])
            log.close()
        if any(codes) or ended != runs:
            raise RuntimeError(f"Exit codes {codes}, {ended} of {runs} runs ended.\n" + "\n".join(said))
        return seconds


if __name__ == "__main__":
    with interruptible():
        main()
