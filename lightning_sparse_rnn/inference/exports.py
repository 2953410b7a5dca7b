"""Weights and networks in the formats of other libraries."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_sparse_rnn.models.kernels.state import State
from lightning_sparse_rnn.models.network import Network
from lightning_sparse_rnn.utilities.extras import extra
from lightning_sparse_rnn.utilities.whole_files import replacing

__all__ = ["save_dense", "save_onnx", "save_safetensors"]

# Columns of the example with which a network is traced; a file takes any number.
_COLUMNS = 3


def save_dense(path: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights with their zeros, for ``torch.load(path, weights_only=True)`` and ``load_state_dict``."""
    with replacing(Path(path)) as file:
        torch.save({name: tensor.detach().cpu() for name, tensor in weights.items()}, file)


def save_safetensors(path: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights with their zeros as ``safetensors``, where each name of a tied weight has a copy.

    Raises:
        ModuleNotFoundError: there is no package ``safetensors``; the message says how to install it.
    """
    with extra("export", "The format safetensors"):
        from safetensors.torch import save
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with replacing(Path(path)) as file:
        file.write(save(copies, metadata={"format": "pt"}))


def save_onnx(path: str | Path, network: Network) -> None:
    """Write a network as ONNX, with its zeros and as float32.

    The graph reads one token in each column: it maps ``tokens`` (1, columns), int64, and ``state_0``, ``state_1``, … to
    ``log_probs`` (1, columns, vocab_size) and ``new_state_0``, …: the state in the order and shapes of the network's
    own, zeros to begin with.

    Raises:
        ModuleNotFoundError: there is no package ``onnx`` or ``onnxscript``; the message says how to install it.
    """
    with extra("export", "The format ONNX"):
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    step = _Step(network).eval()
    tokens = torch.zeros(1, _COLUMNS, dtype=torch.int64)
    with torch.no_grad():
        state = _flat(network.eval()(tokens).state)
    names = [f"state_{index}" for index in range(len(state))]
    batch = torch.export.Dim("columns")
    # Columns are the last dimension but one of every state.
    shapes = ({1: batch}, [{part.dim() - 2: batch} for part in state])
    with replacing(Path(path)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that are not needed here
        program = torch.onnx.export(
            step,
            (tokens, state),
            dynamic_shapes=shapes,
            input_names=["tokens", *names],
            output_names=["log_probs", *(f"new_{name}" for name in names)],
            dynamo=True,
            verbose=False,
        )
        file.write(program.model_proto.SerializeToString())  # type: ignore[union-attr]


class _Step(nn.Module):
    """Tokens and a state to log-probabilities and the next state, all of them tensors."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            self.form = network.eval()(torch.zeros(1, 1, dtype=torch.int64)).state

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, ...]:
        output = self.network(tokens, _formed(self.form, list(state)))
        return (self.network.log_probs(output.hidden), *_flat(output.state))


def _flat(state: State) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [part for each in state for part in _flat(each)]


def _formed(form: State, parts: list[Tensor]) -> State:
    """Tensors in the nested tuples of ``form``; takes them from the list."""
    return parts.pop(0) if isinstance(form, Tensor) else tuple(_formed(each, parts) for each in form)
