"""Tests of packed weights run where the kernel can be built."""

import pytest

from lightning_sparse_rnn.inference.build import kernel


@pytest.fixture
def _kernel() -> None:
    if kernel() is None:
        pytest.skip("there is no C++ compiler")
