"""Distances of kept topologies: which are measured, what they are, and what is said of the others."""

from pathlib import Path
from typing import Any

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.report import distances
from lightning_sparse_rnn.report.distances import Meter, measure
from lightning_sparse_rnn.report.groups import Group, group_runs
from lightning_sparse_rnn.report.mask_distance import topological_distances
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.sparsity.mask_files import load_masks

GATES = {"network.rnn.weight_hh_l0": {"input": 4, "cell": 4}}


@pytest.fixture
def groups(tmp_path: Path) -> list[Group]:
    folders = [
        make_run(tmp_path / "a1", "a", 1, 90.0),
        make_run(tmp_path / "a2", "a", 2, 91.0),
        make_run(tmp_path / "b1", "b", 3, 95.0),
        make_run(tmp_path / "dense", "dense", 1, 80.0),
    ]
    return group_runs([read_run(folder) for folder in folders])


def expected(one: Path, other: Path) -> float:
    found = topological_distances(load_masks(one), load_masks(other), GATES)
    return sum(found.values()) / len(found)


def test_each_is_the_distance_of_its_files(groups: list[Group], tmp_path: Path) -> None:
    found = measure(groups, Meter(60, tmp_path / "known.json"))
    last = {name: tmp_path / name / "masks" / "0002.npz" for name in ("a1", "a2", "b1")}
    assert found.names == ["a", "b"]
    assert found.between == [
        [pytest.approx(expected(last["a1"], last["a2"])), pytest.approx(expected(last["a1"], last["b1"]))],
        [pytest.approx(expected(last["b1"], last["a1"])), None],  # one seed
    ]
    masks = [tmp_path / "a1" / "masks" / f"{epoch:04d}.npz" for epoch in range(3)]
    assert found.moves["a"] == [(1, 0.0), *((i + 1, pytest.approx(expected(masks[0], masks[i]))) for i in (1, 2))]
    assert found.moves_by_tensor["a"] == topological_distances(load_masks(masks[0]), load_masks(masks[2]), GATES)
    assert found.left_out == []


def test_none_is_measured_twice(groups: list[Group], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(groups, Meter(60, tmp_path / "known.json"))
    monkeypatch.setattr(distances, "topological_distances", lambda *arguments: pytest.fail("measured again"))
    assert measure(groups, Meter(60, tmp_path / "known.json")) == found
    (tmp_path / "known.json").write_text("{")
    with pytest.raises(pytest.fail.Exception):
        measure(groups, Meter(60, tmp_path / "known.json"))


def test_masks_that_have_changed_are_measured_anew(groups: list[Group], tmp_path: Path) -> None:
    measure(groups, Meter(60, tmp_path / "known.json"))
    last = {name: tmp_path / name / "masks" / "0002.npz" for name in ("a1", "b1")}
    last["b1"].write_bytes((tmp_path / "b1" / "masks" / "0000.npz").read_bytes())
    found = measure(groups, Meter(60, tmp_path / "known.json"))
    assert found.between[0][1] == pytest.approx(expected(last["a1"], last["b1"]))
    assert found.moves["b"][-1] == (3, 0.0)


def test_what_there_is_no_time_for_is_said(groups: list[Group], tmp_path: Path) -> None:
    found = measure(groups, Meter(1e-9, tmp_path / "known.json"))
    assert found.moves == {}
    assert found.between == [[None, None], [None, None]]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("6 distances of topologies: the time for them (1e-09 s) was over")


def test_files_that_are_broken_are_said_among_their_runs_problems(groups: list[Group], tmp_path: Path) -> None:
    (tmp_path / "a1" / "masks" / "0001.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "b1" / "masks" / "0002.npz").write_bytes(b"")
    found = measure(groups, Meter(60, tmp_path / "known.json"))
    assert [epochs for epochs, _ in found.moves["a"]] == [1, 3]
    assert [epochs for epochs, _ in found.moves["b"]] == [1, 2]
    assert found.names == ["a"]
    problems: dict[str, Any] = {run.folder.name: run.problems for group in groups for run in group.runs}
    assert problems["a1"][0].startswith("masks/0001.npz cannot be read: ")
    assert problems["b1"][0].startswith("masks/0002.npz cannot be read: ")
    assert problems["a2"] == []


def test_masks_of_other_tensors_than_the_tables_are_said(groups: list[Group], tmp_path: Path) -> None:
    table = tmp_path / "a1" / "topology.csv"
    table.write_text(table.read_text().replace("rnn.weight_hh_l0", "gru.weight_hh_l0"))
    run = read_run(tmp_path / "a1")
    found = measure([Group([run], "a")], Meter(60, tmp_path / "known.json"))
    assert found.moves == {}
    assert "gru.weight_hh_l0" in run.problems[0]


def test_large_matrices_are_not_begun_without_the_time_for_one(tmp_path: Path) -> None:
    paper = {"hh": dict.fromkeys(("input", "forget", "cell", "output"), 1500 * 1500)}
    assert distances._seconds(paper) == pytest.approx(1.0125)
    assert distances._seconds({name: dict.fromkeys("ifco", 200 * 200) for name in "abcd"}) < 0.1
    assert distances._seconds({"hh": {"update": 10_000 * 10_000}}) == pytest.approx(300)
