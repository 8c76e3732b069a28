"""Shared fixtures."""

import pytest
import torch


@pytest.fixture
def float64_default():
    """Torch keeps scalar states (NAdam's product) in the default type; parity in float64 needs them in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
