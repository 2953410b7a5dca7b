"""What rules choose by: the weights of a topology, and what else they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_sparse_rnn.utilities.finite import first_not_finite

__all__ = ["Quantities", "check_gradients", "flattened"]


@dataclass(frozen=True)
class Quantities:
    """Tensors by parameter name, each flattened; ``None`` where no rule has asked for them.

    Attributes:
        weights: the present values of all weights.
        gradients: the dense gradients of the step that an update stands at.
        momenta: the running means of the dense gradients of all steps.
        signs: for each weight, the sign it was given when it was born; true is positive.

    An allocation that needs some of them gets this object:

    >>> from lightning_sparse_rnn.sparsity import SparseTopology, needs
    >>> @needs("weights")
    ... def positive(given: Quantities, density: float) -> dict[str, Tensor]:
    ...     return {name: weights > 0 for name, weights in given.weights.items()}
    >>> layer = nn.Linear(2, 1)
    >>> _ = nn.init.constant_(layer.weight, 1.0)
    >>> SparseTopology(layer, allocation=positive).live_weights
    2
    """

    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] | None = None
    momenta: Mapping[str, Tensor] | None = None
    signs: Mapping[str, Tensor] | None = None


def flattened(quantity: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors``, each flattened.

    Raises:
        FloatingPointError: one of them has a value that is NaN or infinite.
    """
    flat = {name: tensor.detach().flatten() for name, tensor in tensors.items()}
    name = first_not_finite(flat)
    if name is not None:
        raise FloatingPointError(
            f"Parameter {name!r} has {quantity} that are NaN or infinite. Training has diverged: lower the "
            "learning rate or clip gradients, and go on from the last good checkpoint."
        )
    return flat


def check_gradients(
    parameters: Mapping[str, nn.Parameter], gradients: Mapping[Tensor, Tensor] | None
) -> dict[str, Tensor]:
    """Return the gradient of each parameter, by name.

    Raises:
        ValueError: a parameter has none, or one of another shape.
    """
    given = gradients or {}
    if missing := [name for name, parameter in parameters.items() if parameter not in given]:
        raise ValueError(f"The rules of this topology look at gradients, and these have none: {', '.join(missing)}.")
    found = {name: given[parameter] for name, parameter in parameters.items()}
    if wrong := [name for name, parameter in parameters.items() if found[name].shape != parameter.shape]:
        raise ValueError(f"Expected gradients of their parameters' shapes, got others for {', '.join(wrong)}.")
    return found
