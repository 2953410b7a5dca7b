"""The table of a topology grows from epoch to epoch, and is always that of the run as it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import small_config, table

from lightning_sparse_rnn.models import LanguageModel
from lightning_sparse_rnn.runs import record
from lightning_sparse_rnn.runs.training import train


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
