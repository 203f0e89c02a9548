"""ModalityDropout: its rates, samples that keep at least one modality, and eval mode."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse import IntraCED, ModalityDropout

NAMES = ("text", "audio", "keys")


def tokens(batch: int) -> dict[str, torch.Tensor]:
    return {name: torch.randn(batch, length, 4) for name, length in zip(NAMES, (5, 3, 1), strict=True)}


@given(st.floats(0, 1), st.integers(0, 2**31))
def test_no_sample_loses_all_its_modalities(rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    inputs = tokens(16)
    mask = {name: torch.rand(16, values.shape[1]) < 0.4 for name, values in inputs.items()}
    dropped = ModalityDropout(NAMES, rate).train()(inputs, mask)
    had = torch.stack([mask[name].any(1) for name in NAMES]).any(0)
    has = torch.stack([dropped[name].any(1) for name in NAMES]).any(0)
    assert torch.equal(had, has)
    for name in NAMES:
        is_unchanged = (dropped[name] == mask[name]).all(1)
        assert (is_unchanged | ~dropped[name].any(1)).all(), "a modality is kept or dropped as a whole"


def test_each_modality_has_its_own_rate() -> None:
    torch.manual_seed(0)
    dropped = ModalityDropout(NAMES, {"audio": 0.25}).train()(tokens(20_000))
    assert dropped["text"].all()
    assert dropped["keys"].all()
    assert dropped["audio"][:, 0].float().mean() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(dropped["audio"][:, 0], dropped["audio"][:, 2])


def test_eval_mode_and_rate_zero_leave_the_mask_unchanged() -> None:
    mask = {"text": torch.ones(2, 5, dtype=torch.bool)}
    for layer in (ModalityDropout(NAMES, 0.9).eval(), ModalityDropout(NAMES).train()):
        assert layer(tokens(2), mask) == {"text": mask["text"], "audio": None, "keys": None}


def test_a_modality_that_is_none_equals_one_left_out() -> None:
    layer, without_audio = ModalityDropout(NAMES, 0.5).train(), {name: tokens(8)[name] for name in ("text", "keys")}
    torch.manual_seed(0)
    expected = layer(without_audio)
    torch.manual_seed(0)
    dropped = layer({"text": without_audio["text"], "audio": None, "keys": without_audio["keys"]})
    assert dropped.pop("audio") is None
    assert all(torch.equal(dropped[name], expected[name]) for name in expected)


def test_a_vector_is_one_token_whose_mask_an_exchange_takes() -> None:
    torch.manual_seed(0)
    inputs = {**tokens(64), "keys": torch.randn(64, 4)}
    layer = ModalityDropout(NAMES, 0.5).train()
    exchange = IntraCED(4, NAMES, shared_rank=2, private_rank=2, num_heads=1)
    real = torch.arange(64) % 3 > 0
    assert torch.equal(ModalityDropout(NAMES)(inputs, {"keys": real})["keys"], real.view(64, 1))
    for mask in (None, {"keys": real.view(64, 1)}, {"keys": real}):
        dropped = layer(inputs, mask)
        assert [tuple(dropped[name].shape) for name in NAMES] == [(64, 5), (64, 3), (64, 1)]
        assert 0 < dropped["keys"].sum() < 64
        assert torch.equal(exchange(inputs, dropped).private["keys"].any(-1), dropped["keys"])
    assert layer({"text": torch.ones(8, 5, dtype=torch.long)})["text"].shape == (8, 5), "token ids are no vector"


def test_tokens_that_do_not_fit_are_named() -> None:
    layer = ModalityDropout(NAMES, 0.5).train()
    with pytest.raises(ValueError, match=r"tokens\['text'\] must have shape \(batch, tokens, ...\), got \(3,\)"):
        layer({"text": torch.ones(3)})
    with pytest.raises(ValueError, match=r"tokens\['audio'\] has batch size 3, the modalities before it 2"):
        layer({"text": torch.ones(2, 4, 5), "audio": torch.ones(3, 4, 5)})
    with pytest.raises(ValueError, match=r"mask\['keys'\] must have shape \(2, 1\), got \(2, 4\)"):
        layer({"keys": torch.ones(2, 4)}, {"keys": torch.ones(2, 4)})
    with pytest.raises(ValueError, match=r"tokens\['text'\] must be a torch.Tensor, got list"):
        layer({"text": [1, 2]})  # type: ignore[dict-item]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"rate must be in \[0.0, 1.0\], got 1.5"):
        ModalityDropout(NAMES, 1.5)
    with pytest.raises(ValueError, match=r"rate has modalities \['vision'\]"):
        ModalityDropout(NAMES, {"vision": 0.5})
