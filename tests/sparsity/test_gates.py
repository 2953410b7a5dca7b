"""Which rows belong to which gate: torch's layers, declared layouts, and declarations that are wrong."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lightning_sparse_rnn.sparsity import GateLayout, SparseTopology, find_gates


class Declared(nn.Module):
    """A layer that declares the gates of its two matrices, or whatever else it is given."""

    def __init__(self, rows: dict[str, dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(torch.randn(7, 3))
        self.weight_hh = nn.Parameter(torch.randn(7, 2))
        self.rows = (
            rows if rows is not None else {name: {"master": 2, "cell": 5} for name in ("weight_in", "weight_hh")}
        )

    def gate_rows(self) -> dict[str, dict[str, Any]]:
        return self.rows


class PeepholeLSTM(nn.LSTM):
    """A subclass that knows better than its base class."""

    def gate_rows(self) -> dict[str, dict[str, int]]:
        return {"weight_ih_l0": {"all_but_one": 3, "one": 1}}


LSTM_GATES = ("input", "forget", "cell", "output")
GRU_GATES = ("reset", "update", "new")


@pytest.mark.parametrize(
    ("kind", "gates"), [(nn.LSTM, LSTM_GATES), (nn.GRU, GRU_GATES), (nn.RNN, ("hidden",))], ids=["lstm", "gru", "rnn"]
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_of_torch(kind: type[nn.RNNBase], gates: tuple[str, ...], bidirectional: bool) -> None:
    layer = kind(3, 5, num_layers=2, bidirectional=bidirectional)
    found = find_gates(nn.ModuleDict({"embedding": nn.Embedding(4, 3), "rnn": layer}))
    rows = dict.fromkeys(gates, 5)
    expected = {
        f"rnn.weight_{which}_{suffix}": GateLayout(rows, f"rnn.{suffix}")
        for suffix in ("l0", "l1", *(["l0_reverse", "l1_reverse"] if bidirectional else []))
        for which in ("ih", "hh")
    }
    assert found == expected
    assert all(list(layout.rows) == list(gates) for layout in found.values())


@pytest.mark.parametrize(
    ("kind", "gates"), [(nn.LSTMCell, LSTM_GATES), (nn.GRUCell, GRU_GATES), (nn.RNNCell, ("hidden",))]
)
def test_cells_of_torch(kind: type[nn.RNNCellBase], gates: tuple[str, ...]) -> None:
    expected = GateLayout(dict.fromkeys(gates, 4), "1")
    assert find_gates(nn.Sequential(nn.Linear(2, 3), kind(3, 4))) == {
        "1.weight_ih": expected,
        "1.weight_hh": expected,
    }


def test_a_projection_has_no_gates_and_the_others_keep_the_hidden_size() -> None:
    found = find_gates(nn.LSTM(3, 6, proj_size=2))
    assert found == {name: GateLayout(dict.fromkeys(LSTM_GATES, 6), "l0") for name in ("weight_ih_l0", "weight_hh_l0")}


def test_a_parametrized_layer_keeps_its_gates() -> None:
    layer = spectral_norm(nn.LSTM(3, 5), "weight_hh_l0")
    found = find_gates(nn.ModuleDict({"rnn": layer}))
    expected = GateLayout(dict.fromkeys(LSTM_GATES, 5), "rnn.l0")
    assert found == {"rnn.weight_ih_l0": expected, "rnn.parametrizations.weight_hh_l0.original": expected}
    assert found.keys() <= dict(nn.ModuleDict({"rnn": layer}).named_parameters()).keys()


def by_gate(cell: nn.RNNCellBase, weight: str) -> dict[str, Tensor]:
    parameter = cell.get_parameter(weight)
    spans = find_gates(cell)[weight].spans(parameter.shape)
    return {gate: parameter.view(-1)[start:stop].view(-1, parameter.size(1)) for gate, start, stop in spans}


def test_names_are_in_the_row_order_of_torch_lstm() -> None:
    cell = nn.LSTMCell(3, 5, bias=False)
    x, h, c = torch.randn(3), torch.randn(5), torch.randn(5)
    i, h_ = by_gate(cell, "weight_ih"), by_gate(cell, "weight_hh")
    into = {gate: i[gate] @ x + h_[gate] @ h for gate in LSTM_GATES}
    new_c = into["forget"].sigmoid() * c + into["input"].sigmoid() * into["cell"].tanh()
    expected = into["output"].sigmoid() * new_c.tanh()
    torch.testing.assert_close(cell(x, (h, c)), (expected, new_c))


def test_names_are_in_the_row_order_of_torch_gru() -> None:
    cell = nn.GRUCell(3, 5, bias=False)
    x, h = torch.randn(3), torch.randn(5)
    i, h_ = by_gate(cell, "weight_ih"), by_gate(cell, "weight_hh")
    reset, update = ((i[gate] @ x + h_[gate] @ h).sigmoid() for gate in ("reset", "update"))
    new = (i["new"] @ x + reset * (h_["new"] @ h)).tanh()
    torch.testing.assert_close(cell(x, h), (1 - update) * new + update * h)


def test_spans_follow_each_other_over_the_flattened_tensor() -> None:
    layout = GateLayout({"a": 2, "b": 1}, "layer")
    assert list(layout.spans((3, 4))) == [("a", 0, 8), ("b", 8, 12)]
    assert list(layout.spans((3, 2, 2))) == [("a", 0, 8), ("b", 8, 12)]
    assert list(layout.spans((3,))) == [("a", 0, 2), ("b", 2, 3)]


def test_declared_gates_share_the_layer_of_their_module() -> None:
    rows = {"master": 2, "cell": 5}
    assert find_gates(nn.ModuleList([nn.Linear(2, 2), Declared()])) == {
        "1.weight_in": GateLayout(rows, "1"),
        "1.weight_hh": GateLayout(rows, "1"),
    }


def test_a_declaration_wins_over_the_base_class() -> None:
    assert find_gates(PeepholeLSTM(2, 1)) == {"weight_ih_l0": GateLayout({"all_but_one": 3, "one": 1}, "l0")}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"weight_xx": {"all": 7}}, r"'cell' names 'weight_xx'.*weight_in, weight_hh"),
        ({"weight_in": {"a": 2, "b": 4}}, r"'weight_in' the rows \{'a': 2, 'b': 4\}.*the 7 rows"),
        ({"weight_in": {"a": 7, "b": 0}}, r"'b': 0\}. Expected positive whole numbers"),
        ({"weight_hh": {"a": 9, "b": -2}}, r"Expected positive whole numbers"),
        ({"weight_in": {}}, r"the rows \{\}.*the 7 rows"),
    ],
)
def test_wrong_declarations_say_what_is_wrong(rows: dict[str, dict[str, int]], said: str) -> None:
    with pytest.raises(ValueError, match=rf"Declared\.gate_rows\(\) of .*{said}"):
        find_gates(nn.ModuleDict({"cell": Declared(rows)}))


@pytest.mark.parametrize("rows", [{"a": 3.5, "b": 3.5}, {"a": 2.0, "b": 5.0}, {"a": "7"}])
def test_rows_that_are_not_whole_numbers_are_refused(rows: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive whole numbers"):
        find_gates(Declared({"weight_in": rows}))


# ------------------------------------------------------------------------------------- tied, wrapped, and given gates


def test_a_weight_tied_to_a_layer_listed_before_keeps_its_gates() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(5, 20), "rnn": nn.LSTM(3, 5)})
    module["rnn"].weight_hh_l0 = module["linear"].weight
    expected = GateLayout(dict.fromkeys(LSTM_GATES, 5), "rnn.l0")
    assert find_gates(module) == {"linear.weight": expected, "rnn.weight_ih_l0": expected}
    gates = SparseTopology(module, 0.5).gate_sizes
    assert gates["linear.weight"] == dict.fromkeys(LSTM_GATES, 25)


class WeightDrop(nn.Module):
    """A wrapper that keeps the recurrent weight itself, or renames it in the layer, as published ones do."""

    def __init__(self, layer: nn.Module, name: str, inside: bool) -> None:
        super().__init__()
        self.module = layer
        weight = getattr(layer, name).detach().clone()
        delattr(layer, name)
        (layer if inside else self).register_parameter(f"{name}_raw", nn.Parameter(weight))
        setattr(layer, name, weight)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("kind", "name"), [(nn.LSTM, "weight_hh_l0"), (nn.LSTMCell, "weight_hh")])
def test_a_recurrent_weight_under_weight_drop_keeps_its_gates(inside: bool, kind: Any, name: str) -> None:
    module = nn.ModuleDict({"rnn": WeightDrop(kind(3, 5), name, inside)})
    layer = "rnn.module" + (".l0" if kind is nn.LSTM else "")
    found = find_gates(module)
    assert set(found) == {f"rnn.{'module.' if inside else ''}{name}_raw", f"rnn.module.{name.replace('hh', 'ih')}"}
    assert set(map(str, found.values())) == {str(GateLayout(dict.fromkeys(LSTM_GATES, 5), layer))}


class Minimal(nn.Module):
    """A recurrent network that says nothing of its gates."""

    def __init__(self) -> None:
        super().__init__()
        self.to_hidden_and_gate = nn.Linear(4, 12)
        self.out = nn.Linear(6, 4)


def test_gates_given_by_pattern() -> None:
    module = nn.ModuleDict({"core": Minimal(), "rnn": nn.GRU(4, 2)})
    topology = SparseTopology(module, 0.5, gates={"core.to_*.weight": ["hidden", "gate"]}, redistribution="none")
    assert topology.gate_sizes["core.to_hidden_and_gate.weight"] == {"hidden": 24, "gate": 24}
    assert topology.gate_sizes["core.out.weight"] == {"all": 24}
    before = topology.live_per_gate()
    topology.update(0.5)
    assert topology.live_per_gate() == before
    sizes = SparseTopology(module, 0.5, gates={"*gate.weight": {"hidden": 4, "gate": 8}, "rnn.*_ih_*": ["a", "b"]})
    assert sizes.gate_sizes["core.to_hidden_and_gate.weight"] == {"hidden": 16, "gate": 32}
    assert sizes.gate_sizes["rnn.weight_ih_l0"] == {"a": 12, "b": 12}  # before what torch's layer has


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"core.x": ["a"]}, r"`gates` pattern 'core\.x' matches none of: core\.to_hidden_and_gate\.weight"),
        ({"*.bias": ["a"]}, "matches none of"),
        ({"*gate.weight": ["a"] * 2}, "list of different names"),
        ({"*gate.weight": list("abcde")}, r"the 12 rows of core\.to_hidden_and_gate\.weight can be shared out equally"),
        ({"*gate.weight": []}, "list of different names"),
        ({"*gate.weight": "ab"}, "list of different names"),
        ({"*gate.weight": {"a": 4}}, "the rows {'a': 4}. Expected positive whole numbers that sum to the 12 rows"),
    ],
)
def test_given_gates_that_do_not_fit(gates: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SparseTopology(nn.ModuleDict({"core": Minimal()}), 0.5, gates=gates)
