"""Torch's recurrent layers and cells with packed weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lightning_sparse_rnn.inference.layers import PackedLayer, dense, product
from lightning_sparse_rnn.inference.operators import MODES, watched
from lightning_sparse_rnn.inference.packing import Packed
from lightning_sparse_rnn.models.kernels.linear import made_into_a_graph

__all__ = ["PackedCell", "PackedRecurrent"]

Weight = Packed | Tensor
# A state is (h,) or, of an LSTM, (h, c); each (columns, features).
State = tuple[Tensor, ...]
# Torch's own layer is faster than products step by step with a hidden weight that is not packed, from so many steps on.
_LONG = 16
# For so many columns a step's input and the state before are faster multiplied at once, than all inputs first. Measured
# for 256 to 650 units.
_TOGETHER = 25
# From the input's share of the gates and the state before to the state after.
Step = Callable[[Tensor, State], State]


def _lstm_step(hidden: Weight, bias: Tensor | None, projection: Weight | None = None) -> Step:
    def step(inputs: Tensor, state: State) -> State:
        h, c = state
        size = c.size(-1)
        gates = product(h, hidden).add_(inputs)
        gates[..., : 2 * size].sigmoid_()
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.addcmul(f * c, i, g.tanh_())
        h = o.sigmoid_() * c.tanh()
        return (h if projection is None else product(h, projection)), c

    return step


def _gru_step(hidden: Weight, bias: Tensor | None) -> Step:
    def step(inputs: Tensor, state: State) -> State:
        (h,) = state
        gates = product(h, hidden, bias)
        size = h.size(-1)
        r, z = gates[..., : 2 * size].add_(inputs[..., : 2 * size]).sigmoid_().chunk(2, dim=-1)
        n = torch.addcmul(inputs[..., 2 * size :], r, gates[..., 2 * size :]).tanh_()
        return (torch.lerp(n, h, z),)

    return step


def _rnn_step(activation: Callable[[Tensor], Tensor], hidden: Weight) -> Step:
    return lambda inputs, state: (activation(product(state[0], hidden).add_(inputs)),)


def _step(mode: str, hidden: Weight, bias: Tensor | None, projection: Weight | None = None) -> Step:
    if mode == "LSTM":
        return _lstm_step(hidden, bias, projection)
    if mode == "GRU":
        return _gru_step(hidden, bias)
    return _rnn_step(torch.relu if mode == "RNN_RELU" else torch.tanh, hidden)


def _whole_sequence(
    mode: str,
    weights: tuple[Weight, Packed],
    biases: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    state: State,
    backwards: bool,
) -> tuple[Tensor, State]:
    """All steps at once, with the input's and the hidden weight: outputs and the last state.

    ``x`` and the outputs are (steps, columns, features).
    """
    (weight, hidden), bias = weights, _input_bias(mode, *biases)
    h, c = state if mode == "LSTM" else (state[0], None)
    of_mode = MODES[mode]
    if isinstance(weight, Packed) and _better_together(mode, weight, hidden, x.size(1)):
        outputs, cell = hidden.sequence(x, weight, h, c, bias, of_mode, backwards)
    else:
        of_hidden = biases[1] if mode == "GRU" else None
        outputs, cell = hidden.recurrence(product(x, weight, bias), h, c, of_hidden, of_mode, backwards)
    last = outputs[0 if backwards else -1].clone()
    return outputs, (last,) if c is None else (last, cell)


def _better_together(mode: str, weight: Packed, hidden: Packed, columns: int) -> bool:
    """Whether a step's input and the state before are to be multiplied at once.

    Not for a GRU, which does more than to add their products, nor where torch is to see operators, nor with weights of
    two dtypes.
    """
    # `watched` comes first: a graph is for any number of columns.
    if watched() or columns < _TOGETHER or mode == "GRU":
        return False
    return weight.values.dtype == hidden.values.dtype


def _by_torch(mode: str, weights: list[Tensor], x: Tensor, state: State, backwards: bool) -> tuple[Tensor, State]:
    """What :func:`_whole_sequence` gives, for ``x`` (steps, columns, features), in x's dtype under autocast too."""
    state = tuple(part.unsqueeze(0) for part in state)
    x = x.flip(0) if backwards else x
    runs: dict[str, Any] = {
        "LSTM": torch.lstm,
        "GRU": torch.gru,
        "RNN_TANH": torch.rnn_tanh,
        "RNN_RELU": torch.rnn_relu,
    }
    # Biases or not, one layer, no dropout, not in training, one direction, steps first.
    options = (len(weights) > 2, 1, 0.0, False, False, False)
    outputs, *ends = runs[mode](x, state if mode == "LSTM" else state[0], weights, *options)
    outputs = outputs.flip(0) if backwards else outputs
    return outputs.to(x.dtype), tuple(end.squeeze(0).to(x.dtype) for end in ends)


def _check_state(layer: PackedLayer, parts: State, shapes: Sequence[tuple[int, ...]]) -> None:
    if [tuple(part.shape) for part in parts] != shapes:
        raise ValueError(f"Expected a state of shapes {shapes}, got {[tuple(part.shape) for part in parts]}.")
    for part in parts:
        layer.check_input(part)


def _input_bias(mode: str, bias_ih: Tensor | None, bias_hh: Tensor | None) -> Tensor | None:
    """What is added to the input's product: both biases, or of a GRU, whose new gate scales the other one, its own."""
    return bias_ih if bias_ih is None or bias_hh is None or mode == "GRU" else bias_ih + bias_hh


class PackedRecurrent(PackedLayer):
    """`torch.nn.LSTM`, `GRU` or `RNN` with packed weights: layers, directions and projections as there."""

    options = (
        "mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
        "proj_size",
    )  # fmt: skip
    # Smaller than for single products: torch's LSTM lays its weights out anew in every call, and of 300 units takes 2.6
    # times as long as a packed one for one token.
    smallest = 1 << 18
    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
    batch_first: bool
    bidirectional: bool

    def flatten_parameters(self) -> None:
        """Nothing: torch's layers have this for cuDNN."""

    def forward(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        """Map ``x`` and the state before it to the outputs and the last state; shapes as in torch.

        Raises:
            ValueError: there is no step, or the input or the state is not of the shape that layers and columns ask for.
        """
        if isinstance(x, PackedSequence):
            return self._of_sequences(x, state)
        self.check_input(x)
        if x.dim() not in (2, 3):
            raise ValueError(f"Expected an input of 2 or 3 dimensions, got {tuple(x.shape)}.")
        single = x.dim() == 2
        if single:
            x = x.unsqueeze(1)
            state = None if state is None else tuple(part.unsqueeze(1) for part in self._parts(state))
        elif self.batch_first:
            x = x.transpose(0, 1)
        steps, columns = x.shape[:2]
        if steps == 0:
            raise ValueError(f"Expected at least one step, got an input of shape {tuple(x.shape)}.")
        outputs, ends = self._run(x, [columns] * steps, self._initial(state, x, columns))
        if single:
            return outputs.squeeze(1), self._whole(tuple(end.squeeze(1) for end in ends))
        return (outputs.transpose(0, 1) if self.batch_first else outputs), self._whole(ends)

    def _of_sequences(self, x: PackedSequence, state: Any) -> tuple[PackedSequence, Any]:
        self.check_input(x.data)
        sizes: list[int] = x.batch_sizes.tolist()
        begin = self._initial(state, x.data, sizes[0])
        if state is not None and x.sorted_indices is not None:
            begin = tuple(part.index_select(1, x.sorted_indices) for part in begin)
        as_long = sizes[0] == sizes[-1]
        outputs, ends = self._run(x.data.unflatten(0, (-1, sizes[0])) if as_long else x.data, sizes, begin)
        outputs = outputs.flatten(0, 1) if as_long else outputs
        if x.unsorted_indices is not None:
            ends = tuple(end.index_select(1, x.unsorted_indices) for end in ends)
        return PackedSequence(outputs, x.batch_sizes, x.sorted_indices, x.unsorted_indices), self._whole(ends)

    def _run(self, x: Tensor, sizes: list[int], begin: State) -> tuple[Tensor, State]:
        """Outputs for ``x`` (steps, columns, features), or of sequences of several lengths (rows, features).

        Of such rows the first ``sizes[0]`` are the first step, and so on.
        """
        if x.size(-1) != self.input_size:
            raise ValueError(f"Expected an input of {self.input_size} features, got {x.size(-1)}.")
        ends, at = [], 0
        for layer in range(self.num_layers):
            of_directions = []
            for direction in ("", "_reverse")[: 1 + self.bidirectional]:
                output, end = self._direction(f"l{layer}{direction}", x, sizes, tuple(part[at] for part in begin))
                of_directions.append(output)
                ends.append(end)
                at += 1
            x = torch.cat(of_directions, dim=-1) if self.bidirectional else of_directions[0]
        return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))

    def _direction(self, name: str, x: Tensor, sizes: list[int], state: State) -> tuple[Tensor, State]:
        bias_ih, bias_hh = (self._parameters.get(f"bias_{side}_{name}") for side in ("ih", "hh"))
        projection = self.weight_of(f"weight_hr_{name}") if self.proj_size else None
        hidden, backwards = self.weight_of(f"weight_hh_{name}"), name.endswith("_reverse")
        as_long = x.dim() == 3
        at_once = as_long and projection is None
        weight = self.weight_of(f"weight_ih_{name}")
        if at_once and isinstance(hidden, Packed):
            return _whole_sequence(self.mode, (weight, hidden), (bias_ih, bias_hh), x, state, backwards)
        if at_once and isinstance(hidden, Tensor) and len(sizes) >= _LONG and not made_into_a_graph():
            biases = [] if bias_ih is None or bias_hh is None else [bias_ih, bias_hh]
            return _by_torch(self.mode, [dense(weight), hidden, *biases], x, state, backwards)
        gates = product(x, weight, _input_bias(self.mode, bias_ih, bias_hh))
        inputs = gates.unbind() if as_long else gates.split(sizes)
        step = _step(self.mode, hidden, bias_hh, projection)
        order = range(len(sizes))
        outputs: list[Tensor] = [x] * len(sizes)
        for time in reversed(order) if backwards else order:
            new = step(inputs[time], tuple(part[: sizes[time]] for part in state))
            outputs[time] = new[0]
            # Of sequences of several lengths only some go on; the others keep what they have.
            state = tuple(
                part if part.size(0) == old.size(0) else torch.cat([part, old[part.size(0) :]])
                for part, old in zip(new, state, strict=True)
            )
        return torch.stack(outputs) if as_long else torch.cat(outputs), state

    def _initial(self, state: Any, x: Tensor, columns: int) -> State:
        layers = self.num_layers * (1 + self.bidirectional)
        features = [self.proj_size or self.hidden_size, *([self.hidden_size] if self.mode == "LSTM" else [])]
        shapes = [(layers, columns, size) for size in features]
        if state is None:
            return tuple(x.new_zeros(shape) for shape in shapes)
        parts = self._parts(state)
        _check_state(self, parts, shapes)
        return parts

    def _parts(self, state: Any) -> State:
        return (state,) if isinstance(state, Tensor) else tuple(state)

    def _whole(self, parts: State) -> Any:
        return parts if self.mode == "LSTM" else parts[0]


class PackedCell(PackedLayer):
    """`torch.nn.LSTMCell`, `GRUCell` or `RNNCell` with packed weights."""

    options = ("input_size", "hidden_size", "bias")
    hidden_size: int

    def __init__(self, layer: torch.nn.Module, packed: Any) -> None:
        super().__init__(layer, packed)
        kind = type(layer).__name__.removesuffix("Cell")
        self.mode = f"RNN_{layer.nonlinearity.upper()}" if kind == "RNN" else kind  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """Map ``x`` (columns, input_size) and the state before it to the state after; shapes as in torch.

        Raises:
            ValueError: the state is not of the shape that columns ask for.
        """
        self.check_input(x)
        shapes = [(*x.shape[:-1], self.hidden_size)] * (2 if self.mode == "LSTM" else 1)
        if state is None:
            before: State = tuple(x.new_zeros(shape) for shape in shapes)
        else:
            before = (state,) if isinstance(state, Tensor) else tuple(state)
            _check_state(self, before, shapes)
        bias_ih, bias_hh = (self._parameters.get(f"bias_{side}") for side in ("ih", "hh"))
        weight, hidden = self.weight_of("weight_ih"), self.weight_of("weight_hh")
        if isinstance(hidden, Packed):
            parts = tuple(part.view(-1, self.hidden_size) for part in before)
            rows = x.view(1, -1, x.size(-1))
            _, after = _whole_sequence(self.mode, (weight, hidden), (bias_ih, bias_hh), rows, parts, False)
            after = tuple(part.view_as(before[0]) for part in after)
        else:
            inputs = product(x, weight, _input_bias(self.mode, bias_ih, bias_hh))
            after = _step(self.mode, hidden, bias_hh)(inputs, before)
        return after if self.mode == "LSTM" else after[0]
