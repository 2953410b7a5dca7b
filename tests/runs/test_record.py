"""The table of a topology grows as the run goes, and the topology that the run begins with is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import small_config, table

from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs import record
from lightning_sparse_rnn.runs.folder import kept_masks, masks_at_start
from lightning_sparse_rnn.runs.reading import read_run
from lightning_sparse_rnn.runs.training import train
from lightning_sparse_rnn.sparsity.mask_files import load_masks

BY_STEPS = ("method.update_every_n_steps=1", "trainer.max_epochs=2", "+trainer.accumulate_grad_batches=2")


def test_rows_are_added_and_those_of_lost_updates_dropped(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = record.write_csv

    def noted(path: Path, *args: Any) -> None:
        written.append(path.name)
        write(path, *args)

    monkeypatch.setattr(record, "write_csv", noted)
    # Updates within epochs: the one that an interruption loses is in the table already.
    config = small_config(text, tmp_path, "trainer.max_epochs=4", "method.update_every_n_steps=4")
    train(config, tmp_path / "whole")
    assert written.count("topology.csv") == 1
    assert written.count("metrics.csv") == 4
    updates = [int(row["update"]) for row in table(tmp_path / "whole" / "topology.csv")]
    assert updates == sorted(updates)
    assert max(updates) > 8

    save = LanguageModel.on_save_checkpoint
    with monkeypatch.context() as patch:

        def stop(self: LanguageModel, checkpoint: dict[str, Any]) -> None:
            if self.current_epoch == 2:
                raise OSError("the machine died")
            save(self, checkpoint)

        patch.setattr(LanguageModel, "on_save_checkpoint", stop)
        with pytest.raises(OSError, match="the machine died"):
            train(config, tmp_path / "broken")
    lost = table(tmp_path / "broken" / "topology.csv")
    assert lost == table(tmp_path / "whole" / "topology.csv")[: len(lost)]
    train(config, tmp_path / "broken")
    assert table(tmp_path / "broken" / "topology.csv") == table(tmp_path / "whole" / "topology.csv")


@pytest.mark.parametrize("method", ["selfish", "rigl"])
def test_that_of_the_first_step_where_updates_go_by_steps(text: Path, tmp_path: Path, method: str) -> None:
    config = small_config(text, tmp_path, f"method={method}", *BY_STEPS)
    folder = tmp_path / "run"
    train(config, folder)
    first, second = kept_masks(folder)[:2]
    assert (first[0], second[0]) == (0, 1)
    start, after = load_masks(first[1]), load_masks(second[1])
    live: dict[str, int] = {}
    for row in read_run(folder).topology:
        if row["update"] == 0:
            live[str(row["tensor"])] = live.get(str(row["tensor"]), 0) + row["live"]
    assert {name: int(mask.sum()) for name, mask in start.items()} == live
    assert any((start[name] != after[name]).any() for name in start)


@pytest.mark.parametrize("method", ["selfish", "snip"])
def test_no_second_file_where_the_first_epoch_keeps_it(text: Path, tmp_path: Path, method: str) -> None:
    train(small_config(text, tmp_path, f"method={method}", "trainer.max_epochs=2"), tmp_path / "run")
    assert not masks_at_start(tmp_path / "run").exists()
    assert [epochs for epochs, _ in kept_masks(tmp_path / "run")] == [1, 2]


def test_a_dense_run_keeps_none(text: Path, tmp_path: Path) -> None:
    train(small_config(text, tmp_path, "method=dense", "trainer.max_epochs=1"), tmp_path / "run")
    assert kept_masks(tmp_path / "run") == []


def test_a_later_session_leaves_what_the_first_has_kept(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "masks").mkdir(parents=True)
    masks_at_start(folder).write_bytes(b"of an earlier session")
    train(small_config(text, tmp_path, *BY_STEPS), folder)
    assert masks_at_start(folder).read_bytes() == b"of an earlier session"
