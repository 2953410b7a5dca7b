"""``sparse-rnn-test``: the test perplexity of a run, of one of its checkpoints, or of an exported file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lightning_sparse_rnn.commands.own_modules import import_from_here
from lightning_sparse_rnn.commands.plain_errors import interruptible, told_plainly
from lightning_sparse_rnn.runs.folder import BEST

__all__ = ["main"]


@interruptible()
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the test loss and perplexity of a run's best checkpoint, or of another file, as JSON."""
    parser = argparse.ArgumentParser(prog="sparse-rnn-test", description=main.__doc__)
    parser.add_argument(
        "run", type=Path, help="folder of a run of sparse-rnn-train, a checkpoint, or a file of sparse-rnn-export"
    )
    parser.add_argument("--checkpoint", type=Path, help="of the run, this checkpoint in the place of its best.ckpt")
    parser.add_argument("--text", type=Path, help="a file to test on, in the place of the run's own test text")
    parser.add_argument("--trust", action="store_true", help="make whatever the run names; it may then run any code")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="values of its config to change, as in data.test_batch_size=1"
    )
    given = parser.parse_intermixed_args(arguments)
    with told_plainly("sparse-rnn-test"):
        if given.trust:
            import_from_here()
        # Here, since it takes seconds, for which the help should not wait.
        from lightning_sparse_rnn.runs.quiet import quiet
        from lightning_sparse_rnn.runs.tested_config import check_read, config_of
        from lightning_sparse_rnn.runs.testing import test, test_file

        quiet()
        for override in given.overrides:
            check_read(override, given.run.is_file(), given.text is not None)
        if given.run.is_file():
            if given.checkpoint is not None:
                raise ValueError(f"Expected a run's folder with --checkpoint, got the file {given.run}.")
            metrics = test_file(given.run, given.overrides, text=given.text, trusted=given.trust)
        else:
            config = config_of(given.run, given.overrides, given.trust)
            metrics = test(config, given.checkpoint or given.run / BEST, text=given.text, trusted=given.trust)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
