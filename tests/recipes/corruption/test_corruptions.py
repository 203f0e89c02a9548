"""Corruptions: what they change, what they leave alone, and that their random numbers are the generator's."""

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
    """Ragged features and token ids; a modality may have no mask, or a sample none of its tokens."""
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
    """The corrupted batch, after a look that the given one is as it was."""
    before = {name: values.clone() for name, values in batch[0].items()}
    inputs, mask = corruption(*batch, torch.Generator().manual_seed(seed))
    assert all(torch.equal(values, before[name]) for name, values in batch[0].items())
    return dict(inputs), dict(mask)


def real(batch: Batch, name: str) -> Tensor:
    own = batch[1][name]
    return torch.ones(batch[0][name].shape[:2], dtype=torch.bool) if own is None else own


@given(batches())
def test_level_0_changes_no_bit(batch: Batch) -> None:
    for corruption in (FeatureNoise(0.0), TokenDrop(0.0), TimeShift("text", 0)):
        inputs, mask = changed(corruption, batch)
        assert all(inputs[name] is values for name, values in batch[0].items())
        assert all(mask[name] is own for name, own in batch[1].items())


@given(batches(), st.integers(0, 9))
def test_equal_seeds_corrupt_alike_and_others_do_not(batch: Batch, seed: int) -> None:
    for corruption in (FeatureNoise(1.0), TokenDrop(0.5)):
        first, again = (changed(corruption, batch, seed) for _ in range(2))
        for name in batch[0]:
            assert torch.equal(first[0][name], again[0][name])
            assert (first[1][name] is None and again[1][name] is None) or torch.equal(first[1][name], again[1][name])  # type: ignore[arg-type]
    other = changed(FeatureNoise(1.0), batch, seed + 1)[0]["text"]
    assert not real(batch, "text").any() or not torch.equal(other, changed(FeatureNoise(1.0), batch, seed)[0]["text"])


@given(batches(), st.floats(0.1, 4))
def test_noise_leaves_padding_masks_and_ids_alone_and_grows_with_its_level(batch: Batch, level: float) -> None:
    inputs, mask = changed(FeatureNoise(level), batch)
    assert mask == batch[1]
    assert torch.equal(inputs["ids"], batch[0]["ids"])
    once, twice = (changed(FeatureNoise(factor * level), batch)[0] for factor in (1, 2))
    for name in WIDTHS:
        own = real(batch, name)
        assert torch.equal(inputs[name][~own], batch[0][name][~own])
        assert (inputs[name] != batch[0][name])[own].all()
        torch.testing.assert_close(
            (twice[name] - batch[0][name]), 2 * (once[name] - batch[0][name]), atol=1e-5, rtol=1e-4
        )


def test_noise_has_the_level_times_each_features_deviation() -> None:
    deviations = {"text": torch.tensor([2.0, 0.0, 0.5])}
    inputs = {"text": torch.zeros(64, 200, 3), "audio": torch.zeros(64, 200, 1)}
    noised, _ = FeatureNoise(0.5, deviations)(inputs, {}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noised["text"].std(dim=(0, 1)), torch.tensor([1.0, 0.0, 0.25]), atol=0.02, rtol=0)
    assert noised["audio"].std() == pytest.approx(0.5, abs=0.02)


@given(batches(), st.sampled_from([0.1, 0.5, 0.9, 0.999]))
def test_dropping_leaves_a_token_of_each_modality_and_never_adds_one(batch: Batch, rate: float) -> None:
    inputs, mask = changed(TokenDrop(rate), batch)
    more = changed(TokenDrop(min(rate + 0.05, 0.9999)), batch)[1]
    for name, values in batch[0].items():
        own, left, less = real(batch, name), mask[name], more[name]
        assert left is not None
        assert less is not None
        assert inputs[name] is values
        assert not (left & ~own).any()
        assert torch.equal(left.any(1), own.any(1))
        assert not (less & ~left).any(), "a token that a lower rate drops came back at a higher one"


def test_tokens_are_dropped_at_the_rate_and_all_of_them_at_1_alone() -> None:
    inputs = {"text": torch.zeros(100, 200, 1)}
    mask: dict[str, Tensor | None] = {"text": torch.arange(200).expand(100, -1) < 150}
    for rate in (0.2, 0.7):
        left = TokenDrop(rate)(inputs, mask, torch.Generator().manual_seed(0))[1]["text"]
        assert left is not None
        assert 1 - float(left.sum()) / (100 * 150) == pytest.approx(rate, abs=0.01)
    everything = TokenDrop(1)(inputs, mask, torch.Generator())[1]["text"]
    assert everything is not None
    assert not everything.any()


@given(batches(), st.sampled_from(["text", "ids"]), st.integers(1, 12))
def test_a_shift_moves_tokens_and_mask_by_its_number_and_nothing_else(batch: Batch, name: str, tokens: int) -> None:
    inputs, mask = changed(TimeShift(name, tokens), batch)
    length, own = batch[0][name].shape[1], mask[name]
    assert own is not None
    assert inputs[name].shape[1] == own.shape[1] == length + tokens
    assert torch.equal(inputs[name][:, tokens:], batch[0][name])
    assert torch.equal(own[:, tokens:], real(batch, name))
    assert not own[:, :tokens].any()
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
