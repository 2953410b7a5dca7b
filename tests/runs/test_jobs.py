"""Sweeps: one command each; a run that fails does not end the others, and processes share the work."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from small_runs import small_config, small_options

from lightning_sparse_rnn.commands import train as command
from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs import jobs, training
from lightning_sparse_rnn.runs.config import CONFIG_DIR, model_config
from lightning_sparse_rnn.runs.folder import remove_if_unused
from lightning_sparse_rnn.runs.jobs import Jobs, RunIsElsewhere, worked_on
from lightning_sparse_rnn.runs.training import train

SWEEPS = sorted(path.stem for path in (CONFIG_DIR / "sweep").glob("*.yaml"))
HOLD = """
import sys, pathlib
from lightning_sparse_rnn.runs.folder import remove_if_unused
from lightning_sparse_rnn.runs.jobs import worked_on
with worked_on(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@dataclass
class Ended:
    """The names of a command's runs, by how they ended."""

    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def sweep(monkeypatch: pytest.MonkeyPatch, text: Path, folder: Path, *overrides: str) -> Ended:
    """Run the command in this process, and return what has become of its runs."""
    options = [*small_options(text, text / "cache"), "trainer.max_epochs=2", f"output={folder}"]
    ended = Ended()
    summary = Jobs.summary

    def noted(self: Jobs) -> str:
        ended.finished, ended.failed, ended.elsewhere = self.finished, self.failed, self.elsewhere
        return summary(self)

    monkeypatch.setattr(Jobs, "summary", noted)
    monkeypatch.setattr("sys.argv", ["sparse-rnn-train", "-m", *options, *overrides])
    monkeypatch.setattr("sys.path", list(sys.path))
    command.main()
    assert not list(folder.glob(".jobs-*"))
    return ended


def finished(folder: Path) -> list[str]:
    """The runs that have results, by what is swept over."""
    return sorted(
        path.parent.name.split(",trainer")[0].split("hidden_size=12,")[-1] for path in folder.glob("*/results.json")
    )


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("experiment", ["ptb_small", "ptb_stacked_lstm", "ptb_on_lstm"])
def test_every_run_of_every_sweep_composes_and_makes_its_parts(name: str, experiment: str) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        params = compose("train", [f"sweep={name}"], return_hydra_config=True).hydra.sweeper.params
        choices = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
        for override in choices:
            for value in override.sweep_string_iterator():
                config = compose("train", [f"experiment={experiment}", f"{override.get_key_element()}={value}"])
                if "_target_" in config.method:
                    instantiate(config.method)
                if config.callbacks.averaging is not None:
                    instantiate(config.callbacks.averaging)
                with torch.device("meta"):
                    model = instantiate(model_config(config, 50), vocab_size=50)
                model.configure_optimizers()


def test_a_sweep_makes_all_its_runs_and_none_twice(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = sweep(monkeypatch, text, tmp_path, "sweep=redistribution", "seed=5")
    assert (len(ended.finished), ended.failed, ended.elsewhere) == (4, [], [])
    folders = [path.parent for path in tmp_path.glob("*/results.json")]
    found = {(json.loads((folder / "results.json").read_text())["seed"]) for folder in folders}
    assert len(folders) == 4
    assert found == {5}
    capsys.readouterr()
    monkeypatch.setattr(Trainer, "fit", None)
    assert sweep(monkeypatch, text, tmp_path, "sweep=redistribution", "seed=5") == ended
    assert capsys.readouterr().out.count("This run is finished") == 4


def test_a_run_that_fails_does_not_end_the_others_and_is_tried_again(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first has an option out of its range, the second what only shows while training, the third a SystemExit.
    with pytest.raises(SystemExit) as raised:
        sweep(monkeypatch, text, tmp_path, "method.prune_rate=1.5,0.5", "optimizer.lr=1.0,-1.0", "seed=1")
    assert raised.value.code == 1
    assert len(list(tmp_path.glob("*/results.json"))) == 1
    printed = capsys.readouterr()
    assert printed.err.count("This run has failed, others go on") == 3
    assert "Expected `prune_rate` in [0, 1), got 1.5" in printed.err
    assert "Expected `lr` to be a finite number" in printed.err
    assert "These runs have failed:" in printed.out
    assert [line for line in printed.out.splitlines() if line.startswith("[4 of 4")] == [
        "[4 of 4 runs] 1 done, 3 failed"
    ]
    assert "The same command tries them again, and none that is finished." in printed.out


def test_several_devices_are_refused(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        sweep(monkeypatch, text, tmp_path, "trainer.devices=2", "seed=1,2")
    assert capsys.readouterr().err.count("Expected trainer.devices=1, got 2") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep(
    number: signal.Signals,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = LanguageModel.training_step

    def signalled(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1:
            signal.raise_signal(number)
        return step(self, batch, batch_idx)

    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(LanguageModel, "training_step", signalled)
    with pytest.raises(SystemExit) as raised:
        sweep(monkeypatch, text, tmp_path, "seed=1,2")
    assert raised.value.code == 130
    said = capsys.readouterr().err
    assert said.endswith("Interrupted. The same command goes on from the last epoch that was finished.\n")
    for each, handler in handlers.items():  # Lightning leaves them as it needs them
        signal.signal(each, handler)
    assert len(list(tmp_path.glob("*/config.yaml"))) == 1


def test_a_run_that_another_process_works_on_is_left_to_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:  # a process that dies before it trains leaves the folder with its config

        def began(continued: Any, folder: Path) -> dict[str, float]:
            OmegaConf.save(continued.config, folder / "config.yaml", resolve=True)
            return {"val_ppl": 0.0}

        patch.setattr(training, "_train", began)
        sweep(patch, text, tmp_path, "seed=1")
    (claimed,) = (path.parent for path in tmp_path.glob("*/.lock"))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(claimed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    capsys.readouterr()
    ended = sweep(monkeypatch, text, tmp_path, "seed=1,2")
    assert ended.failed == []
    assert ended.elsewhere == [claimed.name]
    said = capsys.readouterr().out
    assert "Left to other processes, and not finished yet:" in said
    assert "[1 of 2 runs] 0 done, 1 elsewhere\n" in said
    assert "[2 of 2 runs] 1 done, 1 elsewhere\n" in said
    assert not (claimed / "results.json").exists()
    with pytest.raises(RunIsElsewhere, match="Another process is working on the run in"), worked_on(claimed):
        pass
    other.kill()
    other.communicate()
    assert len(sweep(monkeypatch, text, tmp_path, "seed=1,2").finished) == 2
    assert len(list(tmp_path.glob("*/results.json"))) == 2


def test_of_processes_that_come_to_a_run_at_once_the_one_that_has_it_writes_its_config(
    text: Path, tmp_path: Path
) -> None:
    # One that wrote the config before it had the run would replace the other's, and both would have it in hand.
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RunIsElsewhere):
        train(small_config(text, tmp_path), folder)
    assert not (folder / "config.yaml").exists()
    other.communicate()
    assert train(small_config(text, tmp_path), folder)["epochs"] > 0


def test_a_folder_in_which_a_run_leaves_nothing_is_removed(text: Path, tmp_path: Path) -> None:
    with pytest.raises(InstantiationException, match="Expected `prune_rate`"):
        train(small_config(text, tmp_path, "prune_rate=2"), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs" / "run").exists()
    with worked_on(tmp_path / "runs" / "other"):
        (tmp_path / "runs" / "other" / "config.yaml").touch()
    assert (tmp_path / "runs" / "other" / ".lock").exists()


def test_a_lock_on_a_file_that_has_been_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between the moments at which this process opens the file and locks it, another ends, and takes its folder away.
    lock, tries = jobs._lock, []

    def late(file: Any) -> bool:
        tries.append(file)
        if len(tries) == 1:
            remove_if_unused(tmp_path / "run")
            assert not (tmp_path / "run").exists()
        return lock(file)

    monkeypatch.setattr(jobs, "_lock", late)
    with worked_on(tmp_path / "run"):
        assert len(tries) == 2
        assert (tmp_path / "run" / ".lock").stat().st_ino == os.fstat(tries[1].fileno()).st_ino
        with pytest.raises(RunIsElsewhere), worked_on(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_where_a_file_system_has_no_locks_runs_go_on_without(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(jobs.fcntl, "flock", fail)
    with worked_on(tmp_path / "run"):
        (tmp_path / "run" / "config.yaml").touch()
    assert (tmp_path / "run" / "config.yaml").exists()
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), worked_on(tmp_path / "run"):
        pass


def test_how_far_a_sweep_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    runs = tmp_path / "results"
    (runs / "found").mkdir(parents=True)
    (runs / "found" / "results.json").touch()
    with Jobs.of_a_command(tmp_path / "runs", runs=5) as all_jobs:
        with all_jobs.job(runs / "found"):
            pass
        for name, seconds in (("one", 100.0), ("two", 300.0)):
            with all_jobs.job(runs / name):
                now[0] += seconds
        with all_jobs.job(runs / "bad"):
            raise SystemExit("no")
        with all_jobs.job(runs / "held"):
            raise RunIsElsewhere("It is elsewhere.")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")] == [
        "[1 of 5 runs] 1 done",
        "[2 of 5 runs] 2 done; about 5 min left",
        "[3 of 5 runs] 3 done; about 7 min left",
        "[4 of 5 runs] 3 done, 1 failed; about 3 min left",
        "[5 of 5 runs] 3 done, 1 elsewhere, 1 failed",
    ]
    assert not (tmp_path / "runs").exists()
    with Jobs.of_a_command(tmp_path / "runs") as unknown, unknown.job(runs / "one"):
        pass
    assert "[1 run so far] 1 done" in capsys.readouterr().out


COMMAND_IN_HAND = """
import pathlib, sys
from lightning_sparse_rnn.runs.jobs import Jobs
with Jobs.of_a_command(pathlib.Path(sys.argv[1])) as jobs, jobs.job(pathlib.Path("one")):
    print("begun", flush=True)
    sys.stdin.read()
"""


def folders_of_commands(runs: Path) -> set[Path]:
    return set(runs.glob(".jobs-*"))


def test_what_a_killed_sweep_has_left_is_removed_by_the_next_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", COMMAND_IN_HAND, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "begun\n"
    (theirs,) = folders_of_commands(tmp_path)
    with Jobs.of_a_command(tmp_path) as ours, ours.job(Path("two")):  # while the other is at work
        assert len(folders_of_commands(tmp_path)) == 2
    assert folders_of_commands(tmp_path) == {theirs}
    other.kill()
    other.communicate()
    assert folders_of_commands(tmp_path) == {theirs}
    with Jobs.of_a_command(tmp_path, several=False):  # one run, which has no such folder and looks for none
        assert folders_of_commands(tmp_path) == {theirs}
    without_lock = tmp_path / ".jobs-before"  # as versions made them that did not say whose they are
    without_lock.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_machine", lambda: "elsewhere")
        with Jobs.of_a_command(tmp_path):  # another machine may not see the lock of one that is at work
            assert theirs in folders_of_commands(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_lock", lambda file: True)
        with Jobs.of_a_command(tmp_path):  # nor is anything known where there are no locks
            assert theirs in folders_of_commands(tmp_path)
    with Jobs.of_a_command(tmp_path):
        assert theirs not in folders_of_commands(tmp_path)
        assert len(folders_of_commands(tmp_path)) == 2
    assert folders_of_commands(tmp_path) == {without_lock}


def test_a_run_that_another_command_has_finished_since_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    monkeypatch.chdir(tmp_path)
    with Jobs.of_a_command(Path("runs"), runs=6) as ours:
        for name in ("first", "third"):
            with ours.job(Path("runs") / name):
                raise RunIsElsewhere("It is elsewhere.")
        Path("runs/first").mkdir()
        Path("runs/first/results.json").touch()
        for name in ("second", "fourth"):
            with ours.job(Path("runs") / name):
                now[0] += 60.0
        assert (ours.finished, ours.elsewhere) == (["first", "fourth", "second"], ["third"])
        assert ours.summary().splitlines() == ["Left to other processes, and not finished yet:", "  third"]
        Path("runs/third").mkdir()
        Path("runs/third/results.json").touch()
        assert ours.summary() == ""
    # Two commands share the runs: the two that are left take one of them a minute.
    assert capsys.readouterr().out.splitlines()[-1] == "[4 of 6 runs] 3 done, 1 elsewhere; about 1 min left"


def test_a_small_dense_network_has_no_more_weights_than_the_sparse_one_has_live(text: Path, tmp_path: Path) -> None:
    sparse = train(small_config(text, tmp_path, "sparsity=0.5", "trainer.max_epochs=1"), tmp_path / "sparse")
    small = train(
        small_config(text, tmp_path, "sparsity=0.5", "method=small_dense", "trainer.max_epochs=1"), tmp_path / "small"
    )
    assert 0.8 * sparse["live_weights"] < small["total_weights"] <= sparse["live_weights"] + 2
    assert small["sparsity"] == 0.0


OTHER_PROCESS = """
from pathlib import Path
from lightning_sparse_rnn.runs.folder import remove_if_unused
from lightning_sparse_rnn.runs.jobs import Jobs, RunIsElsewhere
with Jobs.around().job(Path("good")):
    pass
with Jobs.around().job(Path("bad")):
    raise ValueError("no such thing")
with Jobs.around().job(Path("worse")):
    raise SystemExit("sparse-rnn-train: Expected another.\\n(And more.)")
with Jobs.around().job(Path("held")):
    raise RunIsElsewhere("It is elsewhere.")
"""


def test_how_runs_in_other_processes_end_is_known_where_the_command_was_given(tmp_path: Path) -> None:
    # As with the launchers of Hydra that start processes of their own.
    with Jobs.of_a_command(tmp_path / "runs") as ours:
        subprocess.run([sys.executable, "-c", OTHER_PROCESS], check=True, capture_output=True)
        assert (ours.finished, ours.failed, ours.elsewhere) == (["good"], ["bad", "worse"], ["held"])
        assert ours.summary().splitlines() == [
            "These runs have finished:",
            "  good",
            "Left to other processes, and not finished yet:",
            "  held",
            "These runs have failed:",
            "  bad: ValueError: no such thing",
            "  worse: sparse-rnn-train: Expected another.",
            "The same command tries them again, and none that is finished.",
        ]
    assert not (tmp_path / "runs").exists()
