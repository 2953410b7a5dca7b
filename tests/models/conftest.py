"""What the tests of recordings share."""

from collections.abc import Iterator

import pytest
import torch
from tape import Stand, take_the_place_of_cuda


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """A stand-in for CUDA graphs, with torch's own kernels.

    oneDNN keeps weights, and what the way back of its LSTM needs, in memory of its own that a tape cannot write to.
    """
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    yield take_the_place_of_cuda(monkeypatch)
    torch._C._set_mkldnn_enabled(enabled)
