"""DeepAR of pytorch-forecasting, trained sparse on a ``lightning.pytorch`` Trainer.

pip install pytorch-forecasting
python examples/with_pytorch_forecasting.py
"""

import lightning.pytorch as pl
import numpy as np

from lightning_sparse_rnn import SelfishSparseCallback

try:
    import pandas as pd
    from pytorch_forecasting import DeepAR, TimeSeriesDataSet
    from pytorch_forecasting.data import NaNLabelEncoder
    from pytorch_forecasting.metrics import NormalDistributionLoss
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}. This example needs it: pip install pytorch-forecasting") from None

SERIES, LENGTH, PAST, FUTURE = 40, 120, 40, 10


def seasons() -> pd.DataFrame:
    """Waves of one period, each with a phase, a height and noise of its own."""
    random = np.random.default_rng(0)
    time, series = np.meshgrid(np.arange(LENGTH), np.arange(SERIES))
    phase, height = random.uniform(0, 6, (SERIES, 1)), random.uniform(1, 3, (SERIES, 1))
    value = height * (2 + np.sin(time / 3 + phase)) + random.normal(0, 0.1, time.shape)
    return pd.DataFrame({"time": time.ravel(), "series": series.ravel().astype(str), "value": value.ravel()})


if __name__ == "__main__":
    pl.seed_everything(0)
    table = seasons()
    training = TimeSeriesDataSet(
        table[table.time < LENGTH - FUTURE],
        time_idx="time",
        target="value",
        group_ids=["series"],
        categorical_encoders={"series": NaNLabelEncoder().fit(table.series)},
        time_varying_unknown_reals=["value"],
        max_encoder_length=PAST,
        max_prediction_length=FUTURE,
    )
    validation = TimeSeriesDataSet.from_dataset(training, table, min_prediction_idx=LENGTH - FUTURE)
    model = DeepAR.from_dataset(
        training, hidden_size=40, rnn_layers=2, learning_rate=1e-2, loss=NormalDistributionLoss()
    )
    # The projection onto the two numbers of a normal distribution stays dense.
    sparse = SelfishSparseCallback(sparsity=0.8, exclude="distribution_projector.*")
    trainer = pl.Trainer(max_epochs=6, callbacks=[sparse], logger=False, enable_checkpointing=False)
    trainer.fit(model, training.to_dataloader(True, 64), validation.to_dataloader(False, 64))
    print(f"loss {float(trainer.callback_metrics['val_loss']):.3f} at sparsity {sparse.topology.sparsity:.1%}")
    print(sparse.topology.gate_densities())
