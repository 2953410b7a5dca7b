"""The comparison of methods: made from runs once, and from its record ever after."""

import json
import shutil
from pathlib import Path

import pytest
from made_up_runs import make_run

from benchmarks.comparison import main

HEAD = "| method | seeds | test | validation | gap to dense | minus selfish, paired [95 % interval] | live weights |"


def test_a_record_outlives_its_runs_and_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, record, picture = tmp_path / "runs", tmp_path / "a" / "record.json", tmp_path / "picture.svg"
    options = ["--json", str(record), "--picture", str(picture)]
    values = {("selfish", 1): 90.0, ("selfish", 2): 92.0, ("dense", 1): 100.0, ("set", 1): 91.0, ("set", 2): 94.0}
    for (method, seed), value in values.items():
        make_run(runs / f"{method}.{seed}", method, seed, value)
    make_run(runs / "static.1", "static", 1, None)  # unfinished: not in the record
    main([str(runs), *options, "--title", "Two seeds", "--machine", "one core"])
    # set − selfish: 1, 2; mean 1.5, deviation √0.5, 12.706·√0.5/√2 = 6.35.
    assert capsys.readouterr().out.splitlines() == [
        HEAD,
        "|---|---|---|---|---|---|---|",
        "| selfish | 2 | 91.00 ± 1.41 | 92.00 ± 1.41 | -9.00 (-9.0 %) |  | 24 |",
        "| set | 2 | 92.50 ± 2.12 | 93.50 ± 2.12 | -7.50 (-7.5 %) | +1.50 [-4.85, +7.85] (2 seeds) | 24 |",
        "| dense | 1 | 100.00 | 101.00 |  | +10.00 (1 seed) | 48 |",
    ]
    before, first = json.loads(record.read_text()), picture.read_text()
    assert before["title"] == "Two seeds"
    assert [(run["method"], run["seed"], run["machine"]) for run in before["runs"]] == [
        (method, seed, "one core") for method, seed in sorted(values)
    ]
    shutil.rmtree(runs)
    main(options)
    assert (json.loads(record.read_text()), picture.read_text()) == (before, first)
    make_run(runs / "static.1", "static", 1, 95.0)
    make_run(runs / "set.1", "set", 1, 91.0)  # the run that is recorded: keeps its machine
    make_run(runs / "set.2", "set", 2, 93.0)  # made again: replaces it
    main([str(runs), *options, "--machine", "two cores"])
    after = {(run["method"], run["seed"]): run for run in json.loads(record.read_text())["runs"]}
    assert len(after) == 6
    assert (after["set", 1]["machine"], after["set", 2]["machine"], after["set", 2]["test_ppl"]) == (
        "one core", "two cores", 93.0,
    )  # fmt: skip


def test_mistakes_are_said_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--json", str(tmp_path / "record.json"), "--picture", str(tmp_path / "picture.svg")]
    for given, says in (([str(tmp_path / "none")], "which is none"), ([str(tmp_path)], "got none")):
        with pytest.raises(SystemExit):
            main([*given, *options])
        assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
