"""The comparison of methods: made from runs once, and from its record ever after."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import make_run

from benchmarks.comparison import draw, main, recorded
from lightning_sparse_rnn.runs.reading import read_run

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
    folders = [make_run(tmp_path / "runs" / name, "selfish", seed, 90.0) for name, seed in (("a", 1), ("b", 1))]
    with pytest.raises(SystemExit):
        main([str(tmp_path / "runs"), *options])
    assert f"one run of each method and seed, got {folders[0]} and {folders[1]}" in capsys.readouterr().err
    shutil.rmtree(folders[1])
    longer = make_run(tmp_path / "runs" / "b", "selfish", 2, 90.0) / "results.json"
    longer.write_text(longer.read_text().replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "runs"), *options])
    assert "Expected runs of one length, got [3, 4] epochs" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("set", {"data__train_lines": 500}, "which differ in data.train_lines. Another setting"),
        ("selfish", {"method__growth": "gradient"}, "which differ in method.growth."),
        ("selfish", {"sparsity": 0.8}, "which differ in method.sparsity."),
        ("set", {"test_ppl": math.inf}, "Expected finite perplexities, got a run that has diverged: "),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    method: str, given: dict[str, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs" / "a", "selfish", 1, 90.0, method__growth="random")
    make_run(tmp_path / "runs" / "b", method, 2, **{"test_ppl": 91.0, **given})
    with pytest.raises(SystemExit):
        main([str(tmp_path / "runs"), "--json", str(tmp_path / "record.json")])
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_record_takes_no_runs_of_another_size_and_its_picture_stands_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "a" / "record.json"
    make_run(tmp_path / "small" / "a", "selfish", 1, 90.0)
    main([str(tmp_path / "small"), "--json", str(record)])
    before = record.read_text()
    assert sorted(path.name for path in record.parent.iterdir()) == ["record.json", "record.svg"]
    results = make_run(tmp_path / "large" / "a", "selfish", 2, 80.0) / "results.json"
    results.write_text(results.read_text().replace('"live_weights": 24', '"live_weights": 48'))
    (tmp_path / "empty").mkdir()
    for folder, says in (
        ("large", "selfish with equally many live weights, got [24, 48]"),
        ("empty", "empty, got none"),
    ):
        with pytest.raises(SystemExit):
            main([str(tmp_path / folder), "--json", str(record)])
        assert says in capsys.readouterr().err
    assert record.read_text() == before


def test_the_picture_has_lines_of_networks_without_masks_and_an_arrow_for_what_is_far(tmp_path: Path) -> None:
    values = {"selfish": (90.0, 92.0), "dense": (100.0, 101.0), "small_dense": (110.0, 111.0), "snip": (119.0, 300.0)}
    records = [
        recorded(read_run(make_run(tmp_path / f"{method}{seed}", method, seed, value)), None)
        for method, both in values.items()
        for seed, value in enumerate(both)
    ]
    (axes,) = draw("", records).axes
    dashed = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert dashed == [100.5, 110.5]
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == ">"] == [3]
    bars = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "|"]
    assert bars == [91.0, 100.5, 110.5]
    assert axes.get_xlim()[1] < 130
    assert [text.get_text() for text in axes.texts] == ["91.0", "100.5", "110.5", "209.5"]
