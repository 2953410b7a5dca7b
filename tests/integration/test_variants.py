"""`benchmarks.variants`: every variant is as sparse as it says, and its table compares runs of the same seed."""

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from small_runs import small_config

from lightning_sparse_rnn.runs.config import CONFIG_DIR, model_config
from lightning_sparse_rnn.runs.config_checks import check_config
from lightning_sparse_rnn.runs.jobs import worked_on
from lightning_sparse_rnn.runs.training import train
from lightning_sparse_rnn.sparsity import SparseTopology

ROOT = Path(__file__).parents[2]
WORDS = 1994  # those of the text that variants are tried on, in its first 10,000 lines
# Those whose rules are not the package's.
OWN_RULES = ("oldvalue", "byaverages", "lstmfirst", "rarerows", "liveclip")


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import variants

    return variants


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import variant_results

    return variant_results


@pytest.mark.parametrize("name", OWN_RULES)
def test_every_variant_of_its_own_keeps_the_counts(variants, name: str, text: Path, tmp_path: Path) -> None:
    overrides = [*variants.VARIANTS[name].overrides, "trainer.max_epochs=4", "callbacks.averaging.restart_at=[0.25]"]
    results = train(small_config(text, tmp_path, *overrides), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["state_dict"]
    nonzero = sum(int(weight.count_nonzero()) for weight in state.values() if weight.dim() > 1)
    assert nonzero <= results["live_weights"]
    assert results["live_weights"] == pytest.approx(0.33 * results["total_weights"], abs=4)
    assert results["averaging_began_epoch"] == 1


def test_no_variant_of_its_own_is_left_out(variants) -> None:
    def rules(names) -> set[str]:
        given = [override for name in names for override in variants.VARIANTS[name].overrides]
        return {override for override in given if variants.RULES in override}

    assert rules(OWN_RULES) == rules(variants.VARIANTS)


def composed(setting: list[str], overrides: tuple[str, ...], bases: dict[tuple[str, ...], DictConfig]) -> DictConfig:
    """What Hydra composes; values are set in a config composed before, which is faster."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = tuple(str(override.input_line) for override in parsed if override.key_or_group == "method")
    if groups not in bases:
        bases[groups] = compose("train", [*setting, *groups])
    config = copy.deepcopy(bases[groups])
    for override in parsed:
        if override.key_or_group != "method":
            OmegaConf.update(config, override.key_or_group, override.value())
    return config


def live_weights(model: Any, method: Any) -> int:
    """How many a run begins with."""
    network = instantiate(model_config(OmegaConf.create({"model": model, "method": method}), WORDS).network, WORDS)
    if "_target_" not in method:
        return sum(parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)
    return SparseTopology(network, sparsity=method["sparsity"], allocation=method["allocation"]).live_weights


def test_every_variant_has_the_live_weights_of_the_papers_choices(variants) -> None:
    live, bases, known = {}, {}, {}
    setting = [*variants.SETTING, "data.root=text", "seed=1"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for name, variant in variants.VARIANTS.items():
            assert variant.beside in variants.VARIANTS
            config = composed(setting, variant.overrides, bases)
            check_config(config)
            model, method = (OmegaConf.to_container(config[group], resolve=True) for group in ("model", "method"))
            size = json.dumps([model, *(method.get(key) for key in ("sparsity", "allocation", "weights_of_sparsity"))])
            if size not in known:
                known[size] = live_weights(model, method)
            live[name] = known[size]
    assert live["base"] == 870_012
    assert len(known) > 5
    for name, count in live.items():
        if variants.VARIANTS[name].overrides[:1] == variants.DENSE:
            assert 0.99 * 2_636_400 < count <= 2_636_400
        else:
            assert 0.99 * 870_012 < count <= 870_012


def record(results, variant: str, seed: int, val_ppl: float, **given: Any):
    given = {"set": [], "live_weights": 870012, "epochs": 16, "left_plateau": 1, **given}
    made = {"machine": "a CPU", "torch": "2.5.0", "date": "2026-01-02"}
    return results.Record(variant, seed, val_ppl=val_ppl, **{**made, **given})


def test_the_table_compares_runs_of_the_same_seed(results) -> None:
    variants = {
        "base": results.Variant("the paper's choices"),
        "untried": results.Variant("nothing"),
        "scaled": results.Variant("scaled"),
        "scaled_tied": results.Variant("tied", beside="scaled"),
    }
    records = [
        record(results, "base", 1, 70.0),
        record(results, "base", 2, 66.0, left_plateau=3),
        record(results, "scaled", 2, 65.0),
        record(results, "scaled", 3, 60.0, left_plateau=None),
        record(results, "scaled_tied", 3, 61.5, live_weights=868419),
        record(results, "base", 1, 50.0, set=["trainer.max_epochs=40"]),
        record(results, "scaled", 1, 49.0, set=["trainer.max_epochs=40"]),
    ]
    head = results._HEAD.splitlines()
    assert head[0].count("|") == head[1].count("|") == 8
    assert results.table(variants, records).splitlines() == [
        *head,
        "| `base` | the paper's choices | 68.00 ± 2.83 (2) |  |  | 870,012 | 1, 3 |",
        "| `scaled` | scaled | 62.50 ± 3.54 (2) | `base` | -1.00 | 870,012 | 1, none |",
        "| `scaled_tied` | tied | 61.50 | `scaled` | +1.50 | 868,419 | 1 |",
        "",
        "With trainer.max_epochs=40:",
        "",
        *head,
        "| `base` | the paper's choices | 50.00 |  |  | 870,012 | 1 |",
        "| `scaled` | scaled | 49.00 | `base` | -1.00 | 870,012 | 1 |",
    ]


def test_records_are_written_down_and_read_again(results, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "variants.json"
    assert results.read_records(path) == []
    one, other = record(results, "scaled", 1, 60.0), record(results, "base", 2, 70.0, set=["a=1"])
    results.write_records(path, [other, one])
    assert results.read_records(path) == [one, other]


def test_a_run_that_is_recorded_keeps_its_machine_unless_it_is_made_anew(results) -> None:
    old = [record(results, "base", 1, 70.0), record(results, "base", 2, 66.0)]
    again = replace(old[0], machine="another CPU")
    anew = replace(old[1], machine="another CPU", val_ppl=65.5)
    longer = replace(anew, set=["trainer.max_epochs=40"])
    assert results.merged(old, [again, anew, longer]) == [old[0], anew, longer]
    one, other = replace(old[0], set=["a=1", "b=2"]), replace(old[0], set=["b=2", "a=1"], val_ppl=65.0)
    assert results.merged([one], [other]) == [other]  # in whatever order they are said


def test_runs_of_two_lengths_are_no_comparison(results) -> None:
    set_ = ["trainer.max_epochs=40"]
    results.check_lengths([record(results, "base", 1, 70.0), record(results, "base", 1, 60.0, set=set_, epochs=40)])
    with pytest.raises(ValueError, match=r"of one length without --set, got \[16, 40\] epochs\. Say with --set"):
        results.check_lengths([record(results, "base", 1, 70.0), record(results, "scaled", 1, 60.0, epochs=40)])


# A command that leaves what a run leaves.
STAND_IN = """
import json, pathlib, sys
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
if float(given["optimizer.lr"]) < 0:
    raise SystemExit("Expected a learning rate of at least 0.")
folder = pathlib.Path(given["hydra.run.dir"])
results = {"val_ppl": 50.5, "live_weights": 12, "epochs": 16, "versions": {"torch": "2.5.0"}}
folder.mkdir(parents=True, exist_ok=True)
(folder / "results.json").write_text(json.dumps(results))
(folder / "metrics.csv").write_text("epoch,train_ppl\\n0,300.0\\n1,199.0\\n2,150.0\\n")
"""


@pytest.fixture
def small(variants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command, with a stand-in for training."""
    from benchmarks import side_by_side

    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(side_by_side, "COMMAND", (sys.executable, str(tmp_path / "stand_in.py")))
    for part in variants.PARTS:
        (tmp_path / f"ptb.{part}.txt").write_text("a b c\n")
    places = ["--root", str(tmp_path), "--output", str(tmp_path / "runs"), "--json", str(tmp_path / "all.json")]
    return lambda *given: variants.main([*places, *given])


def test_runs_are_shared_out_and_one_that_fails_does_not_end_the_others(
    small, variants, results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = results.Variant("it fails", ("optimizer.lr=-1",))
    good = {name: variants.VARIANTS[name] for name in ("base", "scaled")}
    monkeypatch.setattr(variants, "VARIANTS", {"bad": bad, **good})
    with worked_on(tmp_path / "runs" / "scaled.1"), pytest.raises(SystemExit, match=r"have failed.*bad\.1$"):
        small("--processes", "2")
    said = capsys.readouterr().out
    assert "scaled.1: another command is working on it" in said
    assert "bad.1: not finished, see " in said
    assert "base.1: finished" in said
    assert "at least 0" in (tmp_path / "runs" / "bad.1.log").read_text()
    [one] = results.read_records(tmp_path / "all.json")
    assert asdict(one) | {"machine": "", "date": ""} == asdict(record(results, "base", 1, 50.5, live_weights=12)) | {
        "machine": "",
        "date": "",
    }
    small("scaled", "--seeds", "1", "2")
    assert len(results.read_records(tmp_path / "all.json")) == 3
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    small("--table")
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["| `base`", "| `scaled`"]


def test_what_is_no_variant_is_named(variants, capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in {
        ("basis",): "Expected variants among base, dense, ",
        ("--processes", "0"): "Expected --processes of at least 1, got 0.",
        ("base",): "Expected --root FOLDER",
    }.items():
        with pytest.raises(SystemExit):
            variants.main(given)
        assert message in capsys.readouterr().err


def test_a_table_of_nothing_says_where_runs_were_looked_for(
    small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^Expected runs recorded in .*, got none.*$") as raised:
        small("--table")
    assert f"{tmp_path / 'all.json'} or finished ones in {tmp_path / 'runs'}, " in str(raised.value)
    assert capsys.readouterr().out == ""


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
    overrides = [*variants.VARIANTS["oldvalue"].overrides, "trainer.max_epochs=3"]
    train(small_config(text, tmp_path, *overrides), tmp_path / "run")
    assert len(seen) > 0
    assert min(seen) > 0
