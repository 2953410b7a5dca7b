"""Selfish, static and dense training side by side on WikiText-2, with the same settings and seed.

On a CPU small: python examples/wikitext2.py --hidden 100 --lines 4000 --epochs 6
The text is downloaded, or read from --root FOLDER (train.txt, valid.txt, test.txt).
"""

import argparse

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_sparse_rnn import NonMonotonicAveraging, SelfishSparseCallback
from lightning_sparse_rnn.data import TextDataModule
from lightning_sparse_rnn.models import LanguageModel

METHODS = {
    "selfish": lambda: [SelfishSparseCallback(sparsity=0.67, prune_rate=0.8)],
    "static": lambda: [SelfishSparseCallback(sparsity=0.67, update_every_n_epochs=None)],
    "dense": list,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", help="folder with the corpus; downloaded without one")
    parser.add_argument("--lines", type=int, help="train on the first lines only")
    parser.add_argument("--hidden", type=int, default=650)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()

    data = TextDataModule("wikitext-2", given.root, train_lines=given.lines)
    size = {"embedding_size": given.hidden, "hidden_size": given.hidden, "dropout": 0.5, "tied": True}
    perplexity = {}
    for method, sparse in METHODS.items():
        pl.seed_everything(1)
        model = LanguageModel(
            network={"_target_": "lightning_sparse_rnn.models.StackedLSTM", **size},
            vocab_size=data.vocab_size,
            optimizer={"_target_": "lightning_sparse_rnn.SNTASGD", "lr": 20.0, "weight_decay": 1.2e-6},
        )
        best = ModelCheckpoint(monitor="val_loss", filename="best")
        trainer = pl.Trainer(
            max_epochs=given.epochs,
            gradient_clip_val=0.25,
            devices=1,
            default_root_dir=f"runs/examples/wikitext2/{method}",
            callbacks=[*sparse(), NonMonotonicAveraging("val_loss"), best],
        )
        trainer.fit(model, datamodule=data)
        (results,) = trainer.test(model, datamodule=data, ckpt_path=best.best_model_path)
        perplexity[method] = round(results["test_ppl"], 2)
    print(perplexity)
