"""The networks, one cell at a time and with nothing but autograd: slow, obvious, and what the fast ones must equal.

Each is the fast network with one method written out, so that weights and dropout masks can be shared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sparse_rnn.models import AWDLSTMMoS, OrderedNeuronsLSTM, RecurrentHighwayNetwork
from lightning_sparse_rnn.models.dropout import locked_mask
from lightning_sparse_rnn.models.highway import HighwayLayer
from lightning_sparse_rnn.models.ordered_neurons import OrderedNeuronsLayer


class PlainHighwayLayer(HighwayLayer):
    def forward(self, x, state=None):
        s = x.new_zeros(x.size(1), self.hidden_size) if state is None else state
        mask = locked_mask(s[None], self.dropout) if self.training and self.dropout else torch.ones_like(s)
        states = []
        for x_t in x:
            for d in range(self.depth):
                gates = F.linear(s * mask, getattr(self, f"weight_hh_d{d}"), getattr(self, f"bias_d{d}"))
                if d == 0:
                    gates = gates + F.linear(x_t, self.weight_ih)
                if self.coupled:
                    h, t = gates.chunk(2, dim=-1)
                    s = torch.tanh(h) * torch.sigmoid(t) + s * (1 - torch.sigmoid(t))
                else:
                    h, t, c = gates.chunk(3, dim=-1)
                    s = torch.tanh(h) * torch.sigmoid(t) + s * torch.sigmoid(c)
            states.append(s)
        return torch.stack(states), s


class PlainHighwayNetwork(RecurrentHighwayNetwork):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.layer.__class__ = PlainHighwayLayer


def cumax(x: Tensor) -> Tensor:
    return torch.softmax(x, dim=-1).cumsum(dim=-1)


class PlainOrderedNeuronsLayer(OrderedNeuronsLayer):
    def forward(self, x, state=None):
        zeros = x.new_zeros(x.size(1), self.hidden_size)
        h, c = (zeros, zeros) if state is None else state
        weight = F.dropout(self.weight_hh, self.weight_drop, self.training)
        neurons = self.hidden_size // self.chunks
        outputs = []
        for x_t in x:
            gates = F.linear(x_t, self.weight_ih, self.bias_ih) + F.linear(h, weight, self.bias_hh)
            master_in, master_forget, rest = gates.split([self.chunks, self.chunks, 4 * self.hidden_size], dim=-1)
            o, g, i, f = rest.chunk(4, dim=-1)
            master_in = (1 - cumax(master_in)).repeat_interleave(neurons, dim=-1)
            master_forget = cumax(master_forget).repeat_interleave(neurons, dim=-1)
            overlap = master_in * master_forget
            forget = torch.sigmoid(f) * overlap + (master_forget - overlap)
            admit = torch.sigmoid(i) * overlap + (master_in - overlap)
            c = forget * c + admit * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs), (h, c)


class PlainOrderedNeuronsLSTM(OrderedNeuronsLSTM):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for layer in self.layers:
            layer.__class__ = PlainOrderedNeuronsLayer


class PlainMoS(AWDLSTMMoS):
    def loss(self, hidden, targets):
        return F.nll_loss(self.log_probs(hidden).flatten(0, -2), targets.flatten())

    def log_probs(self, hidden):
        latent, log_prior = self._experts(hidden)
        softmaxes = torch.softmax(self.decoder(latent), dim=-1)
        return (log_prior.exp().unsqueeze(-1) * softmaxes).sum(dim=-2).log()
