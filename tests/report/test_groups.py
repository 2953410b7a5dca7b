"""Runs that differ in nothing but their seeds, by hand."""

from pathlib import Path

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.report.groups import Group, differing_settings, group_runs
from lightning_sparse_rnn.runs.reading import read_run


def grouped(*folders: Path) -> list[Group]:
    return group_runs([read_run(folder) for folder in folders])


def test_seeds_come_together_and_methods_apart_best_first(tmp_path: Path) -> None:
    groups = grouped(
        make_run(tmp_path / "a", "static", 2, 110.0),
        make_run(tmp_path / "b", "selfish", 1, 90.0),
        make_run(tmp_path / "c", "static", 1, 100.0),
        make_run(tmp_path / "d", "set", 1, None),
    )
    assert [(group.name, [run.seed for run in group.runs]) for group in groups] == [
        ("selfish", [1]),
        ("static", [1, 2]),
        ("set", [1]),
    ]
    assert groups[1].values("test_ppl") == [100.0, 110.0]
    assert groups[1].mean("accounting.explored") == 0.75
    assert groups[1].values("no.such") == []
    assert groups[2].mean("test_ppl") == float("inf")


def test_places_do_not_tell_runs_apart(tmp_path: Path) -> None:
    here = {"data__root": "here", "data__cache_dir": "here", "output": "x", "name": "y"}
    (group,) = grouped(make_run(tmp_path / "a", **here), make_run(tmp_path / "b", data__root="there", seed=2))
    assert len(group.runs) == 2


def test_numbers_are_one_however_they_are_written(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", optimizer__lr=30.0, callbacks__averaging__restart_at=[1])
    (group,) = grouped(
        first, make_run(tmp_path / "b", optimizer__lr=30, callbacks__averaging__restart_at=[1.0], seed=2)
    )
    assert len(group.runs) == 2
    flags = grouped(make_run(tmp_path / "c", data__lower=True), make_run(tmp_path / "d", data__lower=1))
    assert len(flags) == 2


def test_settings_that_differ_are_part_of_the_name(tmp_path: Path) -> None:
    groups = grouped(
        make_run(tmp_path / "a", sparsity=0.5, test_ppl=90.0),
        make_run(tmp_path / "b", sparsity=0.8, method__sparsity=0.8, test_ppl=95.0),
        make_run(tmp_path / "c", "static"),
    )
    assert [group.name for group in groups] == ["selfish, sparsity 0.5", "selfish, sparsity 0.8", "static"]
    # `sparsity` is offered to all methods, and `method.sparsity` is what these took.
    assert list(differing_settings(groups[:2])) == ["method.sparsity"]
    assert differing_settings(groups) == {
        "method.sparsity": [0.5, 0.8, 0.5],
        "chosen.method": ["selfish", "selfish", "static"],
    }


def test_what_a_method_takes_no_note_of_makes_no_other_method(tmp_path: Path) -> None:
    (group,) = grouped(
        make_run(tmp_path / "a", "dense", sparsity=0.5, prune_rate=0.5),
        make_run(tmp_path / "b", "dense", sparsity=0.9, prune_rate=0.1),
        make_run(tmp_path / "c", "dense", sparsity=0.9, seed=2, test_ppl=110.0),
    )
    assert group.name == "dense"
    assert group.values("test_ppl") == [100.0, 110.0]  # the same seed twice is one measurement


def test_an_optimizer_stands_for_its_averaging(tmp_path: Path) -> None:
    groups = grouped(
        make_run(tmp_path / "a", chosen__optimizer="adam", averaging={}, optimizer={"_target_": "torch.optim.Adam"}),
        make_run(
            tmp_path / "b",
            chosen__optimizer="sntasgd",
            averaging={"monitor": "val_loss", "restart_epochs": []},
            optimizer={"_target_": "SNTASGD", "nonmono": 5},
        ),
    )
    assert sorted(group.name for group in groups) == ["selfish, optimizer adam", "selfish, optimizer sntasgd"]


def test_settings_in_a_config_tell_apart_where_its_name_does_not(tmp_path: Path) -> None:
    given = {"a": ("adam", 0.1), "b": ("sgd", 1.0), "c": ("sgd", 2.0)}
    groups = grouped(
        *(make_run(tmp_path / name, chosen__optimizer=kind, optimizer={"lr": lr}) for name, (kind, lr) in given.items())
    )
    assert sorted(group.name for group in groups) == [
        "selfish, optimizer adam",
        "selfish, optimizer sgd, lr 1.0",
        "selfish, optimizer sgd, lr 2.0",
    ]


def test_one_method_on_two_corpora_is_two_groups_named_so(tmp_path: Path) -> None:
    groups = grouped(make_run(tmp_path / "a"), make_run(tmp_path / "b", data__source="pydoc"))
    assert [group.name for group in groups] == ["selfish on ptb", "selfish on pydoc"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_results_that_are_not_finite_do_not_count(tmp_path: Path, value: float) -> None:
    (group,) = grouped(make_run(tmp_path / "a", test_ppl=value), make_run(tmp_path / "b", seed=2, test_ppl=80.0))
    assert group.values("test_ppl") == [80.0]
