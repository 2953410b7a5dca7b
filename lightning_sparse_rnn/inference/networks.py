"""The recurrent layers of this package's own networks with packed weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse_rnn.inference.layers import PackedLayer, product

__all__ = ["PackedHighwayLayer", "PackedOrderedNeuronsLayer"]


class PackedHighwayLayer(PackedLayer):
    """`HighwayLayer` with packed weights: equations 6 to 9 of Zilly et al. (2017)."""

    options = ("hidden_size", "depth", "coupled", "dropout")
    hidden_size: int
    depth: int
    coupled: bool

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x`` (time, columns, input_size) to the states after every step and the last of them."""
        self.check_input(x)
        size = self.hidden_size
        biases = [self._parameters[f"bias_d{d}"] for d in range(self.depth)]
        weights = [self.weight_of(f"weight_hh_d{d}") for d in range(self.depth)]
        s = x.new_zeros(x.size(1), size) if state is None else state
        states = []
        for inputs in product(x, self.weight_of("weight_ih"), biases[0]):
            for d in range(self.depth):
                gates = product(s, weights[d]).add_(inputs) if d == 0 else product(s, weights[d], biases[d])
                h = gates[:, :size].tanh_()
                t, *carry = gates[:, size:].sigmoid_().split(size, dim=-1)
                s = torch.lerp(s, h, t) if self.coupled else torch.addcmul(h * t, s, carry[0])
            states.append(s)
        return torch.stack(states), s


class PackedOrderedNeuronsLayer(PackedLayer):
    """`OrderedNeuronsLayer` with packed weights: equations 3 to 14 of Shen et al. (2019)."""

    options = ("hidden_size", "chunks", "weight_drop")
    hidden_size: int
    chunks: int
    bias_ih: Tensor
    bias_hh: Tensor

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map ``x`` (time, columns, input_size) to the outputs and the last state, output and cell."""
        self.check_input(x)
        zeros = x.new_zeros(x.size(1), self.hidden_size)
        h, c = (zeros, zeros) if state is None else state
        hidden, outputs = self.weight_of("weight_hh"), []
        for inputs in product(x, self.weight_of("weight_ih"), self.bias_ih + self.bias_hh):
            gates = product(h, hidden).add_(inputs)
            master = gates[:, : 2 * self.chunks].unflatten(-1, (2, self.chunks)).softmax(-1).cumsum(-1)
            admitting, forgetting = (1 - master[:, 0]).unsqueeze(-1), master[:, 1].unsqueeze(-1)
            o, g, i, f = gates[:, 2 * self.chunks :].unflatten(-1, (4, self.chunks, -1)).unbind(1)
            overlap = admitting * forgetting
            forget = f.sigmoid() * overlap + (forgetting - overlap)
            admit = i.sigmoid() * overlap + (admitting - overlap)
            c = (forget * c.view_as(g) + admit * g.tanh()).flatten(1)
            h = o.flatten(1).sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs), (h, c)
