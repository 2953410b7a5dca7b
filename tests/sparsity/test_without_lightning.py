"""The method on tensors needs torch alone."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics", "hydra"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import torch
from lightning_sparse_rnn import SNTASGD, SparseTopology, load_sparse, save_sparse
import lightning_sparse_rnn.optim.masked
from lightning_sparse_rnn.sparsity import PruneRate, TopologyOptions

layer = torch.nn.LSTM(4, 4)
topology = SparseTopology(layer, 0.5)
optimizer = SNTASGD(layer.parameters(), lr=1.0)
optimizer.set_masks(topology.masks, topology.update(PruneRate(0.5, 0.1, "cosine").at(0.5)).born)
save_sparse(sys.argv[1], layer.state_dict())
layer.load_state_dict(load_sparse(sys.argv[1]))
print(topology.live_weights)
"""


def test_with_lightning_blocked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "weights")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "64"
