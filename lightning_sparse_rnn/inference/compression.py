"""Modules whose weights are packed, ready to run on a CPU."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.inference.build import kernel
from lightning_sparse_rnn.inference.layers import PackedEmbedding, PackedLayer, PackedLinear
from lightning_sparse_rnn.inference.networks import PackedHighwayLayer, PackedOrderedNeuronsLayer
from lightning_sparse_rnn.inference.operators import KINDS
from lightning_sparse_rnn.inference.packing import Packed, pack, sparse_enough, worth_packing
from lightning_sparse_rnn.inference.recurrent import PackedCell, PackedRecurrent
from lightning_sparse_rnn.models.awd_lstm import WeightDropLSTM
from lightning_sparse_rnn.models.highway import HighwayLayer
from lightning_sparse_rnn.models.kernels.linear import Linear
from lightning_sparse_rnn.models.ordered_neurons import OrderedNeuronsLayer
from lightning_sparse_rnn.utilities.finite import NotFiniteError

__all__ = ["REPLACED", "compress", "compress_where_it_pays", "held_bytes", "replaced"]

Module = TypeVar("Module", bound=nn.Module)
#: What stands in for a layer of exactly this type; a subclass may do something else with its weights.
REPLACED: dict[type[nn.Module], type[PackedLayer]] = {
    nn.Linear: PackedLinear,
    Linear: PackedLinear,
    nn.Embedding: PackedEmbedding,
    nn.LSTM: PackedRecurrent,
    nn.GRU: PackedRecurrent,
    nn.RNN: PackedRecurrent,
    WeightDropLSTM: PackedRecurrent,
    nn.LSTMCell: PackedCell,
    nn.GRUCell: PackedCell,
    nn.RNNCell: PackedCell,
    HighwayLayer: PackedHighwayLayer,
    OrderedNeuronsLayer: PackedOrderedNeuronsLayer,
}


def compress(module: Module, dtype: torch.dtype | None = None, smallest: int | None = None) -> Module:
    """Return a copy of ``module`` that keeps its sparse weights packed and runs faster on a CPU.

    It is called as the module is, in evaluation mode and without gradients, and gives what the module gives: float32
    sums in another order, embeddings exactly. Packed are the weights of `nn.Linear`, `nn.Embedding`, `nn.LSTM`,
    `nn.GRU`, `nn.RNN`, their cells, and the layers of this package's networks, of which at least 40 % are zero; all
    else stays as it is, and so does ``module``. Layers of other types, with hooks, with a ``forward`` of their own, or
    with parametrizations stay dense. A tied weight is packed once.

    A packed weight takes one bit per position and its values: of float32 at density d, d + 1/32 of the dense bytes, of
    bfloat16 d/2 + 1/32, and of int8 d/4 + 1/32.

    Args:
        module: of float32 weights on the CPU.
        dtype: of the packed values; ``None`` keeps float32. ``torch.bfloat16`` rounds them to the nearest, and
            ``torch.int8`` to multiples of each row's largest magnitude / 127. Products and sums are of float32.
        smallest: weights of fewer positions stay dense. If not given, so do those of fewer than 524,288 positions
            (262,144 in `nn.LSTM`, `nn.GRU` and `nn.RNN`), 512 rows or 32 columns: their products are as fast dense, and
            packing them saves memory alone.

    Warns:
        UserWarning: all sparse weights are so small that nothing is packed.

    Raises:
        TypeError: ``module`` is no module, or of another dtype or device.
        ValueError: ``dtype`` is another one, no weight has zeros enough, or one that is to be packed has NaN or
            infinities.

    Example:
        >>> layer = nn.Linear(600, 900)
        >>> with torch.no_grad():
        ...     _ = layer.weight.mul_(torch.rand(900, 600) < 0.1)
        >>> x = torch.rand(4, 600)
        >>> with torch.no_grad():
        ...     torch.allclose(compress(layer)(x), layer(x), atol=1e-5)
        True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Expected a torch.nn.Module, got {type(module).__name__}.")
    dtype = dtype or torch.float32
    if dtype not in KINDS:
        known = ", ".join(map(str, KINDS))
        raise ValueError(f"Expected `dtype` to be one of {known}, got {dtype}.")
    if any(isinstance(part, PackedLayer) for part in module.modules()):
        raise ValueError("Expected a module of dense weights, got one that is compressed. Compress the original again.")
    _check_kind(module)
    weights = _worth_packing(module, smallest)
    if not weights:
        _nothing_to_pack(module)
    return replaced(module, _packed(weights, dtype))


def compress_where_it_pays(module: Module) -> Module:
    """Return ``module`` compressed, or as it is where that is not possible or saves nothing."""
    if kernel() is None or any(p.device.type != "cpu" or p.dtype != torch.float32 for p in module.parameters()):
        return module
    weights = _worth_packing(module)
    try:
        return replaced(module, _packed(weights, torch.float32)) if weights else module
    except NotFiniteError:  # of a run that has diverged
        return module


def replaced(module: Module, packed: Mapping[str, Packed]) -> Module:
    """Return a copy of ``module`` with weights by their names replaced by packed ones.

    Where there is no kernel, the copy has them as dense weights.
    """
    if kernel() is None:
        dense = copy.deepcopy(module)
        with torch.no_grad():
            for name, weight in packed.items():
                dense.get_parameter(name).copy_(weight.dense())
        return dense.eval().requires_grad_(False)
    stand_ins: dict[int, Any] = {}
    for path, layer in _replaceable(module):
        own = {name: packed[path + name] for name in layer._parameters if path + name in packed}
        if own and id(layer) not in stand_ins:  # one layer may have several names
            stand_ins[id(layer)] = REPLACED[type(layer)](layer, own)
    # To deepcopy the layers are copied already, by their stand-ins: their dense weights are not copied.
    result: Module = stand_ins.get(id(module)) or copy.deepcopy(module, stand_ins)
    return result.eval().requires_grad_(False)


def held_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared ones counted once, and of the CSR matrices made of them."""
    tensors = [*module.parameters(), *module.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) + sum(part.csr_bytes for part in module.modules() if isinstance(part, Packed))


def _replaceable(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers that can be replaced, with what their parameters' names begin with."""
    return [
        (f"{path}." if path else "", layer)
        for path, layer in module.named_modules(remove_duplicate=False)
        if type(layer) in REPLACED
        and getattr(layer, "max_norm", None) is None  # of embeddings: reading rows changes them
        and not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))
    ]


def _packable(module: nn.Module) -> dict[str, Tensor]:
    """Matrices of the layers that can be replaced, by name; a tied one under each."""
    return {path + name: weight for path, layer in _replaceable(module) for name, weight in _matrices(layer)}


def _matrices(layer: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, each) for name, each in layer._parameters.items() if each is not None and each.dim() == 2]


def _worth_packing(module: nn.Module, smallest: int | None = None) -> dict[str, Tensor]:
    """Those that are to be packed, by name: of at least so many positions, or as large as each layer asks for."""

    def worth(layer: nn.Module, weight: Tensor) -> bool:
        if smallest is None:
            return worth_packing(weight, REPLACED[type(layer)].smallest)
        return weight.numel() >= smallest and sparse_enough(weight)

    return {
        path + name: weight
        for path, layer in _replaceable(module)
        for name, weight in _matrices(layer)
        if worth(layer, weight)
    }


def _packed(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Packed]:
    """Weights by name, a tied one packed once.

    Raises:
        NotFiniteError: one has NaN or infinities.
    """
    made = {id(weight): weight for weight in weights.values()}
    names = {id(weight): name for name, weight in reversed(weights.items())}
    packed = {key: pack(weight, dtype, names[key]) for key, weight in made.items()}
    return {name: packed[id(weight)] for name, weight in weights.items()}


def _check_kind(module: nn.Module) -> None:
    for name, weight in _packable(module).items():
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            raise TypeError(
                f"Expected weights of torch.float32 on the CPU, got {name} of {weight.dtype} on {weight.device}. Call "
                "`module.float().cpu()` first; for values of lower precision give `dtype`."
            )


def _nothing_to_pack(module: nn.Module) -> None:
    """Say why: in a warning where sparse weights are too small, since the module is as fast as it can be.

    Raises:
        ValueError: no weight has zeros enough.
    """
    weights = _packable(module)
    if not weights:
        raise ValueError("Expected a module with sparse weights, got one with no layer whose weights can be packed.")
    sparse = {name: weight for name, weight in weights.items() if sparse_enough(weight)}
    if not sparse:
        shares = [torch.count_nonzero(weight).item() / max(1, weight.numel()) for weight in weights.values()]
        least, most = f"{min(shares):.0%}", f"{max(shares):.0%}"
        live = least if least == most else f"{least} to {most}"
        raise ValueError(
            f"Expected a module with sparse weights, got one in which {live} of each of {len(shares)} weights are not "
            "zero. Weights are packed if at least 40 % are zeros."
        )
    largest = max(sparse, key=lambda name: sparse[name].numel())
    rows, columns = sparse[largest].shape
    warnings.warn(
        f"Nothing is packed, since products with small weights are as fast dense, and the largest sparse one, "
        f"{largest}, is {rows:,} × {columns:,}. To save memory alone, call `compress` with smallest=1.",
        stacklevel=3,
    )
