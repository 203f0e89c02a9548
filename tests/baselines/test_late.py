"""Late fusion and cross-attention: what the head reads, and when modalities are mixed."""

import torch
from torch import nn

from multifuse.baselines.cross_attention import CrossAttention
from multifuse.baselines.late import LateFusion

NAMES = ("text", "keys")


def test_the_head_reads_the_normalised_means_and_zeros_for_an_absent_modality() -> None:
    torch.manual_seed(0)
    fusion = LateFusion(4, NAMES).eval()
    nn.init.normal_(fusion.means.norms[1].bias)  # type: ignore[arg-type]
    tokens = {"text": torch.randn(2, 3, 4), "keys": 5 + 3 * torch.randn(2, 6, 4)}
    present = torch.tensor([True, False])[:, None].expand(2, 6)
    mean = tokens["keys"][0].mean(0)
    expected = (mean - mean.mean()) / (mean.var(correction=0) + 1e-5).sqrt() + fusion.means.norms[1].bias  # type: ignore[operator]
    values = fusion.means(tokens, {"keys": present}).values
    torch.testing.assert_close(values[0, 1], expected)
    assert torch.equal(values[1, 1], torch.zeros(4))
    torch.testing.assert_close(fusion(tokens, {"keys": present}).logits, fusion.head(values.reshape(2, 8)))


def test_the_scale_of_a_modality_does_not_change_late_fusion() -> None:
    torch.manual_seed(0)
    fusion, tokens = LateFusion(8, NAMES).eval(), {name: torch.randn(3, 4, 8) for name in NAMES}
    scaled = {**tokens, "keys": 100 * tokens["keys"]}
    torch.testing.assert_close(fusion(scaled).logits, fusion(tokens).logits, atol=1e-3, rtol=1e-3)


def test_cross_attention_mixes_modalities_before_averaging_and_late_fusion_does_not() -> None:
    """A change that leaves a modality's mean as it was is visible only to the attention of other modalities."""
    torch.manual_seed(0)
    tokens = {"text": torch.randn(3, 4, 8), "keys": torch.randn(3, 6, 8)}
    moved = {**tokens, "keys": tokens["keys"] + torch.tensor([3.0, -3, 3, -3, 3, -3])[:, None]}
    late, cross = LateFusion(8, NAMES).eval(), CrossAttention(8, NAMES).eval()
    torch.testing.assert_close(late(moved).logits, late(tokens).logits)
    assert not torch.allclose(cross(moved).logits, cross(tokens).logits, atol=1e-3)
