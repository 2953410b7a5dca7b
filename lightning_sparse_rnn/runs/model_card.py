"""The model card of a run: a README.md with the metadata that model hubs read, made from what the run left behind."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from lightning_sparse_rnn.runs.config import CONFIG_DIR
from lightning_sparse_rnn.runs.continuing import LENGTHENED
from lightning_sparse_rnn.runs.flat_config import flat
from lightning_sparse_rnn.runs.folder import CONFIG
from lightning_sparse_rnn.runs.old_configs import same_runs
from lightning_sparse_rnn.runs.quoting import written
from lightning_sparse_rnn.runs.reading import Run, read_run
from lightning_sparse_rnn.utilities.counting import counted

__all__ = ["model_card", "training_command"]

# Which config of each group a run took says how its values came about; these say nothing of the model.
_ELSEWHERE = ("chosen.", "output", "logger.", "callbacks.progress", LENGTHENED)
_RESTART = "callbacks.averaging.restart_"
# The least and the most weights, to one live weight, of a dense network of as few: its sizes are whole numbers.
_AS_FEW = (0.5, 1.05)


def model_card(
    folder: Path,
    use: str,
    *,
    command: str | None = None,
    rounded: str | None = None,
    twin: Path | None = None,
    license: str | None = None,
) -> str:
    """Return the card of the run in ``folder`` as Markdown.

    Args:
        folder: a finished run of ``sparse-rnn-train``.
        use: Python code that reads the file of its weights.
        command: a command that uses the file, where there is one.
        rounded: what the file's values are rounded to, if they are: the perplexities are not of those.
        twin: a finished run of a dense network of as few weights, to stand beside it.
        license: the licence of the weights as hubs write it, such as ``"apache-2.0"``; not named if not given.

    Raises:
        ValueError: a run is not finished, or cannot be read, or the twin is none.
    """
    run = _finished(folder)
    assert run.results is not None
    rows = [("this model", run.results)]
    if twin is not None:
        rows.append(("dense network of as few weights", _twin(_finished(twin), run)))
    table = "\n".join(
        f"| {name} | {r['live_weights']:,} of {r['total_weights']:,} | {r['val_ppl']:.2f} | {r['test_ppl']:.2f} |"
        for name, r in rows
    )
    sparsity, method = run.results["sparsity"], run.settings.get("chosen.method", "selfish")
    noted = f"\nThe file has the weights rounded to {rounded}; perplexities are of float32.\n" if rounded else ""
    use_it = f"```bash\n{command}\n```\n\n" if command else ""
    unigram = run.results.get("unigram_ppl")
    beside = "" if unigram is None else f"A unigram model of the same text has a test perplexity of {unigram:.2f}. "
    return f"""---
{_metadata(run, license)}---

# {_title(run)}, {sparsity:.1%} sparse

A recurrent language model trained by the method `{method}` of the package `lightning-sparse-rnn`, which implements
[Selfish Sparse RNN Training](https://arxiv.org/abs/2101.09048).

| | live weights | validation perplexity | test perplexity |
|---|---|---|---|
{table}

{beside}Trained for
{counted(run.results["epochs"], "epoch")} from seed {run.seed}, with {_versions(run.results)}.
{noted}
## Use

{use_it}```python
{use}
```

## Train it again

{_trained_again(run.settings)}
"""


def _trained_again(settings: Mapping[str, Any]) -> str:
    try:
        return f"```bash\n{training_command(settings)}\n```"
    except MissingConfigException as missing:  # one of the user's own, in a folder of hydra.searchpath
        return (
            f"The run was made with `{missing.missing_cfg_file}`, which is none of the package's configs. The "
            f"`{CONFIG}` in its folder has all values."
        )
    except ValueError:
        return (
            f"Some of its options cannot be said on a command line. The `{CONFIG}` in the run's folder has all values."
        )


def training_command(settings: Mapping[str, Any]) -> str:
    """Return the command that trains with these settings: the chosen groups, and what differs from their values.

    A run that was lengthened takes several, one a line.

    Raises:
        MissingConfigException: one of the groups' configs is not the package's.
        ValueError: a value cannot be said on a command line.
    """
    chosen = [f"{name[7:]}={value}" for name, value in settings.items() if name.startswith("chosen.") and value]
    known = dict(flat(_composed(chosen, resolve=False)))
    changed = {name: settings[name] for name in ("trainer.max_epochs",) if name in settings}  # shares are of these

    def overrides() -> list[str]:
        # An entry of a dict where the config has one value, as a density by pattern, is said with its dict.
        said: dict[str, Any] = {}
        for name, value in changed.items():
            ends = (i for i, mark in enumerate(name) if mark == "." and name[:i] in known)
            end = next(ends, None)
            if end is None:
                said[name] = value
            else:
                said.setdefault(name[:end], {})[name[end + 1 :]] = value
        return [f"{'' if name in known else '+'}{name}={written(value)}" for name, value in said.items()]

    # A value that is made from others is written only if it still differs once those are right.
    for resolve in (False, True):
        there = dict(flat(same_runs(_composed([*chosen, *overrides()], resolve))))
        changed |= {
            name: value
            for name, value in settings.items()
            if not name.startswith(_ELSEWHERE) and there.get(name, ...) != value and "${" not in str(there.get(name))
        }
        if f"{_RESTART}epochs" in changed:  # which come on top of shares of `max_epochs`
            changed[f"{_RESTART}at"] = settings[f"{_RESTART}at"]
    command = ["sparse-rnn-train", *chosen, *overrides()]
    if lengthened := settings.get(LENGTHENED):
        in_one_folder = [
            [*command, "name=lengthened", f"trainer.max_epochs={epochs}"]
            for epochs in (*lengthened, settings["trainer.max_epochs"])
        ]
        return "\n".join(map(shlex.join, in_one_folder))
    return shlex.join(command)


def _composed(overrides: Sequence[str], resolve: bool) -> dict[str, Any]:
    """Return the config of these overrides, without what only a running command knows."""
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config: Any = compose("train", list(overrides))
    shown = OmegaConf.masked_copy(config, [name for name in config if name not in ("chosen", "output", "logger")])
    result: Any = OmegaConf.to_container(shown, resolve=resolve)
    return dict(result)


def _title(run: Run) -> str:
    return f"{run.settings.get('chosen.model', 'language model')} on {run.corpus}"


def _finished(folder: Path) -> Run:
    run = read_run(folder)
    if run.results is None or not run.settings:
        raise ValueError(f"Expected a finished run of sparse-rnn-train, got {folder}: {'; '.join(run.problems)}.")
    return run


def _twin(twin: Run, run: Run) -> dict[str, Any]:
    """Return the results of a dense network of as few weights, trained on the same text."""
    assert twin.results is not None
    assert run.results is not None
    weights, live = twin.results["live_weights"], run.results["live_weights"]
    if twin.corpus != run.corpus:
        raise ValueError(f"Expected a twin that was trained on {run.corpus}, as the run was, got one on {twin.corpus}.")
    if twin.results["sparsity"] != 0 or not _AS_FEW[0] * live <= weights <= _AS_FEW[1] * live:
        of = twin.results["total_weights"]
        raise ValueError(
            f"Expected a twin with about {live:,} weights, all of them live, got {weights:,} of {of:,} in "
            f"{twin.folder}. method=small_dense trains one."
        )
    return dict(twin.results)


def _versions(results: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())


def _metadata(run: Run, license: str | None) -> str:
    assert run.results is not None
    results = {name: round(run.results[name], 2) for name in ("val_ppl", "test_ppl")}
    lines = [
        *([f"license: {license}"] if license else []),
        "library_name: lightning-sparse-rnn",
        "pipeline_tag: text-generation",
        "tags: [sparse-training, recurrent-neural-network, language-modeling]",
        "model-index:",
        f"  - name: {json.dumps(_title(run))}",
        "    results:",
        "      - task: {type: text-generation}",
        f"        dataset: {{name: {json.dumps(run.corpus)}, type: {json.dumps(run.corpus)}}}",
        "        metrics:",
        *(f"          - {{type: perplexity, name: {name}, value: {value}}}" for name, value in results.items()),
    ]
    return "".join(f"{line}\n" for line in lines)
