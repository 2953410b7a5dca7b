"""Folders like those that runs leave, made up: for tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_sparse_rnn.sparsity.mask_files import save_masks
from lightning_sparse_rnn.utilities.whole_files import write_csv

EPOCHS = 3


def make_run(
    folder: Path, method: str = "selfish", seed: int = 1, test_ppl: float | None = 100.0, **settings: Any
) -> Path:
    """Make a run of three epochs with a matrix of two gates; unfinished if it has no ``test_ppl``.

    Settings are given by their names in the config, with ``__`` for a dot. As in the real configs, sparse methods and
    ``small_dense`` take their sparsity from the top level if they are given none. Dense methods have no topology.
    """
    sparse = "dense" not in method
    sparsity = settings.get("sparsity", 0.5)
    config: dict[str, Any] = {
        "seed": seed,
        "sparsity": sparsity,
        "chosen": {"method": method},
        "data": {"source": "ptb", "train_lines": None, "root": "somewhere", "seed": seed},
        "method": {"sparsity": sparsity if sparse else 0.0},
    }
    if sparse:
        config["method"]["seed"] = seed
    if method == "small_dense":
        config["method"]["weights_of_sparsity"] = sparsity
    for name, value in settings.items():
        *groups, key = name.split("__")
        at = config
        for group in groups:
            at = at.setdefault(group, {})
        at[key] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    # The trigger fires in the validation of epoch 1, so that the first to see averaged weights is that of epoch 2.
    rows = [
        {"epoch": epoch, "train_ppl": 200 - 40 * epoch, "val_ppl": 150 - 10 * epoch, "averaging": int(epoch > 1)}
        for epoch in range(EPOCHS)
    ]
    write_csv(folder / "metrics.csv", ("epoch", "train_ppl", "val_ppl", "averaging"), rows)
    if sparse:
        make_topology(folder, seed)
    if test_ppl is not None:
        costs = {"inference_flops": 0.5, "training_flops": 0.6, "explored": 0.75, "turnover": 0.25}
        results = {
            "test_ppl": test_ppl,
            "val_ppl": test_ppl + 1,
            "unigram_ppl": 400.0,
            "sparsity": config["method"].get("sparsity", 0.5 if sparse else 0.0),
            "live_weights": 24 if sparse else 48,
            "epochs": EPOCHS,
            "seconds": 9.0,
            "averaging_began_epoch": 1,
            "accounting": costs if sparse else None,
        }
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


def make_topology(folder: Path, seed: int) -> None:
    """A word matrix of 4 × 4 that stays half live, and a recurrent one of 2 × 4 rows whose gates trade weights."""
    rows = []
    for epoch in range(EPOCHS):
        for tensor, gate, live in (
            ("network.embedding.weight", "all", 8),
            ("network.rnn.weight_hh_l0", "input", 8 + epoch),
            ("network.rnn.weight_hh_l0", "cell", 8 - epoch),
        ):
            moved = {"pruned": 2 if epoch else 0, "regrown": 2 if epoch else 0}
            row = {"update": epoch, "epoch": epoch, "tensor": tensor, "gate": gate, "total": 16, "live": live}
            rows.append({**row, **moved})
    write_csv(folder / "topology.csv", tuple(rows[0]), rows)
    (folder / "masks").mkdir()
    for epoch in range(EPOCHS):
        generator = torch.Generator().manual_seed(100 * seed + epoch)
        masks = {
            "network.embedding.weight": torch.rand(4, 4, generator=generator) < 0.5,
            "network.rnn.weight_hh_l0": torch.rand(8, 4, generator=generator) < 0.5,
        }
        save_masks(folder / "masks" / f"{epoch:04d}.npz", masks)
