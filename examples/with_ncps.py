"""A closed-form continuous-time network (CfC) of ncps, trained sparse.

pip install ncps
python examples/with_ncps.py
"""

import pytorch_lightning as pl
from any_trainer import WaveClassifier, waves
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_sparse_rnn import SelfishSparseCallback

try:
    from ncps.torch import CfC
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}. This example needs it: pip install ncps") from None


class ContinuousTimeClassifier(WaveClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = CfC(1, 128, return_sequences=False)

    def forward(self, signal: Tensor) -> Tensor:
        return self.head(self.rnn(signal)[0])


if __name__ == "__main__":
    pl.seed_everything(0)
    # The cell computes its gates by linear layers of their own, so weights move from gate to gate where they may move
    # over the whole model. The output layer of two classes stays dense.
    sparse = SelfishSparseCallback(sparsity=0.8, redistribution="model", exclude="head.*")
    trainer = pl.Trainer(max_epochs=8, callbacks=[sparse], logger=False, enable_checkpointing=False)
    trainer.fit(
        ContinuousTimeClassifier(), DataLoader(waves(1000, 0, 16), 50, shuffle=True), DataLoader(waves(500, 1, 16), 500)
    )
    print(f"accuracy {float(trainer.callback_metrics['val_accuracy']):.3f} at sparsity {sparse.topology.sparsity:.1%}")
    print(sparse.topology.gate_densities())
