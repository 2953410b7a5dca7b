"""A minGRU (Feng et al. 2024) of minGRU-pytorch, trained sparse; its gates are given by the name of their weight.

pip install minGRU-pytorch
python examples/with_mingru.py
"""

import pytorch_lightning as pl
from any_trainer import WaveClassifier, waves
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_sparse_rnn import SelfishSparseCallback

try:
    from minGRU_pytorch import minGRU
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}. This example needs it: pip install minGRU-pytorch") from None


class MinimalClassifier(WaveClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(1, 128)
        self.rnn = nn.ModuleList([minGRU(128), minGRU(128)])

    def forward(self, signal: Tensor) -> Tensor:
        x = self.inputs(signal)
        for layer in self.rnn:
            x = x + layer(x)
        return self.head(x[:, -1])


if __name__ == "__main__":
    pl.seed_everything(0)
    # One linear layer computes the candidate and the gate: rows above, rows below. With their names the topology counts
    # each, and `redistribution="none"` could keep each count. Weights may move between the two by default.
    gates = {"rnn.*.to_hidden_and_gate.weight": ["hidden", "gate"]}
    sparse = SelfishSparseCallback(sparsity=0.8, gates=gates, exclude=["inputs.*", "head.*"])
    trainer = pl.Trainer(max_epochs=8, callbacks=[sparse], logger=False, enable_checkpointing=False)
    trainer.fit(
        MinimalClassifier(), DataLoader(waves(1000, 0, 16), 50, shuffle=True), DataLoader(waves(500, 1, 16), 500)
    )
    print(f"accuracy {float(trainer.callback_metrics['val_accuracy']):.3f} at sparsity {sparse.topology.sparsity:.1%}")
    print(sparse.topology.gate_densities())
