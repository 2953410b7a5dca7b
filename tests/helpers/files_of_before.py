"""What was written before the package's modules moved to where they are now, and the command that wrote it."""

from __future__ import annotations

from pathlib import Path

BEFORE = Path(__file__).parents[1] / "integration" / "before_the_move"
# As it is today: the learning rate was sntasgd.lr then, and averaging began anew by sntasgd.restart_epochs=[2], which
# is half of four epochs. Two values have had other defaults since, `tied` and `initial_scale`.
COMMAND = [
    "data=folder",
    "data.root=text",
    "data.cache_dir=cache",
    "data.batch_size=4",
    "data.eval_batch_size=2",
    "data.bptt=10",
    "model.network.embedding_size=8",
    "model.network.hidden_size=8",
    "model.network.num_layers=1",
    "model.network.tied=false",
    "initial_scale=none",
    "optimizer.nonmono=1",
    "optimizer.lr=5.0",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
]
RESTARTS = "callbacks.averaging.restart_at=[0.5]"
