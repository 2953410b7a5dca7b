"""`benchmarks.variants`: every variant trains with exact counts, and its table compares runs of the same seed."""

import json
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from small_runs import small_config

from lightning_sparse_rnn.runs.training import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import variants

    return variants


def own_rules() -> list[str]:
    """The names of the variants whose rules are not the package's."""
    source = (ROOT / "benchmarks" / "variants.py").read_text(encoding="utf-8")
    return re.findall(r'^    "(\w+)": \(.*\{RULES\}', source, re.MULTILINE)


@pytest.mark.parametrize("name", own_rules())
def test_every_variant_of_its_own_keeps_the_counts(variants, name: str, text: Path, tmp_path: Path) -> None:
    assert len(own_rules()) >= 5
    overrides = [*variants.VARIANTS[name][1], "trainer.max_epochs=4", "callbacks.averaging.restart_at=[0.25]"]
    results = train(small_config(text, tmp_path, *overrides), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["state_dict"]
    nonzero = sum(int(weight.count_nonzero()) for weight in state.values() if weight.dim() > 1)
    assert nonzero <= results["live_weights"]
    assert results["live_weights"] == pytest.approx(0.33 * results["total_weights"], abs=4)
    assert results["averaging_began_epoch"] == 1


def test_rare_words_become_unknown(variants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "WORDS", 4)
    monkeypatch.setattr(variants, "LINES", 2)
    for part, content in {"train": "a a b\na c\nb c b\n", "valid": "c a\n", "test": "b d\n"}.items():
        (tmp_path / f"ptb.{part}.txt").write_text(content)
    variants.write_frequent_words(tmp_path, tmp_path / "text")
    written = {part: (tmp_path / "text" / f"{part}.txt").read_text() for part in ("train", "valid", "test")}
    assert written == {"train": "a a b\na <unk>\n", "valid": "<unk> a\n", "test": "b <unk>\n"}


def test_the_table_compares_runs_of_the_same_seed(variants, tmp_path: Path) -> None:
    for run, perplexity in {"base.1": 70.0, "base.2": 66.0, "gradient.2": 65.0, "gradient.3": 60.0}.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "results.json").write_text(json.dumps({"val_ppl": perplexity}))
        last = 199.0 if run != "gradient.3" else 201.0
        (tmp_path / run / "metrics.csv").write_text(f"epoch,train_ppl\n0,300.0\n1,{last}\n2,{last}\n")
    assert variants.table(tmp_path).splitlines()[2:] == [
        "| the paper's choices | 68.00 |  | 1, 1 | 2 |",
        "| regrown by gradient | 62.50 | -1.00 | 1, none | 2 |",
    ]


def test_old_values_come_back(variants, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.variant_rules import KeepsOldValues

    seen = []
    update = KeepsOldValues._update

    def watched(self: KeepsOldValues, trainer: Trainer, gradients) -> None:
        old = {p: p.detach().clone() for p in self.topology.parameters.values()}
        was = {p: mask.bool().clone() for p, mask in self.topology.masks.items()}
        update(self, trainer, gradients)
        for parameter, mask in self.topology.masks.items():
            stayed = was[parameter] & mask.bool()
            assert torch.equal(parameter[stayed], old[parameter][stayed])
            assert not parameter[~mask.bool()].any()
            seen.append(int((mask.bool() & ~was[parameter]).sum()))

    monkeypatch.setattr(KeepsOldValues, "_update", watched)
    overrides = [*variants.VARIANTS["oldvalue"][1], "trainer.max_epochs=3"]
    train(small_config(text, tmp_path, *overrides), tmp_path / "run")
    assert len(seen) > 0
    assert min(seen) > 0
