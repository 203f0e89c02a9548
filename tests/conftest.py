"""Shared settings: every test is deterministic, and uses the two cores that the machine has."""

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
