"""Settings for the whole suite: one thread a process, so that sums come out the same everywhere."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
