"""The stacked LSTM of the paper on the Penn Treebank, 67 % sparse, written out in Python.

On a GPU as it is. On a CPU smaller: python examples/ptb.py --hidden 200 --lines 10000 --epochs 20 --dropout 0.3
The text is downloaded, or read from --root FOLDER (ptb.train.txt, ptb.valid.txt, ptb.test.txt).
"""

import argparse

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", help="folder with the corpus; downloaded without one")
    parser.add_argument("--lines", type=int, help="train on the first lines only")
    parser.add_argument("--hidden", type=int, default=1500)
    parser.add_argument("--dropout", type=float, default=0.65)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--sparsity", type=float, default=0.67)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()

    pl.seed_everything(given.seed)
    data = TextDataModule("ptb", given.root, batch_size=20, eval_batch_size=20, bptt=35, train_lines=given.lines)
    model = LanguageModel(
        network={
            "_target_": "lightning_sparse_rnn.models.StackedLSTM",
            "embedding_size": given.hidden,
            "hidden_size": given.hidden,
            "num_layers": 2,
            "dropout": given.dropout,
        },
        vocab_size=data.vocab_size,
        optimizer={"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 40.0, "weight_decay": 1.2e-6, "nonmono": 5},
    )
    best = ModelCheckpoint(monitor="val_loss", filename="best")
    trainer = pl.Trainer(
        max_epochs=given.epochs,
        gradient_clip_val=0.25,
        devices=1,
        default_root_dir="runs/examples/ptb",
        callbacks=[
            SelfishSparseCallback(given.sparsity, prune_rate=0.8, seed=given.seed),
            NonMonotonicAveraging("val_loss"),
            best,
        ],
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, ckpt_path=best.best_model_path)
