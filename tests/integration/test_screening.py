"""`benchmarks.screening`: which runs are made, with what, when there is no time for another, and their table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from lightning_sparse_rnn.runs.config import CONFIG_DIR, model_config
from lightning_sparse_rnn.runs.training import train
from lightning_sparse_rnn.sparsity import sparsifiable_parameters
from lightning_sparse_rnn.sparsity.rules.allocation import find_allocation


@pytest.fixture
def screening(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks import screening

    return screening


def finish(folder: Path, **results: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))


def test_no_variant_has_more_live_weights_than_the_paper(screening: Any) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        configs = {
            name: compose("train", [*screening.SETTING, *variant.overrides])
            for name, variant in screening.VARIANTS.items()
        }
    for name, config in configs.items():
        with torch.device("meta"):
            model = instantiate(model_config(config, 10_000), vocab_size=10_000)
        shapes = {key: tuple(parameter.shape) for key, parameter in sparsifiable_parameters(model).items()}
        counts = find_allocation(config.method.allocation)(shapes, 1.0 - config.method.sparsity)
        assert 21_770_000 < sum(counts.values()) <= 21_780_000, name
        assert config.trainer.max_epochs == 40
        instantiate(config.method)


def test_runs_are_made_once_and_compared(
    screening: Any, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["data=folder", f"data.cache_dir={tmp_path}", "data.batch_size=4", "data.eval_batch_size=2"]
    small += ["model.network.embedding_size=8", "model.network.hidden_size=8", "trainer.max_epochs=3"]
    small += ["trainer.accelerator=cpu", "matmul_precision=highest"]
    monkeypatch.chdir(tmp_path)

    def run_here(overrides: list[str], seconds: None) -> bool:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = compose("train", overrides)
        train(config, Path(overrides[0].removeprefix("hydra.run.dir=")))
        return True

    monkeypatch.setattr(screening, "run", run_here)
    monkeypatch.setitem(screening.VARIANTS, "best", screening.Variant("both", (screening.BEST,)))
    command = ["base", "best", "--root", str(text), "--set", *small]
    screening.main(command)
    lines = capsys.readouterr().out.splitlines()[-2:]
    made = {
        name: json.loads((tmp_path / f"runs/screening/{name}.1/results.json").read_text()) for name in ("base", "best")
    }
    step = made["best"]["val_ppl"] - made["base"]["val_ppl"]
    for name, line, change in zip(made, lines, ("", f"{step:+.2f}"), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == f"`{name}`"
        assert cells[2] == f"{made[name]['val_ppl']:.2f}"
        assert cells[3:6] == ["`base`" if change else "", change, f"{made[name]['live_weights']:,}"]
        assert float(cells[6]) > 0
        assert made[name]["averaging_began_epoch"] == 2
    monkeypatch.setattr(screening, "run", None)  # which would fail if it were called
    screening.main(command)
    assert capsys.readouterr().out.splitlines()[-2:] == lines


def test_no_run_begins_that_would_not_end_in_time(
    screening: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, made = [0.0], []
    monkeypatch.setattr(screening.time, "monotonic", lambda: clock[0])

    def run(overrides: list[str], seconds: float) -> bool:
        clock[0] += 50.0
        made.append((overrides, seconds))
        return True

    monkeypatch.setattr(screening, "run", run)
    finish(tmp_path / "a", seconds=30.0)
    runs = {tmp_path / name: [f"x={name}"] for name in "abcd"}
    screening.make_runs(runs, screening.Budget(minutes=2.0))
    # For a third run of 50 s there are 20 s.
    assert made == [
        ([f"hydra.run.dir={tmp_path / 'b'}", "x=b"], 120.0),
        ([f"hydra.run.dir={tmp_path / 'c'}", "x=c"], 70.0),
    ]
    assert f"No time is left for {tmp_path / 'd'}" in capsys.readouterr().out


def test_a_run_that_is_late_is_broken_off(
    screening: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        assert command == [
            sys.executable,
            "-m",
            "lightning_sparse_rnn.commands.train",
            f"hydra.run.dir={tmp_path / 'a'}",
        ]
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    monkeypatch.setattr(screening.subprocess, "Popen", start)
    screening.make_runs({tmp_path / name: [] for name in "ab"}, screening.Budget(minutes=0.2 / 60))
    assert [process.returncode for process in started] == [-15]
    assert f"Time is over within {tmp_path / 'a'}" in capsys.readouterr().out


def test_a_run_that_fails_ends_all(screening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(screening.subprocess, "Popen", lambda command: popen([sys.executable, "-c", "exit(3)"]))
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        screening.run([], None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bset"], "Expected variants among base, "),
        (["base"], "Expected --root FOLDER with the Penn Treebank, or --table"),
    ],
)
def test_mistakes_are_told(screening: Any, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        screening.main(arguments)
    assert said in capsys.readouterr().err
