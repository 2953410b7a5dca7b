"""Recorded training where CUDA's graphs do it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_runs import NETWORKS, QUIET, Recipe, language_model, rest_differs
from pytorch_lightning.callbacks import ModelCheckpoint
from recorded_runs import Plain, Recorded, both, same_but, tokens_and_targets

pytestmark = [*QUIET, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

GPU = {"accelerator": "gpu", "devices": 1}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_train_as_kernels_do(tmp_path: Path, name: str, precision: str) -> None:
    recipe = Recipe("text", network=NETWORKS[name], options={**GPU, "precision": precision})
    plain, recorded = both(tmp_path, recipe)
    assert len(plain.rows) == len(recorded.rows)
    for (step, kind, one), (_, _, other) in zip(plain.rows, recorded.rows, strict=True):
        assert one == pytest.approx(other, rel=0.02), (step, kind)


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_are_used_and_draw_dropout_anew(name: str) -> None:
    model = Plain.recording(language_model(network=NETWORKS[name]), True).cuda()
    batch = [part.cuda() for part in tokens_and_targets()]
    drawn = []
    for _ in range(4):
        drawn.append(model._recorder.run(model, model._train_on, (0.0, 0.0), *batch, None).loss.item())
    assert len(set(drawn)) == 4
    assert len(model._recorder._passes._recordings) == 1
    torch.cuda.manual_seed(3)
    found = model._recorder.run(model, model._train_on, (0.0, 0.0), *batch, None).loss
    torch.cuda.manual_seed(3)
    torch.testing.assert_close(found, model._train_on(*batch, None).loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    options = {**GPU, "deterministic": True}
    recipe = same_but(Recorded, Recipe("text", network=NETWORKS[name], data={"lengths": "drawn"}, options=options))
    try:
        save = ModelCheckpoint(tmp_path / "saved", filename="{step}", save_top_k=-1, every_n_train_steps=5)
        whole = recipe.run(tmp_path, save)
        for path in sorted((tmp_path / "saved").glob("*.ckpt")):
            if torch.load(path, weights_only=True, map_location="cpu")["global_step"] < whole.trainer.global_step:
                assert rest_differs(whole, recipe.run(tmp_path, ckpt_path=path)) == [], path.name
    finally:
        torch.use_deterministic_algorithms(False)
