"""A tiny model for the tests that ask one."""

import pytest
import torch
from rl_helpers import build_model


@pytest.fixture
def model():
    torch.set_num_threads(1)
    return build_model()
