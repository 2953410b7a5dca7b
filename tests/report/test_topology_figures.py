"""Which figures of topologies have nothing to show, by hand: their lines would lie on one another."""

from pathlib import Path

import pytest
from made_up_runs import make_run

from lightning_sparse_rnn.report import topology_figures
from lightning_sparse_rnn.report.groups import Group
from lightning_sparse_rnn.report.series import per_tensor
from lightning_sparse_rnn.report.tables import budgets
from lightning_sparse_rnn.runs.reading import Row, read_run

WORDS, MATRIX = "network.embedding.weight", "network.rnn.weight_hh_l0"


def made(
    folder: Path, counts: dict[tuple[str, str], list[int]], moved: tuple[int, int] = (2, 2), an_epoch: int = 1
) -> Group:
    """Make a group of one run with these numbers of live weights of 1000 by update, by tensor and gate."""
    run = read_run(make_run(folder))
    rows: list[Row] = []
    for (tensor, gate), live in counts.items():
        for update, count in enumerate(live):
            of = {"update": update, "epoch": update // an_epoch, "tensor": tensor, "gate": gate}
            pruned, regrown = moved if update else (0, 0)
            more = {"pruned": pruned * (update + 1), "regrown": regrown * (update + 1)}
            rows.append({**of, "total": 1000, "live": count, **more})
    run.topology = rows
    return Group([run], folder.name)


@pytest.mark.parametrize(
    ("counts", "layers_move", "layers_differ", "gates_move", "gates_differ"),
    [
        ({(WORDS, "all"): [500, 500], (MATRIX, "i"): [500, 500], (MATRIX, "f"): [500, 500]}, 0, 0, 0, 0),
        ({(WORDS, "all"): [500, 500], (MATRIX, "i"): [500, 600], (MATRIX, "f"): [500, 400]}, 0, 0, 1, 1),
        ({(WORDS, "all"): [900, 500], (MATRIX, "i"): [900, 500], (MATRIX, "f"): [900, 501]}, 1, 0, 1, 0),
        ({(WORDS, "all"): [500, 400], (MATRIX, "i"): [500, 600], (MATRIX, "f"): [500, 600]}, 1, 1, 1, 0),
    ],
)
@pytest.mark.parametrize("an_epoch", [1, 2])
def test_lines_that_move_and_lines_that_differ(
    tmp_path: Path,
    an_epoch: int,
    counts: dict[tuple[str, str], list[int]],
    layers_move: int,
    layers_differ: int,
    gates_move: int,
    gates_differ: int,
) -> None:
    group = made(tmp_path / "a", counts, an_epoch=an_epoch)
    assert topology_figures.layers_move(group) == layers_move
    assert topology_figures.layers_differ(group) == layers_differ
    assert topology_figures.gates_move(group) == gates_move
    assert topology_figures.gates_differ(group) == gates_differ


def test_weights_that_move_evenly_are_a_sentence(tmp_path: Path) -> None:
    even = made(tmp_path / "a", {(WORDS, "all"): [5000, 5000, 5000]}, moved=(700, 700))
    alike = made(tmp_path / "b", {(WORDS, "all"): [5000, 5000]})
    uneven = made(tmp_path / "c", {(WORDS, "all"): [5000, 4000]}, moved=(700, 0))
    assert [topology_figures.moves_evenly(group) for group in (even, alike, uneven)] == [True, True, False]
    assert topology_figures.moved_in_words([even, alike]).endswith(" in the last: a 1,400 → 2,100; b 4.")


def test_several_updates_in_an_epoch_are_not_added_up(tmp_path: Path) -> None:
    group = made(tmp_path / "a", {(WORDS, "all"): [500, 400, 300], (MATRIX, "i"): [500, 600, 700]}, an_epoch=2)
    assert per_tensor(group.runs[0].topology, "live")[WORDS] == [(0, 500), (0, 400), (1, 300)]
    shares = budgets([group])
    assert shares is not None
    assert shares.rows == [["a", "0.500 → 0.300", "0.500 → 0.700"]]
    assert topology_figures.layer_densities(group).kind == "wide"
