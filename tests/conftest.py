"""Shared settings: every test starts from the same seed, hypothesis draws the same examples, and GPUs are found."""

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile(
    "multifuse",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("multifuse")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Returns the CPU, and a GPU if there is one, which is tested against the same references."""
    return torch.device(request.param)
