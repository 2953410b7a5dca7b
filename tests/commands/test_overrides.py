"""What is said of a command line that Hydra cannot take: what is near, and what there is to choose from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_sparse_rnn.commands import overrides
from lightning_sparse_rnn.commands.overrides import arranged, checked
from lightning_sparse_rnn.commands.train import main

SAID = {
    "sparsty=0.5": r"There is no sparsty\. Did you mean sparsity\? Groups: data, .*Values: .*seed",
    "methd=set": r"There is no methd\. Did you mean method\?",
    "method=riggle": r"There is no method=riggle\. Did you mean rigl\? Known: deepr, dense, ",
    "experiment=nothing": r"There is no experiment=nothing\. Known: ptb_awd_lstm, ",
    "data=base": r"There is no data=base\. Known: folder, ",
    "data.btpt=3": r"There is no data\.btpt\. Did you mean bptt\? In data: .*train_lines",
    "model.cuda_graph=false": r"There is no model\.cuda_graph\. Did you mean cuda_graphs\?",
    "model.network.fused_cell=true": r"There is no model\.network\.fused_cell\. Did you mean fused_cells\?",
    "bptt=3": r"There is no bptt\. Did you mean data\.bptt\?",
    "optimizer.betas=[0,1]": r"is added with \+optimizer\.betas=VALUE\. In optimizer: _target_, lr, ",
    "~callbacks.progres": r"There is no callbacks\.progres\. Did you mean progress\?",
    "method=[a": r"Expected options like key=value, got method=\[a: ",
    "sntasgd.lr=15": r"sntasgd\.lr is now optimizer\.lr\.",
    "sntasgd.restart_epochs=[4]": r"is now callbacks\.averaging\.restart_at, as shares of trainer\.max_epochs",
    "averaging.monitor=val_ppl": r"averaging\.monitor is now callbacks\.averaging\.monitor\.",
    "model.optimizer.lr=1": r"model\.optimizer\.lr is now optimizer\.lr\.",
    "model.netwrk.hidden_size=3": r"There is no model\.netwrk\. Did you mean network\? In model: .*cuda_graphs",
    "callbacks.mine.every=1": r"no callbacks\.mine\. .* \+callbacks\.mine\.every=VALUE\. In callbacks: averaging, ",
    "seed.first=1": r"There is no seed\.first: seed is a single value\.",
    "hydra.sweep.dirr=x": r"There is no hydra\.sweep\.dirr\. Did you mean dir or subdir\?",
    "+model.network.fused_cells=true": r"model\.network\.fused_cells is there already: .*, without the \+\.",
    "+method=set": r"method is there already: method=VALUE changes it, without the \+\.",
    "seed=1,2,3": r"seed=1,2,3 is for several runs, .* made with -m: -m seed=1,2,3\. .* in brackets, key=\[1,2\]",
    "~method": r"Every run needs a config of method, and ~method leaves none\. .* Without sparsity: method=dense\.",
    "optimizer=null": r"Every run needs a config of optimizer, and optimizer=null leaves none\. .*: optimizer=NAME\.$",
    "~data": r"Every run needs a config of data, and ~data leaves none\.",
    "experiment=null": r"Expected the name of a config, got experiment=null\. To choose none: ~experiment",
    "seed=range(1,4)": r"seed=range\(1,4\) is for several runs",
    "sweep=methods,sparsity": r"Expected one sweep, got sweep=methods,sparsity\. Run them one after the other\.",
    "output=": r"Expected a value in output=, got nothing\. Is a variable of the shell not set\?",
    "sweep=methods": r"sweep=methods is for several runs, and those are made with -m: .* -m sweep=methods",
}
# Further options beside the one at fault, which say what there is to choose from.
BESIDE = {
    "model=rhn model.network.fused_cells=true": r"no model\.network\.fused_cells\. .* In .*: .*coupled, depth",
    "model=rhn model.network.dpth=3": r"There is no model\.network\.dpth\. Did you mean depth\?",
    "-m model=rhn,gru model.network.dpth=3": r"There is no model\.network\.dpth\. Did you mean depth\?",
    "+model.network.bias=1 model.network.biass=1": r"There is no model\.network\.biass\. Did you mean bias\?",
    "sparsty=0.5 model=rnh": r"There is no model=rnh\. Did you mean rhn\?",
    "sweep=methods seed=1": r"sweep=methods is for several runs",
    "sweep=methods hydra.sweeper.params.seed='1,2'": r"hydra\.sweeper\.params\.seed='1,2' is for several runs",
}


@pytest.mark.parametrize("given", SAID)
def test_a_mistake_is_told_with_what_is_near(given: str) -> None:
    with pytest.raises(ValueError, match=SAID[given]) as raised:
        checked([given])
    assert "provider=" not in str(raised.value)
    assert "object_type" not in str(raised.value)


@pytest.mark.parametrize("given", BESIDE)
def test_what_is_near_is_looked_for_in_the_config_of_all_other_options(given: str) -> None:
    with pytest.raises(ValueError, match=BESIDE[given]):
        checked(given.split())


def test_what_hydra_takes_passes_and_names_the_folder_of_runs(tmp_path: Path) -> None:
    for given in (
        ["-m", "method=set,rigl", "seed=1,2", f"output={tmp_path}"],
        ["-m", "method=glob(*)", "seed=range(1,4)", f"output={tmp_path}"],
        ["+trainer.max_time=00:01:00:00", f"output={tmp_path}", "hydra.verbose=true"],
        ["experiment=ptb_small", "~callbacks.progress", f"output={tmp_path}"],
    ):
        assert checked(given).output == tmp_path
    assert checked([]) == (Path("runs"), None, False)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Cannot write to output=.*file/runs: .*file is not a folder"):
        checked([f"output={tmp_path / 'file' / 'runs'}"])


def test_the_number_of_runs_is_known_where_hydra_itself_makes_them(tmp_path: Path) -> None:
    for given, runs in {
        "seed=1": None,
        "-m seed=1": 1,
        "-m seed=1,2,3 method=set,rigl": 6,
        "-m seed=range(1,5) seed=1,2": 2,
        "-m sweep=methods": 36,
        "-m sweep=methods seed=1": 12,
        "hydra.mode=MULTIRUN seed=1,2": 2,
        "name='a,b'": None,
        "-m method=glob(*)": None,
        "-m prune_rate=interval(0.1,0.2)": None,
    }.items():
        found = checked([*given.split(), f"output={tmp_path}"])
        assert (found.runs, found.several) == (runs, "-m" in given or "MULTIRUN" in given), given


def test_names_of_runs_need_no_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "lr=3,seed=1").mkdir(parents=True)
    for given, arranged_as in {
        "init_from=runs/lr=3,seed=1": "init_from='runs/lr=3,seed=1'",
        "init_from=runs/seed=1,runs/seed=2": "init_from='runs/seed=1','runs/seed=2'",
        "init_from='runs/seed=1'": "init_from='runs/seed=1'",
        "init_from=ü,runs/b[1,2]": "init_from='ü','runs/b[1,2]'",
        "name=lr=3,seed=1": "name='lr=3,seed=1'",
        "name=a,b": "name=a,b",
        "seed=1": "seed=1",
        "init_from": "init_from",
    }.items():
        assert arranged([given, "-m"]) == ["-m", arranged_as]


@pytest.mark.parametrize("path", [
    "/tmp/übung", "/tmp/it's", "a=b", "a[1]", "runs(1)", "C:\\x y\\z", "C:\\ü\\", "a\\'b", "x{1}", "#1", "a;b&c",
    "日本", 'a"b', "2024_01", "1.50", "true", "[a]", "{a: 1}",
])  # fmt: skip
@pytest.mark.parametrize("key", ["output", "data.root", "+data.root", "init_from", "name"])
def test_paths_of_any_characters_need_no_quotes(key: str, path: str) -> None:
    (override,) = OverridesParser.create().parse_overrides(arranged([f"{key}={path}"]))
    assert override.value() == path


@pytest.mark.parametrize("given", [
    "${oc.env:TEXTS,/nowhere}/d", "choice(runs/a,runs/b)", r"d\(1\)", "d,'my d'", "a,b", "null", "'a b'", "a b",
])  # fmt: skip
def test_what_hydra_reads_itself_is_left_as_it_is(given: str) -> None:
    assert arranged([f"data.root={given}"]) == [f"data.root={given}"]


def test_a_path_in_the_home_folder_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert arranged(["data.root=~/text", "name=~"]) == ["data.root='/home/me/text'", "name='~'"]


def test_ctrl_c_before_and_between_runs_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["sparse-rnn-train"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(overrides, "checked", interrupted)
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_help_is_in_our_words_with_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sparse-rnn-train", "--help"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code in (None, 0)
    said = capsys.readouterr().out
    assert sum(line.strip().startswith("sparse-rnn-train ") for line in said.splitlines()) >= 6
    assert "Hydra is" not in said
    assert "powered by" not in said.lower()
    for group in ("method: deepr, dense", "optimizer: adam", "callbacks: default", "data: folder, ptb, "):
        assert group in said
    assert "base" not in said  # what configs share is no choice
