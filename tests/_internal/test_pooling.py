"""Pooling: means over real tokens, of whole samples and of segments, for several modalities at once."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from multifuse._internal.pooling import pooling_of


def segment_means(values: Tensor, mask: Tensor | None, segments: int | None) -> tuple[Tensor, Tensor]:
    """Returns the means (B S, width) of one modality, and which rows have a token (B S,)."""
    pooling = pooling_of({"text": values}, {"text": mask}, ("text",), segments)
    return pooling.means(values.unsqueeze(0))[:, 0, 0], pooling.present[:, 0]


def test_segment_means_worked_by_hand() -> None:
    """The middle one of five tokens is in both segments; a single token is in all segments."""
    values = torch.arange(5.0).view(1, 5, 1)
    assert segment_means(values, None, 2)[0].flatten().tolist() == [1.0, 3.0]
    gap = torch.tensor([[False, False, False, True, True]])
    means, real = segment_means(values * gap.unsqueeze(-1), gap, 2)
    assert means.flatten().tolist() == [0.0, 3.5]
    assert real.tolist() == [0.0, 1.0]
    assert segment_means(values[:, 3:4], None, 3)[0].flatten().tolist() == [3.0] * 3


@given(st.integers(1, 9), st.integers(1, 12))
def test_segment_means_are_adaptive_average_pooling(segments: int, length: int) -> None:
    values = torch.randn(2, length, 3)
    pooled = adaptive_avg_pool1d(values.mT, segments).mT
    torch.testing.assert_close(segment_means(values, None, segments)[0], pooled.flatten(0, 1))


@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 6))
def test_padding_at_the_end_does_not_move_the_segments(segments: int, length: int, padding: int) -> None:
    values = torch.randn(1, length, 3)
    padded = torch.nn.functional.pad(values, (0, 0, 0, padding))
    mask = torch.arange(length + padding).unsqueeze(0) < length
    for given_mask, given_values in ((None, values), (mask, padded)):
        means, real = segment_means(given_values, given_mask, segments)
        if length == 0:
            assert not means.any()
            assert not real.any()
        else:
            torch.testing.assert_close(means, adaptive_avg_pool1d(values.mT, segments).mT.flatten(0, 1))


def test_each_modality_has_the_means_of_its_own_tokens_and_one_left_out_has_none() -> None:
    tokens = {"text": torch.randn(2, 3, 4), "audio": torch.randn(2, 5, 4)}
    mask = {"text": torch.tensor([[True, True, False], [False] * 3])}
    tokens["text"] = tokens["text"] * mask["text"].unsqueeze(-1)
    pooling = pooling_of(tokens, mask, ("text", "vision", "audio"), None)
    means = pooling.means(torch.cat(list(tokens.values()), dim=1).unsqueeze(0))[:, 0]
    assert pooling.present.tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(means[0, 0], tokens["text"][0, :2].mean(0))
    torch.testing.assert_close(means[:, 2], tokens["audio"].mean(1))
    assert not means[1, 0].any()
    assert not means[:, 1].any()


def test_half_types_are_averaged_in_float32() -> None:
    values = torch.full((1, 109, 1), 1.0, dtype=torch.float16)  # 1/109, rounded to float16, would give 0.9995
    assert segment_means(values, None, None)[0].item() == 1.0


def test_float64_is_averaged_in_float64() -> None:
    values = torch.rand(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(segment_means(values, None, None)[0], values.mean(1), atol=1e-15, rtol=1e-15)
