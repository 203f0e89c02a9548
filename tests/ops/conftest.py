"""The devices that the tests of ops run on."""

import pytest
import torch


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a GPU where there is one: its kernels are tested against the same references."""
    return torch.device(request.param)
