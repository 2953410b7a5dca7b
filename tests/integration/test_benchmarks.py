"""The benchmarks run, at toy size, and the documentation shows what they wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "training step": {
        "dense: `nn.LSTM`, `torch.optim.SGD(fused=True)`, a loop",
        "sparse, before the trigger",
        "sparse, averaging",
    },
    "optimizer step": {"`torch.optim.SGD(fused=True)`", "`SNTASGD`, before the trigger", "`SNTASGD`, averaging"},
    "topology update": {"deepr", "dsr", "gmp", "granet", "rigl", "selfish, rate 0.8", "set", "snfs"},
    "averages": {"shown", "training weights put back"},
    "checkpoint": {"sparse, averaging, to go on from, compact", "sparse weight file"},
    "evaluation of a batch": {"dense: `nn.LSTM`", "`LanguageModel`, sparse or dense"},
    "loading of a batch": {"text on the device", "text in memory, batches moved"},
}


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with its modules open to import."""
    monkeypatch.syspath_prepend(ROOT)
    return ROOT / "benchmarks"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("benchmarks") / "small.json"
    command = [sys.executable, "-m", "benchmarks", "--small", "--device", "cpu", "--repeats", "1", "--json", str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "### Training step" in ended.stdout
    return json.loads(path.read_text())


def test_every_benchmark_measures_every_side(small: dict) -> None:
    found: dict[str, set[str]] = {}
    for figure in small["figures"]:
        found.setdefault(figure["benchmark"], set()).add(figure["what"])
        assert figure["seconds"] >= 0
        assert figure["floor"] is None or figure["floor"] > 0
        assert (figure["ratio"] is None) == (figure["beside"] is None)
    assert found.keys() == EXPECTED.keys()
    assert all(EXPECTED[benchmark] <= sides for benchmark, sides in found.items())
    assert {"command", "date", "machine", "versions", "size", "floors"} <= small.keys()


def test_a_training_step_never_waits_for_its_device(small: dict) -> None:
    steps = [figure for figure in small["figures"] if figure["benchmark"] == "training step"]
    assert [figure["more"]["waits_per_step"] for figure in steps] == [0] * 4


def test_waits_are_counted(benchmarks: Path) -> None:
    import torch

    from benchmarks.setting import SMALL, Setting
    from benchmarks.waits import Waits

    with Waits(Setting(SMALL, torch.device("cpu"), 1)) as waits:
        value = torch.ones(3)
        float(value.sum()), bool(value[0] > 0), value.mul_(2)
    assert waits.count == 2


def test_all_methods_that_update_are_measured(benchmarks: Path) -> None:
    from benchmarks.topology_update import updating_methods

    assert set(updating_methods()) == {"deepr", "dsr", "gmp", "granet", "rigl", "selfish", "set", "snfs"}


def test_documentation_shows_the_committed_results(benchmarks: Path, tmp_path: Path) -> None:
    from benchmarks.rendering import render_into

    document = ROOT / "docs" / "benchmarks.md"
    results = sorted((benchmarks / "results").glob("*.json"))
    assert results
    (tmp_path / "again.md").write_text(document.read_text(encoding="utf-8"), encoding="utf-8")
    render_into(tmp_path / "again.md", results)
    assert (tmp_path / "again.md").read_text(encoding="utf-8") == document.read_text(encoding="utf-8"), (
        "Run `python -m benchmarks --render`."
    )


def test_a_document_without_marks(benchmarks: Path, tmp_path: Path) -> None:
    from benchmarks.rendering import render_into

    (tmp_path / "none.md").write_text("text")
    with pytest.raises(ValueError, match="Expected <!-- made by"):
        render_into(tmp_path / "none.md", [])


class TestHeadline:
    def test_the_folder_is_the_one_that_the_run_is_in(self, benchmarks: Path) -> None:
        from benchmarks.headline import RECIPE, folder_of

        folder = folder_of([*RECIPE, "data.root=x", "output=/y"])
        assert folder == Path("/y/experiment=ptb_stacked_lstm,root=x")

    def test_ctrl_c_waits_for_the_run_which_keeps_what_it_has(
        self, benchmarks: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from benchmarks import headline

        waited = []

        class Run:
            def __init__(self, command: list[str]) -> None:
                assert "experiment=ptb_stacked_lstm" in command

            def wait(self) -> int:
                waited.append(self)
                if len(waited) == 1:
                    raise KeyboardInterrupt
                return 1

        monkeypatch.setattr(headline.subprocess, "Popen", Run)
        with pytest.raises(KeyboardInterrupt):
            headline.main(["data.root=x"])
        assert len(waited) == 2

    def test_summary(self, benchmarks: Path, tmp_path: Path) -> None:
        from benchmarks.headline import summary

        results = {"val_ppl": 74.0, "test_ppl": 72.0, "live_weights": 33, "total_weights": 100, "seconds": 50.0}
        (tmp_path / "results.json").write_text(json.dumps(results))
        (tmp_path / "metrics.csv").write_text("epoch,step,seconds\n0,100,20\n1,200,30\n2,300,40\n")
        (tmp_path / "config.yaml").write_text("data: {batch_size: 20, bptt: 35}\n")
        said = summary(tmp_path)
        assert "val_ppl 74.00 (paper: 73.79), test_ppl 72.00 (paper: 71.65)" in said
        assert "3 epochs in 50 s; an epoch, validation included: 10.00 s" in said
        assert "10.0 steps a second, about 7,000 tokens a second" in said


def test_a_sweep_whose_runs_fail_is_no_measurement(benchmarks: Path) -> None:
    from benchmarks.many_seeds import sweep

    with pytest.raises(RuntimeError, match=r"Exit codes \[1\], 0 of 1 runs ended\.\n[^$]*sparsity"):
        sweep(1, 1, ["sparsity=7"])


def test_several_runs_at_once_have_a_table_too(benchmarks: Path) -> None:
    from benchmarks.rendering import lines

    result = {
        "command": "c",
        "date": "d",
        "machine": {"device": "cuda", "gpu": "G", "processor": "P", "system": "S", "threads": 1},
        "versions": {"python": "3"},
        "runs_an_hour": {"1": 10.0, "2": 15.0},
    }
    assert lines(result)[-2:] == ["| 1 | 10.0 | 1.00 |", "| 2 | 15.0 | 1.50 |"]
