"""What a run says of its topology when it starts."""

from __future__ import annotations

from torch import nn

from lightning_sparse_rnn.sparsity.topology import SparseTopology

__all__ = ["start_table"]

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
