"""The devices on which the tests of ops run."""

import pytest
import torch


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Returns the CPU, and a GPU if there is one: its kernels are tested against the same references."""
    return torch.device(request.param)
