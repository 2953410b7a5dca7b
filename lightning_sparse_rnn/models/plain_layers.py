"""Networks in torch's own layers, for tools that look for just these."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from lightning_sparse_rnn.models.awd_lstm import WeightDropLSTM
from lightning_sparse_rnn.models.kernels.linear import Linear
from lightning_sparse_rnn.models.mixture_of_softmaxes import AWDLSTMMoS

__all__ = ["with_plain_layers"]

_Network = TypeVar("_Network", bound=nn.Module)


def with_plain_layers(network: _Network) -> _Network:
    """Return a copy for inference whose layers are torch's own where ours are made of them.

    ``torch.ao.quantization.quantize_dynamic`` and others go by the exact class of a layer, and pass over this package's
    ``Linear``, which differs in speed, and ``WeightDropLSTM``, which differs in training. The copy is in evaluation
    mode and computes the same. The decoder of a mixture of softmaxes stays as it is, since its weight is used directly;
    so do the layers of RHN and ON-LSTM, which are not torch's.

    Args:
        network: a network of this package, or a module that holds one.

    Example:
        >>> import torch
        >>> from lightning_sparse_rnn.models import AWDLSTM
        >>> plain = with_plain_layers(AWDLSTM(100, 16, 16))
        >>> small = torch.ao.quantization.quantize_dynamic(plain, {torch.nn.LSTM, torch.nn.Linear})
    """
    plain = copy.deepcopy(network).eval()
    used = {id(module.decoder) for module in plain.modules() if isinstance(module, AWDLSTMMoS)}
    changed: dict[type, type] = {Linear: nn.Linear, WeightDropLSTM: nn.LSTM}  # to the class that each derives from
    for module in plain.modules():
        if id(module) not in used:
            module.__class__ = changed.get(type(module), type(module))
    return plain
