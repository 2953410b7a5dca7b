"""What a topology would cost on hardware that skips zeros, and how much of the space of topologies a run has seen.

Masked training on today's hardware multiplies by zeros at full price: these are counts, not times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["account", "uses_per_token"]

Counts = Mapping[str, Mapping[str, int]]


def uses_per_token(module: nn.Module) -> dict[Tensor, float]:
    """Return how often each weight of two or more dimensions is multiplied with for one token.

    Once, unless its module is an ``nn.Embedding``, whose rows are looked up, or declares otherwise with a method
    ``uses_per_token`` that returns numbers by the names of its parameters below it. A tied weight counts under each of
    its names: as a decoder, once; as an embedding, not at all.
    """
    uses: dict[Tensor, float] = {}
    declared: dict[str, float] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        declare = getattr(owner, "uses_per_token", None)
        if callable(declare):
            declared.update({f"{prefix}.{name}".lstrip("."): number for name, number in declare().items()})
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.dim() >= 2:
                usual = 0.0 if isinstance(owner, nn.Embedding) else 1.0
                number = declared.get(f"{prefix}.{name}".lstrip("."), usual)
                uses[parameter] = uses.get(parameter, 0.0) + number
    return uses


def account(
    updates: Sequence[Mapping[str, Any]], sizes: Counts, uses: Mapping[str, float], steps: int, gradients: str
) -> dict[str, float]:
    """Return a run's cost relative to the dense network's, and what its topology went through.

    With ``a_w`` the uses of tensor ``w`` per token and ``n_w`` its live of ``N_w`` weights, a pass costs
    ``f_S = Σ a_w·n_w`` multiplications sparse and ``f_D = Σ a_w·N_w`` dense, biases and norms left out. Inference is
    one pass. A training step is three: forward, gradient of the activations, gradient of the weights; the last is
    dense wherever rules look at dense gradients:

        (3·f_S) / (3·f_D)          of a step without them
        (2·f_S + f_D) / (3·f_D)    of a step with them (Evci et al. 2020, appendix H, take one such step an update)

    Args:
        updates: a run's topologies in order, as in ``SelfishSparseCallback.updates``: the ``step`` each begins at, and
            ``live``, ``regrown`` and ``explored`` weights by tensor and gate.
        sizes: all positions by tensor and gate.
        uses: by tensor, of :func:`uses_per_token`.
        steps: optimizer steps of the whole run.
        gradients: the steps that need dense gradients: ``"never"``, at ``"updates"``, or ``"always"``.

    Returns:
        ``inference_flops`` of the last topology and mean ``training_flops``, both relative to dense; ``explored``, the
        share of positions ever live (R_s of Liu et al. 2021, "Do We Actually Need Dense Over-Parameterization?"); and
        ``turnover``, the mean share of live weights that an update replaced.
    """
    dense = _passes(sizes, uses)
    begins = [update["step"] for update in updates]
    cost = 0.0
    for update, begin, end in zip(updates, begins, [*begins[1:], steps], strict=True):
        sparse = _passes(update["live"], uses)
        looks = {"never": 0, "updates": int(update["update"] > 0), "always": end - begin}[gradients]
        cost += 3 * sparse * (end - begin) + min(looks, end - begin) * (dense - sparse)
    moved = [_total(update["regrown"]) / max(1, _total(update["live"])) for update in updates[1:]]
    return {
        "inference_flops": _passes(updates[-1]["live"], uses) / dense,
        "training_flops": cost / (3 * dense * max(1, steps - begins[0])),
        "explored": _total(updates[-1]["explored"]) / _total(sizes),
        "turnover": sum(moved) / max(1, len(moved)),
    }


def _passes(counts: Counts, uses: Mapping[str, float]) -> float:
    return sum(uses[name] * sum(gates.values()) for name, gates in counts.items())


def _total(counts: Counts) -> int:
    return sum(count for gates in counts.values() for count in gates.values())
