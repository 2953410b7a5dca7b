"""A speech-command GRU, trained with 90 % of its weights zero, compressed, and run frame by frame as sound comes in.

Commands are made up: each is a path through 40 frequency bands, in noise. Prints the accuracy, and latency and memory
before and after compression. Takes less than a minute on one CPU core.
"""

import statistics
import time

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse_rnn.callbacks.selfish_sparse import SelfishSparseCallback
from lightning_sparse_rnn.inference import compress
from lightning_sparse_rnn.inference.compression import held_bytes

BANDS, FRAMES, COMMANDS, HIDDEN = 40, 30, 8, 640


class Commands(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(BANDS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, COMMANDS)

    def forward(self, frames: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, state = self.rnn(frames, state)
        return self.head(outputs[:, -1]), state

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0])[0], batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def spoken(count: int, seed: int) -> TensorDataset:
    """Commands differ in where their tone begins and how fast it rises or falls."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(COMMANDS, (count,), generator=generator)
    begin, slope = 8.0 + 8 * (labels % 4), torch.where(labels < 4, 0.3, -0.3)
    tone = begin[:, None] + slope[:, None] * torch.arange(float(FRAMES))
    frames = torch.exp(-((torch.arange(float(BANDS)) - tone.unsqueeze(2)) ** 2) / 4)
    return TensorDataset(frames + 0.5 * torch.randn(frames.shape, generator=generator), labels)


@torch.inference_mode()
def stream(model: nn.Module, data: TensorDataset) -> tuple[float, float]:
    """Accuracy after each command's last frame, and the median time of a frame in milliseconds."""
    right, times = 0, []
    for frames, label in data:
        state = None
        for frame in frames:
            start = time.perf_counter()
            scores, state = model(frame[None, None], state)
            times.append(time.perf_counter() - start)
        right += int(scores.argmax() == label)
    return right / len(data), 1e3 * statistics.median(times)


if __name__ == "__main__":
    pl.seed_everything(0)
    torch.set_num_threads(1)
    sparse = SelfishSparseCallback(sparsity=0.9)
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=[sparse], logger=False, enable_checkpointing=False)
    model = Commands()
    trainer.fit(model, DataLoader(spoken(800, 0), 25, shuffle=True))
    print(f"trained at sparsity {sparse.topology.sparsity:.1%}")
    for name, each in {"dense": model.eval(), "compressed": compress(model)}.items():
        accuracy, latency = stream(each, spoken(40, 1))
        print(f"{name}: accuracy {accuracy:.3f}, {latency:.3f} ms a frame, {held_bytes(each) / 1e6:.2f} MB of weights")
