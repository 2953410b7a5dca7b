"""Layers with packed weights, in place of torch's `Linear` and `Embedding`, and what all such layers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sparse_rnn.inference.packing import SMALLEST, Packed, PackedRows
from lightning_sparse_rnn.models.kernels.linear import linear

__all__ = ["PackedEmbedding", "PackedLayer", "PackedLinear", "dense", "product"]


class PackedLayer(nn.Module):
    """A layer that evaluates what another one was trained to do, with some of its weights packed.

    Its attributes are those of the other layer. Reading a packed weight by its name gives a new dense tensor.

    Args:
        layer: what it stands for. Parameters that are not packed are copied.
        packed: packed weights by the names of the layer's parameters.
    """

    #: Attributes of the other layer that are taken over.
    options: tuple[str, ...] = ()
    #: How many positions a weight must have to be packed, if nothing else is asked for.
    smallest = SMALLEST
    packed: nn.ModuleDict

    def __init__(self, layer: nn.Module, packed: Mapping[str, Packed]) -> None:
        super().__init__()
        for name in self.options:
            setattr(self, name, getattr(layer, name))
        for name, parameter in layer.named_parameters(recurse=False):
            if name not in packed:
                self.register_parameter(name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
        for name, maybe in layer._parameters.items():
            if maybe is None:
                self.register_parameter(name, None)
        self.packed = nn.ModuleDict(packed)
        self.eval()

    def weight_of(self, name: str) -> Packed | Tensor:
        """A weight by its name, packed if it is."""
        return self.packed[name] if name in self.packed else self._parameters[name]  # type: ignore[return-value]

    def check_input(self, x: Tensor, integers: bool = False) -> None:
        """Refuse what packed weights cannot do.

        Raises:
            RuntimeError: in training mode, or where a gradient would be needed.
            TypeError: the input is not of float32 (or of integers) on the CPU.
        """
        if self.training:
            raise RuntimeError(
                "Expected a module with packed weights in evaluation mode, got one in training mode. Call `.eval()`; "
                "to train, take the module that was compressed."
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "Expected an input without gradients, since packed weights compute none, got one that requires them. "
                "Use `torch.no_grad()` or `torch.inference_mode()`; for gradients take the module that was compressed."
            )
        right = not x.is_floating_point() if integers else x.dtype == torch.float32
        if not right or x.device.type != "cpu":
            kind = "integers" if integers else "torch.float32"
            raise TypeError(f"Expected an input of {kind} on the CPU, got {x.dtype} on {x.device}.")

    def __getattr__(self, name: str) -> Any:
        packed = self.__dict__.get("_modules", {}).get("packed")
        if packed is not None and name in packed:
            return packed[name].dense()
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        packed = self.__dict__.get("_modules", {}).get("packed")
        if packed is not None and name in packed:
            raise AttributeError(
                f"Expected the packed weight {name!r} to stay as it is. Change the module that was compressed, and "
                "call `compress` again."
            )
        super().__setattr__(name, value)


def product(x: Tensor, weight: Packed | Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x·weightᵀ + bias, in x's dtype under autocast too."""
    return weight.linear(x, bias) if isinstance(weight, Packed) else linear(x, weight, bias).to(x.dtype)


def dense(weight: Packed | Tensor) -> Tensor:
    """Return the weight with its zeros."""
    return weight.dense() if isinstance(weight, Packed) else weight


class PackedLinear(PackedLayer):
    """`torch.nn.Linear` with a packed weight."""

    options = ("in_features", "out_features")
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` (..., in_features) to (..., out_features)."""
        self.check_input(x)
        return product(x, self.weight_of("weight"), self.bias)

    def some_rows(self) -> PackedRows:
        """The weight's rows, for losses that take some of them at a time."""
        weight = self.weight_of("weight")
        assert isinstance(weight, Packed)  # else it would not be a layer of this kind
        return weight.some_rows()


class PackedEmbedding(PackedLayer):
    """`torch.nn.Embedding` with a packed weight."""

    options = (
        "num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"
    )  # fmt: skip

    def forward(self, indices: Tensor) -> Tensor:
        """Rows of the weight, (..., embedding_dim), for ``indices`` (...)."""
        self.check_input(indices, integers=True)
        weight = self.weight_of("weight")
        return weight.rows(indices) if isinstance(weight, Packed) else F.embedding(indices, weight)
