"""Spiking recurrent networks of snntorch, trained sparse: leaky neurons with recurrent weights, and a spiking LSTM.

pip install snntorch
python examples/with_snntorch.py RLeaky
python examples/with_snntorch.py SLSTM
"""

import sys

import pytorch_lightning as pl
import torch
from any_trainer import WaveClassifier, waves
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_sparse_rnn import SelfishSparseCallback

try:
    import snntorch
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}. This example needs it: pip install snntorch") from None

UNITS = 128


class SpikingClassifier(WaveClassifier):
    """Reads a wave point by point; the class is what the spikes of the last points sum up to."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inputs = nn.Linear(1, UNITS)
        # As many inputs as units: snntorch 1.0 forgets an SLSTM's state at every step where they differ.
        self.rnn = {
            "RLeaky": lambda: snntorch.RLeaky(beta=0.8, linear_features=UNITS),
            "SLSTM": lambda: snntorch.SLSTM(UNITS, UNITS, threshold=0.1),
        }[kind]()

    def forward(self, signal: Tensor) -> Tensor:
        state = self.rnn.reset_mem()
        spikes = []
        for point in signal.unbind(1):
            spike, *state = self.rnn(self.inputs(point), *state)
            if isinstance(self.rnn, snntorch.RLeaky):
                state = [spike, *state]  # its spikes are part of its memory
            spikes.append(spike)
        return self.head(torch.stack(spikes[-16:]).mean(0))


if __name__ == "__main__":
    pl.seed_everything(0)
    sparse = SelfishSparseCallback(sparsity=0.8)
    trainer = pl.Trainer(max_epochs=8, callbacks=[sparse], logger=False, enable_checkpointing=False)
    model = SpikingClassifier(sys.argv[1] if len(sys.argv) > 1 else "RLeaky")
    trainer.fit(model, DataLoader(waves(4000, 0, 16), 50, shuffle=True), DataLoader(waves(500, 1, 16), 500))
    print(f"accuracy {float(trainer.callback_metrics['val_accuracy']):.3f} at sparsity {sparse.topology.sparsity:.1%}")
    print(sparse.topology.gate_densities())
