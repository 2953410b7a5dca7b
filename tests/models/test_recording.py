"""Recorded training is training, bit for bit, and what cannot be recorded is trained all the same.

On a machine without a GPU a tape takes the place of CUDA's graphs: see `helpers/tape.py`.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_runs import (
    NETWORKS,
    QUIET,
    STACKED,
    Recipe,
    Run,
    language_model,
    rest_differs,
    text,
)
from mixed_precision import ScaledOnCPU
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from recorded_runs import Plain, Recorded, assert_same, both, run_pass, same_but, tokens_and_targets
from tape import Stand
from torch import Tensor, nn
from toy_runs import MemoryLogger

from lightning_sparse_rnn.models import LanguageModel, recording
from lightning_sparse_rnn.models.kernels import recorded_pass

pytestmark = QUIET

REGULARISED = {"ar": 2.0, "tar": 1.0}
STEPS = 6  # batches of an epoch of the text
RECIPES = {
    **{name: Recipe("text", network=network) for name, network in NETWORKS.items()},
    "drawn lengths, shorter last batch": Recipe("text", data={"lengths": "drawn", "bptt": 7}),
    "accumulation": Recipe("text", options={"accumulate_grad_batches": 3}),
    "clipping": Recipe("text", network=NETWORKS["ON-LSTM"], options={"gradient_clip_val": 0.01}),
    "clipping by value": Recipe("text", options={"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}),
    "Adam": Recipe("text", optimizer="adam"),
    "growth by gradients": Recipe("text", sparse={"growth": "gradient"}),
    "growth by momenta": Recipe("text", sparse={"growth": "momentum"}),
    "SNIP": Recipe("text", sparse={"allocation": "snip", "update_every_n_epochs": None}),
    "validation in mid-epoch": Recipe("text", options={"val_check_interval": 4}),
    "double": Recipe("text", options={"precision": "64-true"}),
    "bfloat16": Recipe("text", network=NETWORKS["RHN"], options={"precision": "bf16-mixed"}),
    "bfloat16, LSTM": Recipe("text", options={"precision": "bf16-mixed"}),
    "bfloat16, mixture": Recipe("text", network=NETWORKS["MoS"], options={"precision": "bf16-mixed"}),
    "all in bfloat16": Recipe("text", network=NETWORKS["ON-LSTM"], options={"precision": "bf16-true"}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recorded_run_is_the_same_run(tmp_path: Path, stand: Stand, name: str) -> None:
    plain, recorded = both(tmp_path, RECIPES[name])
    assert_same(plain, recorded)
    assert stand.replays > 5 * STEPS  # forward and backward in four epochs, of fewer batches where these are longer
    assert stand.recordings < 40


def test_loss_scaling_and_the_steps_it_leaves_out(tmp_path: Path, stand: Stand) -> None:
    class Overflows(pl.Callback):
        def on_before_backward(self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor) -> None:
            if trainer.fit_loop.batch_idx == 1:
                loss.mul_(float("inf"))

    def run(kind: type[Recipe]) -> Run:
        recipe = Recipe("text", network=NETWORKS["RHN"], options={"plugins": [ScaledOnCPU()]})
        return same_but(kind, recipe).run(tmp_path, Overflows())

    plain, recorded = run(Plain), run(Recorded)
    assert_same(plain, recorded)
    assert stand.replays > 8 * STEPS


@pytest.mark.parametrize("name", ["RHN", "drawn lengths, shorter last batch"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, stand: Stand, name: str) -> None:
    recipe = same_but(Recorded, RECIPES[name])
    save = ModelCheckpoint(tmp_path / "saved", filename="{step}", save_top_k=-1, every_n_train_steps=4)
    whole = recipe.run(tmp_path, save)
    resumed_from = 0
    for path in sorted((tmp_path / "saved").glob("*.ckpt")):
        if torch.load(path, weights_only=True)["global_step"] < whole.trainer.global_step:
            assert rest_differs(whole, recipe.run(tmp_path, ckpt_path=path)) == [], path.name
            resumed_from += 1
    assert resumed_from >= 2
    assert stand.replays > 0


class TestEvaluation:
    def test_is_recorded_too(self, tmp_path: Path, stand: Stand) -> None:
        metrics = []
        for wanted in (False, True):
            model = Plain.recording(language_model(), wanted)
            trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
            data = text(tmp_path, bptt=2, test_batch_size=3)
            found = [*trainer.validate(model, data, verbose=False), *trainer.test(model, data, verbose=False)]
            metrics.append([*found, *trainer.validate(model, data, verbose=False)])
        assert metrics[0] == metrics[1]
        assert 0 < stand.recordings < stand.replays

    def test_draws_nothing_and_leaves_gradients_alone(self, stand: Stand) -> None:
        model = language_model().eval()
        with torch.no_grad():
            before = torch.get_rng_state()
            found = model._recorder.run(model, model._evaluate_on, (), *tokens_and_targets(), None)
        assert torch.equal(torch.get_rng_state(), before)
        assert not found.objective.requires_grad
        assert torch.equal(found.loss, model._evaluate_on(*tokens_and_targets(), None).loss.detach())


def hooked(model: LanguageModel) -> None:
    model.network.decoder.register_forward_hook(lambda *_: None)


def pre_hooked(model: LanguageModel) -> None:
    nn.utils.prune.random_unstructured(model.network.decoder, "weight", amount=0.5)


def backward_hooked(model: LanguageModel) -> None:
    model.network.layers.register_full_backward_hook(lambda *_: None)


def watched(model: LanguageModel) -> None:
    model.network.decoder.bias.register_hook(lambda gradient: None)


def watched_after(model: LanguageModel) -> None:
    model.network.decoder.bias.register_post_accumulate_grad_hook(lambda parameter: None)


def compiled(model: LanguageModel) -> None:
    model.network.decoder.compile(backend="eager")


def foreign(model: LanguageModel) -> None:
    model.network.add_module("other", nn.LSTM(3, 3, 2, dropout=0.5))


FALLBACKS = {
    hooked: "network.decoder has hooks",
    pre_hooked: "network.decoder has hooks",
    backward_hooked: "network.layers has hooks",
    watched: "network.decoder.bias has hooks",
    watched_after: "network.decoder.bias has hooks",
    compiled: "network.decoder is compiled",
    foreign: "network.other leaves dropout between its layers to cuDNN",
}


class TestFallbacks:
    @pytest.fixture
    def said(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        lines: list[str] = []
        monkeypatch.setattr(recording, "rank_zero_info", lines.append)
        return lines

    @pytest.mark.parametrize("change", FALLBACKS)
    @pytest.mark.filterwarnings("ignore:Full backward hook is firing")
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own
    def test_one_line_says_why(self, stand: Stand, said: list[str], change: Any) -> None:
        model = language_model()
        change(model)
        run_pass(model)
        run_pass(model)
        assert len(said) == 1
        assert said[0].startswith(f"Batches run kernel by kernel and not as CUDA graphs, since {FALLBACKS[change]}")
        assert not stand.replays

    def test_hooks_of_all_modules(self, stand: Stand, said: list[str]) -> None:
        with nn.modules.module.register_module_forward_hook(lambda *_: None):
            run_pass(language_model())
        assert "all modules have hooks" in said[0]
        assert not stand.replays

    def test_anomalies(self, stand: Stand, said: list[str]) -> None:
        with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
            run_pass(language_model())
        assert "anomalies are looked for" in said[0]

    @pytest.mark.parametrize("alone", [True, False])
    def test_several_devices_and_models_that_are_wrapped(self, stand: Stand, said: list[str], alone: bool) -> None:
        model = language_model()
        strategy = DDPStrategy()
        strategy.model = nn.Identity() if alone else model
        model._trainer = SimpleNamespace(world_size=1 if alone else 2, strategy=strategy)
        run_pass(model)
        assert said == [
            "Batches run kernel by kernel and not as CUDA graphs, since DDPStrategy has work of its own to do in them."
        ]
        assert not stand.replays

    def test_not_wanted(self, tmp_path: Path, stand: Stand, said: list[str]) -> None:
        run_pass(LanguageModel(STACKED, vocab_size=22, cuda_graphs=False))
        assert not said
        assert not stand.replays

    def test_what_cannot_be_recorded(
        self, tmp_path: Path, stand: Stand, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(recorded_pass.cuda_graphs, "record", fail)
        with pytest.warns(UserWarning, match="kernel by kernel, which is slower and right all the same: operation not"):
            plain, recorded = both(tmp_path, replace(RECIPES["RHN"], options={"max_epochs": 2}))
        assert_same(plain, recorded)

    def test_a_network_of_which_no_pass_is_like_another(self, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recorded_pass, "_MOST_IN_A_ROW", 3)
        model = language_model()
        for count in range(3):
            model.network.count = count
            run_pass(model)
        model.network.count = 3
        with pytest.warns(UserWarning, match="none of 3 batches was like another"):
            run_pass(model)

    def test_states_of_other_columns_are_refused(self, stand: Stand) -> None:
        model = language_model()
        state = tuple(part[:, :3] for part in run_pass(model).state)
        with pytest.raises(ValueError, match="Expected a state of 4 columns"):
            run_pass(model, state=state)


def test_copies_begin_without_recordings(stand: Stand) -> None:
    model = language_model()
    run_pass(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin._recorder._passes is None
        run_pass(twin)
    unwanted = pickle.loads(pickle.dumps(LanguageModel(STACKED, vocab_size=22, cuda_graphs=False)))
    assert not unwanted._recorder._wanted


def test_the_perplexity_of_a_batch_is_logged_every_so_many_steps(tmp_path: Path, stand: Stand) -> None:
    rows = []
    for kind in (Plain, Recorded):
        logger = MemoryLogger()
        recipe = Recipe("text", options={"logger": logger, "log_every_n_steps": 4, "max_epochs": 2})
        same_but(kind, recipe).run(tmp_path)
        rows.append([(step, row) for step, row in logger.rows if "ppl" in row])
    assert rows[0] == rows[1]
    assert [step for step, _ in rows[1]] == [3, 7, 11]


def test_memory_is_given_back_at_the_end(tmp_path: Path, stand: Stand) -> None:
    run = same_but(Recorded, replace(RECIPES["RHN"], options={"max_epochs": 1})).run(tmp_path)
    assert stand.replays
    assert run.module._recorder._passes is None
