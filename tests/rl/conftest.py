"""A tiny model for each test that wants one; nothing is read from disk."""

import pytest
import torch
from rl_helpers import build_model


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def model():
    return build_model()
