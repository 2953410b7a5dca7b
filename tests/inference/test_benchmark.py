"""The benchmark of packed weights runs, at toy size."""

import pytest
import torch

from benchmarks import inference


@pytest.mark.usefixtures("_kernel")
@pytest.mark.filterwarnings("ignore")  # torch's own, of quantisation and CSR matrices
def test_the_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    inference.main(["--small", "--repeats", "3"])
    begins = ("| 64×48", "| LSTM 16", "| LSTM 2×64")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(begins)]
    assert [len(row.split("|")) - 2 for row in rows] == [11] * 2 + [2] * 3 + [2] + [9] * 6 + [6] * 2
