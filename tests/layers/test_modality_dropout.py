"""ModalityDropout: rates, samples that never lose everything, and eval mode."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse import ModalityDropout

NAMES = ("text", "audio", "keys")


def tokens(batch: int) -> dict[str, torch.Tensor]:
    return {name: torch.randn(batch, length, 4) for name, length in zip(NAMES, (5, 3, 1), strict=True)}


@given(st.floats(0, 1), st.integers(0, 2**31))
def test_no_sample_loses_everything_that_it_has(rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    given_tokens = tokens(16)
    mask = {name: torch.rand(16, values.shape[1]) < 0.4 for name, values in given_tokens.items()}
    left = ModalityDropout(NAMES, rate).train()(given_tokens, mask)
    had = torch.stack([mask[name].any(1) for name in NAMES]).any(0)
    has = torch.stack([left[name].any(1) for name in NAMES]).any(0)
    assert torch.equal(had, has)
    for name in NAMES:
        kept_whole = (left[name] == mask[name]).all(1)
        assert (kept_whole | ~left[name].any(1)).all(), "a modality is left whole or left out"


def test_each_modality_has_its_own_rate() -> None:
    torch.manual_seed(0)
    left = ModalityDropout(NAMES, {"audio": 0.25}).train()(tokens(20_000))
    assert left["text"].all()
    assert left["keys"].all()
    assert left["audio"][:, 0].float().mean() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(left["audio"][:, 0], left["audio"][:, 2])


def test_eval_mode_and_rate_zero_leave_the_mask_alone() -> None:
    mask = {"text": torch.ones(2, 5, dtype=torch.bool)}
    for layer in (ModalityDropout(NAMES, 0.9).eval(), ModalityDropout(NAMES).train()):
        assert layer(tokens(2), mask) == {"text": mask["text"], "audio": None, "keys": None}


def test_a_modality_left_out_as_none_is_as_if_its_key_were() -> None:
    layer, some = ModalityDropout(NAMES, 0.5).train(), {name: tokens(8)[name] for name in ("text", "keys")}
    torch.manual_seed(0)
    expected = layer(some)
    torch.manual_seed(0)
    left = layer({"text": some["text"], "audio": None, "keys": some["keys"]})
    assert left.pop("audio") is None
    assert all(torch.equal(left[name], expected[name]) for name in expected)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"rate must be in \[0.0, 1.0\], got 1.5"):
        ModalityDropout(NAMES, 1.5)
    with pytest.raises(ValueError, match=r"rate has modalities \['vision'\]"):
        ModalityDropout(NAMES, {"vision": 0.5})
