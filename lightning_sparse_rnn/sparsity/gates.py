"""Which rows of a recurrent weight belong to which gate.

The matrices of a recurrent layer stack one block of rows per gate. PyTorch's own layers are known here; any other
module declares its blocks with a method

    def gate_rows(self) -> dict[str, dict[str, int]]:
        return {"weight_hh": {"input": 400, "forget": 400, "cell": 400}}

from the name of one of its own parameters to its gates and their numbers of rows, in row order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_sparse_rnn.utilities.checks import is_whole

__all__ = ["GateLayout", "find_gates", "layouts_of"]

# Row order of the stacked matrices, as torch documents it for each layer and its cell.
_TORCH_GATES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.LSTM: ("input", "forget", "cell", "output"),
    nn.LSTMCell: ("input", "forget", "cell", "output"),
    nn.GRU: ("reset", "update", "new"),
    nn.GRUCell: ("reset", "update", "new"),
    nn.RNN: ("hidden",),
    nn.RNNCell: ("hidden",),
}
# Where a parametrization keeps the parameter that it has taken the place of.
_ORIGINAL = "parametrizations.{}.original"
# What wrappers and hooks keep a weight as, `weight_hh_l0_raw` or `weight_hh_l0_orig`, is still of layer `l0`.
_LAYER_SUFFIX = re.compile(r"_(l\d+(?:_reverse)?)(?:_[a-z]+)?$")
_TORCH_WEIGHT = re.compile(r"weight_(ih|hh)(_|$)")

Given = Mapping[str, Sequence[str] | Mapping[str, int]]


@dataclass(frozen=True)
class GateLayout:
    """The gates of one tensor: blocks of rows along its first dimension.

    Args:
        rows: gate name to number of rows, in row order; the numbers sum to the tensor's first dimension.
        layer: name of the recurrent layer the tensor is part of; the input and hidden matrices of one layer (of one
            direction) share it.

    >>> list(GateLayout({"hidden": 2, "gate": 1}, layer="core").spans((3, 4)))
    [('hidden', 0, 8), ('gate', 8, 12)]
    """

    rows: Mapping[str, int]
    layer: str

    def spans(self, shape: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
        """Yield ``(gate, start, stop)``: each gate's range of positions in the flattened tensor of that shape."""
        width = math.prod(shape[1:])
        start = 0
        for gate, rows in self.rows.items():
            stop = start + rows * width
            yield gate, start, stop
            start = stop


def find_gates(module: nn.Module, given: Given | None = None) -> dict[str, GateLayout]:
    """Return the gates of every recurrent weight below ``module``, by the weight's first full parameter name.

    Weights that are not in the result (embeddings, decoders, the projections of an LSTM) have no gates. A weight that
    several modules share has the gates of the first of them that knows any.

    Args:
        module: any module.
        given: gates by shell pattern over parameter names, before what modules say themselves: a list of gates in row
            order, of equally many rows each, or their numbers of rows by name.

    >>> find_gates(nn.GRU(3, 5))["weight_hh_l0"]
    GateLayout(rows={'reset': 5, 'update': 5, 'new': 5}, layer='l0')

    Raises:
        ValueError: a module's ``gate_rows`` names something that is not a parameter of its own, a pattern matches no
            parameter with two or more dimensions, or the rows do not sum to the parameter's.
    """
    first: dict[Tensor, str] = {}
    aliases = dict(module.named_parameters(remove_duplicate=False))
    for name, parameter in aliases.items():
        first.setdefault(parameter, name)
    found: dict[str, GateLayout] = {}
    for name, given_rows in _given(given or {}, aliases).items():
        found.setdefault(first[aliases[name]], GateLayout(given_rows, _layer_of(*_split(name))))
    for prefix, owner in module.named_modules():
        own = _own_parameters(owner)
        for name, rows in _declared(owner, own, prefix).items():
            full = name if name in owner._parameters else _ORIGINAL.format(name)
            layout = GateLayout(dict(rows), _layer_of(_wrapped(prefix, owner), name))
            found.setdefault(first[aliases[_join(prefix, full)]], layout)
    return found


def layouts_of(
    module: nn.Module, parameters: Mapping[str, Tensor], given: Given | None = None
) -> dict[str, GateLayout]:
    """Return the gates of each of these parameters; one without any is a single block, and a layer of its own."""
    gates = find_gates(module, given)
    return {
        name: gates.get(name) or GateLayout({"all": parameter.size(0)}, layer=name)
        for name, parameter in parameters.items()
    }


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _split(name: str) -> tuple[str, str]:
    prefix, _, own = name.rpartition(".")
    return prefix, own


def _layer_of(prefix: str, name: str) -> str:
    suffix = _LAYER_SUFFIX.search(name)
    return _join(prefix, suffix.group(1) if suffix else "")


def _wrapped(prefix: str, owner: nn.Module) -> str:
    """Return the name of the recurrent layer whose weights a module has, which may be one that it wraps."""
    if _torch_gates(owner) is None and not callable(getattr(owner, "gate_rows", None)):
        inner = [name for name, child in owner.named_children() if _torch_gates(child) is not None]
        return _join(prefix, *inner[:1])
    return prefix


def _own_parameters(owner: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters by name, those too that ``torch.nn.utils.parametrize`` has put elsewhere."""
    own: dict[str, Tensor] = dict(owner.named_parameters(recurse=False, remove_duplicate=False))
    if is_parametrized(owner):
        own.update({name: getattr(owner, name) for name in owner.parametrizations})  # type: ignore[union-attr]
    return own


def _torch_gates(module: nn.Module) -> tuple[str, ...] | None:
    return next((gates for kind, gates in _TORCH_GATES.items() if isinstance(module, kind)), None)


def _declared(owner: nn.Module, own: Mapping[str, Tensor], prefix: str) -> Mapping[str, Mapping[str, int]]:
    declare = getattr(owner, "gate_rows", None)
    if callable(declare):
        declared: Mapping[str, Mapping[str, int]] = declare()
        _check(declared, own, f"{type(owner).__name__}.gate_rows() of {prefix or 'the module itself'!r}")
        return declared
    # Weight drop keeps the recurrent weight in the module that wraps the layer, as `weight_hh_l0_raw`.
    gates = _torch_gates(owner) or next(filter(None, map(_torch_gates, owner.children())), None)
    if gates is None:
        return {}
    return {
        name: dict.fromkeys(gates, parameter.size(0) // len(gates))
        for name, parameter in own.items()
        if _TORCH_WEIGHT.match(name) and parameter.size(0) % len(gates) == 0
    }


def _given(given: Given, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, int]]:
    """Return the rows that patterns give, by each matching name."""
    matrices = {name: parameter for name, parameter in parameters.items() if parameter.dim() >= 2}
    found: dict[str, dict[str, int]] = {}
    for pattern, gates in given.items():
        matching = [name for name in matrices if fnmatchcase(name, pattern)]
        if not matching:
            raise ValueError(f"`gates` pattern {pattern!r} matches none of: {', '.join(matrices)}.")
        for name in matching:
            size = matrices[name].size(0)
            if isinstance(gates, Mapping):
                rows = dict(gates)
            elif isinstance(gates, str) or len(set(gates)) < len(gates) or not gates or size % len(gates):
                raise ValueError(
                    f"Expected `gates` of {pattern!r} to be a list of different names among which the {size} rows of "
                    f"{name} can be shared out equally, or numbers of rows by name, got {gates!r}."
                )
            else:
                rows = dict.fromkeys(gates, size // len(gates))
            _check({name: rows}, matrices, f"`gates` pattern {pattern!r}")
            found.setdefault(name, rows)
    return found


def _check(declared: Mapping[str, Mapping[str, int]], own: Mapping[str, Tensor], who: str) -> None:
    for name, rows in declared.items():
        if name not in own:
            raise ValueError(f"{who} names {name!r}. Expected one of its own parameters: {', '.join(own) or 'none'}.")
        whole = all(map(is_whole, rows.values()))
        if not whole or sum(rows.values()) != own[name].size(0):
            raise ValueError(
                f"{who} gives {name!r} the rows {dict(rows)}. Expected positive whole numbers that sum to the "
                f"{own[name].size(0)} rows of the parameter."
            )
