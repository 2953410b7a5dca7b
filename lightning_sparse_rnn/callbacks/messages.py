"""What a run says of its topology: at its start, at every update, and at its end."""

from __future__ import annotations

from dataclasses import fields

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from lightning_sparse_rnn.sparsity.history import TopologyUpdate
from lightning_sparse_rnn.sparsity.options import TopologyOptions
from lightning_sparse_rnn.sparsity.topology import SparseTopology
from lightning_sparse_rnn.utilities.trainer_state import logging_step

__all__ = ["described", "log_sparsity", "log_update", "start_table", "tell_end"]

_ROWS = 30


def start_table(topology: SparseTopology, module: nn.Module) -> str:
    """Return a table of the sparse tensors with their gates, live and all weights, and a line of what stays dense."""
    sizes, live = topology.gate_sizes, topology.live_per_gate()
    rows = [
        (name, ", ".join(gate for gate in gates if gate != "all"), sum(live[name].values()), sum(gates.values()))
        for name, gates in sizes.items()
    ]
    total = ("all sparse tensors", "", topology.live_weights, topology.total_weights)
    wide = max(len(name) for name, *_ in [*rows, total])
    shown = [*rows[:_ROWS], total]
    numbers = max(len(f"{size:,}") for *_, size in shown)
    lines = [
        f"  {name:{wide}}  {count:>{numbers},} of {size:>{numbers},} ({count / size:6.1%})  {gates}".rstrip()
        for name, gates, count, size in shown
    ]
    if len(rows) > _ROWS:
        lines.insert(_ROWS, f"  ... and {len(rows) - _ROWS} more")
    masked = set(topology.parameters.values())
    dense = [name for name, parameter in module.named_parameters() if parameter not in masked]
    if dense:
        count = sum(p.numel() for p in module.parameters() if p not in masked)
        more = f" and {len(dense) - 6} more" if len(dense) > 6 else ""
        lines.append(f"  dense, {count:,} weights: {', '.join(dense[:6])}{more}")
    return "\n".join(["Sparse training, live weights:", *lines])


def described(options: TopologyOptions, initial_sparsity: float | None) -> str:
    """Return options as arguments: the sparsity, and those that are not what they are by default."""
    own = {field.name: (getattr(options, field.name), field.default) for field in fields(options)}
    said = {name: value for name, (value, default) in own.items() if name == "sparsity" or value != default}
    if initial_sparsity is not None:
        said["initial_sparsity"] = initial_sparsity
    return ", ".join(f"{name}={value!r}" for name, value in said.items())


def log_update(trainer: Trainer, topology: SparseTopology, update: TopologyUpdate) -> None:
    """Log an update to the run's loggers directly: at its step, with exact counts."""
    metrics: dict[str, float] = {
        "epoch": trainer.current_epoch,
        "sparsity/prune_rate": update.rate,
        "sparsity/live_weights": topology.live_weights,
        "sparsity/share_replaced": update.replaced,
    }
    for tensor, gates in topology.gate_densities().items():
        metrics.update({f"density/{tensor}/{gate}": density for gate, density in gates.items()})
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=logging_step(trainer))


def log_sparsity(trainer: Trainer, topology: SparseTopology) -> None:
    """Log at an epoch's end, as Lightning at its last step, how sparse all sparse tensors together are."""
    # Not `sparsity`: trackers that keep metrics as files refuse one that is also the folder of others.
    metrics = {"epoch": trainer.current_epoch, "sparsity/overall": topology.sparsity}
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=max(0, logging_step(trainer) - 1))


def tell_end(topology: SparseTopology, aim: float | None, moved: bool) -> None:
    """Warn of a run that ends short of its sparsity, and say it of one whose topology never moved though it was to.

    Args:
        topology: as it is at the end.
        aim: the sparsity that was not reached, if so.
        moved: whether there were updates, or none was to be.
    """
    if aim is not None:
        rank_zero_warn(
            f"Training ended at sparsity {topology.sparsity:.4g}, short of the {aim:g} asked for: it ended earlier "
            "than its limits said, or had too few updates. Train on from its last checkpoint, give the Trainer the "
            "limit at which it will end, or lower `sparsity_reached_at`."
        )
    elif not moved:
        rank_zero_info(
            "The topology was never updated: training ended before the first update was due, and after the last "
            "epoch there is none. Train for more epochs, or set `update_every_n_steps` to update within them."
        )
