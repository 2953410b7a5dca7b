"""Which parameters of a module are made sparse."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from lightning_sparse_rnn.sparsity import SparseTopology, sparsifiable_parameters
from lightning_sparse_rnn.sparsity.selection import embeddings_of, names_of


def language_model() -> nn.ModuleDict:
    return nn.ModuleDict({"embedding": nn.Embedding(11, 4), "rnn": nn.LSTM(4, 6, 2), "decoder": nn.Linear(6, 11)})


def test_biases_norms_frozen_and_integer_parameters_stay_dense() -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "norm": nn.LayerNorm(4), "frozen": nn.Linear(4, 4)})
    module["frozen"].requires_grad_(False)
    module.register_parameter("indices", nn.Parameter(torch.ones(3, 3, dtype=torch.long), requires_grad=False))
    assert list(sparsifiable_parameters(module)) == ["a.weight"]
    frozen = module["frozen"].weight.clone()
    SparseTopology(module, 0.5)
    assert torch.equal(module["frozen"].weight, frozen)


def test_a_tied_tensor_is_one_tensor_under_its_first_name() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(10, 6), "decoder": nn.Linear(6, 10)})
    module["decoder"].weight = module["embedding"].weight
    topology = SparseTopology(module, 0.5)
    assert list(topology.parameters) == ["embedding.weight"]
    assert (topology.total_weights, topology.live_weights) == (60, 30)
    assert list(SparseTopology(module, 0.5, include="decoder.*").parameters) == ["embedding.weight"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (
            None,
            "embedding*",
            ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1", "decoder.weight"],
        ),
        ("rnn.*_l1", None, ["rnn.weight_ih_l1", "rnn.weight_hh_l1"]),
        (["rnn.*", "decoder.weight"], ["*_ih_*"], ["rnn.weight_hh_l0", "rnn.weight_hh_l1", "decoder.weight"]),
    ],
)
def test_include_and_exclude_are_shell_patterns(include: Any, exclude: Any, expected: list[str]) -> None:
    module = language_model()
    assert list(SparseTopology(module, 0.5, include=include, exclude=exclude).parameters) == expected


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["lstm.*", "decoder", "rnn.bias*"])
def test_patterns_that_match_nothing_list_what_could_match(option: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=r"matches none of the parameters that can be sparse: ") as raised:
        SparseTopology(language_model(), 0.5, **{option: ["embedding.*", pattern]})
    assert f"`{option}` pattern {pattern!r}" in str(raised.value)
    assert "rnn.weight_hh_l1" in str(raised.value)
    assert ("Did you mean 'decoder.*'?" in str(raised.value)) == (pattern == "decoder")


def test_nothing_to_make_sparse() -> None:
    with pytest.raises(ValueError, match="LayerNorm has no trainable floating-point parameter with two or more"):
        SparseTopology(nn.LayerNorm(4), 0.5)
    with pytest.raises(ValueError, match=r"leave nothing to make sparse of: weight\."):
        SparseTopology(nn.Linear(4, 4), 0.5, exclude="*")


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_under_weight_norm_are_refused(norm: Any) -> None:
    module = nn.Sequential(norm(nn.Linear(4, 8)), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"0\.\S+, 0\.\S+ belong to weights under weight_norm"):
        SparseTopology(module, 0.5)
    assert list(SparseTopology(module, 0.5, exclude="0.*").parameters) == ["1.weight"]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_tensors_without_elements_are_left_out() -> None:
    module = nn.ModuleDict({"empty": nn.Linear(0, 3), "full": nn.Linear(4, 4)})
    assert list(SparseTopology(module, 0.5, allocation="erdos_renyi").parameters) == ["full.weight"]


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm((5, 4)), *([nn.RMSNorm((5, 4))] if hasattr(nn, "RMSNorm") else [])],
    ids=lambda n: type(n).__name__,
)
def test_gains_of_norms_stay_dense_whatever_their_dimensions(norm: nn.Module) -> None:
    module = nn.ModuleDict({"norm": norm, "a": nn.Linear(4, 4)})
    assert list(sparsifiable_parameters(module)) == ["a.weight"]
    assert list(sparsifiable_parameters(module, exclude=["norm.*"])) == ["a.weight"]  # as one may have had to say
    SparseTopology(module, 0.5)
    assert torch.count_nonzero(norm.weight) == 20


def test_time_constants_are_weights_until_they_are_excluded() -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 4)})
    module.register_parameter("decay", nn.Parameter(torch.ones(1, 4)))
    assert list(sparsifiable_parameters(module)) == ["decay", "a.weight"]
    assert list(sparsifiable_parameters(module, exclude="decay")) == ["a.weight"]


def test_complex_matrices_stay_dense_and_are_named() -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4, dtype=torch.complex64)})
    with pytest.warns(UserWarning, match=r"b\.weight are complex, and stay dense: .*`exclude`"):
        assert list(sparsifiable_parameters(module)) == ["a.weight"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(sparsifiable_parameters(module, exclude="b.*")) == ["a.weight"]
        assert list(sparsifiable_parameters(module, include="a.*")) == ["a.weight"]


def test_embeddings_and_names() -> None:
    module = language_model()
    assert embeddings_of(module) == {module["embedding"].weight}
    module["head"] = nn.Linear(4, 11)
    module["head"].weight = module["embedding"].weight
    assert embeddings_of(module) == set()
    names = names_of(module)
    assert names["embedding.weight"] == ["embedding.weight", "head.weight"]
    assert names["decoder.weight"] == ["decoder.weight"]
