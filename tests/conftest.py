"""Shared settings: every test starts from the same seed, and hypothesis draws the same examples in every run."""

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
