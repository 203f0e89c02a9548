"""Corruptions: what they change, what they leave unchanged, and that they use the random numbers of the generator."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multifuse.recipes.corruption.corruptions import Corruption, FeatureNoise, TimeShift, TokenDrop

WIDTHS = {"text": 3, "audio": 2}
Batch = tuple[dict[str, Tensor], dict[str, Tensor | None]]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draws ragged features and token ids; a modality may have no mask, and a sample may have no tokens of it."""
    size, seed = draw(st.integers(1, 4)), draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, Tensor] = {}
    mask: dict[str, Tensor | None] = {}
    for name, width in WIDTHS.items():
        length = draw(st.integers(1, 9))
        inputs[name] = torch.randn(size, length, width, generator=generator)
        lengths = torch.randint(0, length + 1, (size, 1), generator=generator)
        mask[name] = torch.arange(length) < lengths if draw(st.booleans()) else None
    inputs["ids"], mask["ids"] = torch.randint(1, 9, (size, 5), generator=generator), None
    return inputs, mask


def changed(corruption: Corruption, batch: Batch, seed: int = 0) -> tuple[dict[str, Any], dict[str, Tensor | None]]:
    """Returns the corrupted batch, after checking that the original is unchanged."""
    before = {name: values.clone() for name, values in batch[0].items()}
    inputs, mask = corruption(*batch, torch.Generator().manual_seed(seed))
    assert all(torch.equal(values, before[name]) for name, values in batch[0].items())
    return dict(inputs), dict(mask)


def real(batch: Batch, name: str) -> Tensor:
    mask = batch[1][name]
    return torch.ones(batch[0][name].shape[:2], dtype=torch.bool) if mask is None else mask


@given(batches())
def test_level_0_changes_no_bit(batch: Batch) -> None:
    for corruption in (FeatureNoise(0.0), TokenDrop(0.0), TimeShift("text", 0)):
        inputs, mask = changed(corruption, batch)
        assert all(inputs[name] is values for name, values in batch[0].items())
        assert all(mask[name] is original for name, original in batch[1].items())


@given(batches(), st.integers(0, 9))
def test_equal_seeds_give_equal_corruption_and_other_seeds_do_not(batch: Batch, seed: int) -> None:
    for corruption in (FeatureNoise(1.0), TokenDrop(0.5)):
        first, again = (changed(corruption, batch, seed) for _ in range(2))
        for name in batch[0]:
            assert torch.equal(first[0][name], again[0][name])
            assert (first[1][name] is None and again[1][name] is None) or torch.equal(first[1][name], again[1][name])  # type: ignore[arg-type]
    other = changed(FeatureNoise(1.0), batch, seed + 1)[0]["text"]
    assert not real(batch, "text").any() or not torch.equal(other, changed(FeatureNoise(1.0), batch, seed)[0]["text"])


@given(batches(), st.floats(0.1, 4))
def test_noise_leaves_padding_masks_and_ids_unchanged_and_grows_with_its_level(batch: Batch, level: float) -> None:
    inputs, mask = changed(FeatureNoise(level), batch)
    assert mask == batch[1]
    assert torch.equal(inputs["ids"], batch[0]["ids"])
    once, twice = (changed(FeatureNoise(factor * level), batch)[0] for factor in (1, 2))
    for name in WIDTHS:
        is_real = real(batch, name)
        assert torch.equal(inputs[name][~is_real], batch[0][name][~is_real])
        assert (inputs[name] != batch[0][name])[is_real].all()
        torch.testing.assert_close(
            (twice[name] - batch[0][name]), 2 * (once[name] - batch[0][name]), atol=1e-5, rtol=1e-4
        )


def test_noise_has_the_deviation_of_each_feature_times_the_level() -> None:
    deviations = {"text": torch.tensor([2.0, 0.0, 0.5])}
    inputs = {"text": torch.zeros(64, 200, 3), "audio": torch.zeros(64, 200, 1)}
    noised, _ = FeatureNoise(0.5, deviations)(inputs, {}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noised["text"].std(dim=(0, 1)), torch.tensor([1.0, 0.0, 0.25]), atol=0.02, rtol=0)
    assert noised["audio"].std() == pytest.approx(0.5, abs=0.02)


@given(batches(), st.sampled_from([0.1, 0.5, 0.9, 0.999]))
def test_token_drop_keeps_a_token_of_each_modality_and_never_adds_one(batch: Batch, rate: float) -> None:
    inputs, mask = changed(TokenDrop(rate), batch)
    higher_rate_mask = changed(TokenDrop(min(rate + 0.05, 0.9999)), batch)[1]
    for name, values in batch[0].items():
        is_real, kept, kept_at_higher_rate = real(batch, name), mask[name], higher_rate_mask[name]
        assert kept is not None
        assert kept_at_higher_rate is not None
        assert inputs[name] is values
        assert not (kept & ~is_real).any()
        assert torch.equal(kept.any(1), is_real.any(1))
        assert not (kept_at_higher_rate & ~kept).any(), "a token dropped at a lower rate is kept at a higher one"


def test_tokens_are_dropped_at_the_given_rate_and_all_of_them_at_1() -> None:
    inputs = {"text": torch.zeros(100, 200, 1)}
    mask: dict[str, Tensor | None] = {"text": torch.arange(200).expand(100, -1) < 150}
    for rate in (0.2, 0.7):
        kept = TokenDrop(rate)(inputs, mask, torch.Generator().manual_seed(0))[1]["text"]
        assert kept is not None
        assert 1 - float(kept.sum()) / (100 * 150) == pytest.approx(rate, abs=0.01)
    kept = TokenDrop(1)(inputs, mask, torch.Generator())[1]["text"]
    assert kept is not None
    assert not kept.any()


@given(batches(), st.sampled_from(["text", "ids"]), st.integers(1, 12))
def test_a_shift_moves_only_the_tokens_and_mask_of_its_modality(batch: Batch, name: str, tokens: int) -> None:
    inputs, mask = changed(TimeShift(name, tokens), batch)
    length, shifted_mask = batch[0][name].shape[1], mask[name]
    assert shifted_mask is not None
    assert inputs[name].shape[1] == shifted_mask.shape[1] == length + tokens
    assert torch.equal(inputs[name][:, tokens:], batch[0][name])
    assert torch.equal(shifted_mask[:, tokens:], real(batch, name))
    assert not shifted_mask[:, :tokens].any()
    assert all(inputs[other] is values for other, values in batch[0].items() if other != name)
    assert all(mask[other] is values for other, values in batch[1].items() if other != name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureNoise(-1.0), "level must be finite and >= 0, got -1.0"),
        (lambda: FeatureNoise(float("nan")), "level must be finite and >= 0, got nan"),
        (lambda: TokenDrop(1.5), r"rate must be in \[0.0, 1.0\], got 1.5"),
        (lambda: TimeShift("text", -2), "tokens must be an integer >= 0, got -2"),
        (lambda: TimeShift("text", 1.5), "tokens must be an integer >= 0, got 1.5"),  # type: ignore[arg-type]
        (
            lambda: TimeShift("smell", 1)({"text": torch.ones(1, 2, 3)}, {}, torch.Generator()),
            r"modality must be one of \['text'\], got 'smell'",
        ),
    ],
)
def test_a_bad_level_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
