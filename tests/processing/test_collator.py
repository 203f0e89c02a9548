"""MultimodalCollator: padding and masks by modality, samples that lack one, and inputs that do not fit together."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from multifuse import MultimodalCollator, Sample
from multifuse.processing.collator import padded

INPUTS: dict[str, Tensor] = {
    "ids": torch.tensor([3, 4]),
    "features": torch.ones(2, 5),
    "frames": torch.ones(2, 3, 4, 4, dtype=torch.uint8),
    "spectrogram": torch.ones(1, 6, 7),
    "waveform": torch.ones(9),
}


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_padding_keeps_every_token_and_masks_all_others(lengths: list[int]) -> None:
    rows = [torch.randn(length, 3) for length in lengths]
    values, mask = padded(rows, 7.0)
    assert values.shape == (len(lengths), max(*lengths, 1), 3)
    assert mask.sum(dim=1).tolist() == lengths
    assert (values[~mask] == 7.0).all()
    for row, of_row, real in zip(rows, values, mask, strict=True):
        assert torch.equal(of_row[real], row)


@pytest.mark.parametrize("name", INPUTS)
def test_a_sample_that_lacks_a_modality_is_masked_there(name: str) -> None:
    batch = MultimodalCollator()([Sample({"other": torch.ones(1, 2)}), Sample({name: INPUTS[name]})])
    given, real = batch["inputs"][name], batch["mask"][name]
    assert torch.equal(given[1], INPUTS[name])
    assert not given[0].any()
    assert real[1].all()
    assert not real[0].any()
    assert real.shape == (2, 1 if name in ("spectrogram", "waveform") else 2)
    assert "labels" not in batch


def test_token_ids_are_padded_with_the_id_of_their_modality() -> None:
    samples = [Sample({"text": torch.tensor([5])}, 1), Sample({"text": torch.tensor([6, 7])}, 0)]
    batch = MultimodalCollator({"text": 9})(samples)
    assert batch["inputs"]["text"].tolist() == [[5, 9], [6, 7]]
    assert batch["labels"].tolist() == [1, 0]
    assert "labels" not in MultimodalCollator()([samples[0], Sample(samples[1].inputs)])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((2, 5), (2, 4), r"inputs\['x'\] must be alike but for their lengths, got \(2, 5\) float32 and \(2, 4\) float"),
        ((2, 5), (5,), r"inputs\['x'\] must be alike but for their lengths, got \(2, 5\) float32 and \(5,\) float32"),
        ((1, 6, 7), (1, 6, 8), r"inputs\['x'\] must be alike, got \(1, 6, 7\) float32 and \(1, 6, 8\) float32"),
        ((8,), (9,), r"inputs\['x'\] must be alike, got \(8,\) float32 and \(9,\) float32"),
    ],
)
def test_inputs_that_do_not_fit_together_are_named(
    first: tuple[int, ...], second: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MultimodalCollator()([Sample({"x": torch.ones(first)}), Sample({"x": torch.ones(second)})])
    with pytest.raises(ValueError, match="at least one sample"):
        MultimodalCollator()([])


def test_token_ids_of_different_lengths_are_filled_up_with_what_no_loss_counts() -> None:
    samples = [Sample({"audio": torch.ones(1, 2)}, label=label) for label in ([5, 6, 2], [7], [])]
    labels = MultimodalCollator()(samples)["labels"]
    assert labels.tolist() == [[5, 6, 2], [7, -100, -100], [-100, -100, -100]]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[], [5, 6]], torch.tensor([[-100, -100], [5, 6]])),
        ([torch.tensor([5, 6]), np.array([7])], torch.tensor([[5, 6], [7, -100]])),
        ([[0.5, 1.0], [1, 0]], torch.tensor([[0.5, 1.0], [1.0, 0.0]])),
        ([[[1, 0], [0, 1]], [[0, 0], [1, 1]]], torch.tensor([[[1, 0], [0, 1]], [[0, 0], [1, 1]]])),
        ([1, 0.5], torch.tensor([1.0, 0.5])),
    ],
)
def test_labels_keep_their_values_and_are_integers_where_all_are(labels: list[Any], expected: Tensor) -> None:
    joined = MultimodalCollator()([Sample({"audio": torch.ones(1, 2)}, label=label) for label in labels])["labels"]
    assert torch.equal(joined, expected)
    assert joined.dtype == expected.dtype


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0.1, 0.2, 0.3], [0.1, 0.2]], "unless they are integers, got torch.float32 of the lengths 3, 2$"),
        ([[0.1], []], "unless they are integers, got torch.float32 of the lengths 1, 0$"),
        ([[True, False], [True]], "unless they are integers, got torch.bool of the lengths 2, 1$"),
        ([[1, 2], 3], r"labels must be alike, got the shapes \(2,\), \(\)$"),
        ([[[1, 2]], [[3]]], r"labels must be alike, got the shapes \(1, 2\), \(1, 1\)$"),
        ([1, "happy"], "labels must be numbers or lists of numbers, got 'happy' at sample 1$"),
    ],
)
def test_labels_that_no_loss_could_leave_out_are_refused(labels: list[Any], message: str) -> None:
    """A regression counts every number, also -100."""
    with pytest.raises(ValueError, match=message):
        MultimodalCollator()([Sample({"audio": torch.ones(1, 2)}, label=label) for label in labels])


def test_a_modality_that_is_none_equals_one_left_out_and_a_batch_without_any_is_refused() -> None:
    audio = {"audio": torch.ones(1, 2)}
    absent: dict[str, Any] = {"text": None}
    batch = MultimodalCollator()([Sample({**audio, **absent}), Sample({**absent, **audio})])
    assert batch["inputs"].keys() == batch["mask"].keys() == {"audio"}
    with pytest.raises(ValueError, match=r"at least one modality, got None for each of \['text'\] in all 2$"):
        MultimodalCollator()([Sample(absent), Sample({})])
    with pytest.raises(ValueError, match=r"inputs\['audio'\] must have at least one dimension, got a scalar tensor"):
        MultimodalCollator()([Sample({"audio": torch.tensor(1.0)})])
