"""An sLSTM layer of xlstm (Beck et al. 2024), trained sparse.

pip install xlstm
python examples/with_xlstm.py
"""

import pytorch_lightning as pl
from any_trainer import WaveClassifier, waves
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_sparse_rnn import SelfishSparseCallback

try:
    from xlstm import sLSTMLayer, sLSTMLayerConfig
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}. This example needs it: pip install xlstm") from None


class ExponentialClassifier(WaveClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(1, 128)
        # "vanilla" is its backend in plain PyTorch; "cuda" compiles kernels on a GPU.
        self.rnn = sLSTMLayer(sLSTMLayerConfig(embedding_dim=128, num_heads=2, backend="vanilla", dtype="float32"))
        self.rnn.reset_parameters()

    def forward(self, signal: Tensor) -> Tensor:
        x = self.inputs(signal)
        return self.head((x + self.rnn(x))[:, -1])


if __name__ == "__main__":
    pl.seed_everything(0)
    # Its convolution has four numbers for each feature, the first and the last layer one or two: they stay dense.
    dense = ["rnn.conv1d.*", "inputs.*", "head.*"]
    sparse = SelfishSparseCallback(sparsity=0.8, exclude=dense)
    trainer = pl.Trainer(max_epochs=8, callbacks=[sparse], logger=False, enable_checkpointing=False)
    trainer.fit(
        ExponentialClassifier(), DataLoader(waves(1000, 0, 16), 50, shuffle=True), DataLoader(waves(500, 1, 16), 500)
    )
    print(f"accuracy {float(trainer.callback_metrics['val_accuracy']):.3f} at sparsity {sparse.topology.sparsity:.1%}")
    print(sparse.topology.gate_densities())
