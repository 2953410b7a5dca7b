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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

__all__ = ["GateLayout", "find_gates"]

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
_LAYER_SUFFIX = re.compile(r"_(l\d+(?:_reverse)?)$")


@dataclass(frozen=True)
class GateLayout:
    """The gates of one tensor: blocks of rows along its first dimension.

    Args:
        rows: gate name to number of rows, in row order; the numbers sum to the tensor's first dimension.
        layer: name of the recurrent layer the tensor is part of; the input and hidden matrices of one layer (of one
            direction) share it.
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


def find_gates(module: nn.Module) -> dict[str, GateLayout]:
    """Return the gates of every recurrent weight below ``module``, by the weight's full parameter name.

    Weights that are not in the result (embeddings, decoders, the projections of an LSTM) have no gates.

    Raises:
        ValueError: a module's ``gate_rows`` names something that is not a parameter of its own, or its rows do not
            sum to the parameter's.
    """
    found: dict[str, GateLayout] = {}
    for prefix, owner in module.named_modules():
        own = _own_parameters(owner)
        for name, rows in _declared(owner, own, prefix).items():
            suffix = _LAYER_SUFFIX.search(name)
            layer = ".".join(part for part in (prefix, suffix.group(1) if suffix else "") if part)
            full = name if name in owner._parameters else _ORIGINAL.format(name)
            found[f"{prefix}.{full}" if prefix else full] = GateLayout(dict(rows), layer)
    return found


def _own_parameters(owner: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters by name, those too that ``torch.nn.utils.parametrize`` has put elsewhere."""
    own: dict[str, Tensor] = dict(owner.named_parameters(recurse=False))
    if is_parametrized(owner):
        own.update({name: getattr(owner, name) for name in owner.parametrizations})  # type: ignore[union-attr]
    return own


def _declared(owner: nn.Module, own: Mapping[str, Tensor], prefix: str) -> Mapping[str, Mapping[str, int]]:
    declare = getattr(owner, "gate_rows", None)
    if callable(declare):
        declared: Mapping[str, Mapping[str, int]] = declare()
        _check(declared, own, f"{type(owner).__name__}.gate_rows() of {prefix or 'the module itself'!r}")
        return declared
    for kind, gates in _TORCH_GATES.items():
        if isinstance(owner, kind):
            return {
                name: dict.fromkeys(gates, parameter.size(0) // len(gates))
                for name, parameter in own.items()
                if name.startswith(("weight_ih", "weight_hh"))
            }
    return {}


def _check(declared: Mapping[str, Mapping[str, int]], own: Mapping[str, Tensor], who: str) -> None:
    for name, rows in declared.items():
        if name not in own:
            raise ValueError(f"{who} names {name!r}. Expected one of its own parameters: {', '.join(own) or 'none'}.")
        whole = all(isinstance(count, int) and count > 0 for count in rows.values())
        if not whole or sum(rows.values()) != own[name].size(0):
            raise ValueError(
                f"{who} gives {name!r} the rows {dict(rows)}. Expected positive whole numbers that sum to the "
                f"{own[name].size(0)} rows of the parameter."
            )
