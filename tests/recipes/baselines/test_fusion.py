"""The fusion baselines: masks, absent modalities, and when they mix modalities."""

from typing import Any

import pytest
import torch
from torch import Tensor

from multifuse import CLCRConfig
from multifuse.recipes.baselines.fusion import (
    CrossAttention,
    CrossAttentionForPrediction,
    LateFusion,
    LateFusionForPrediction,
)

NAMES = ("text", "keys", "audio")


def batch() -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    tokens = {name: torch.randn(3, length, 8) for name, length in zip(NAMES, (4, 6, 5), strict=True)}
    mask: dict[str, Tensor | None] = {"text": torch.arange(4).expand(3, -1) < 3, "keys": None}
    mask["audio"] = torch.tensor([[True] * 5, [False] * 5, [True] * 2 + [False] * 3])
    return tokens, mask


@pytest.mark.parametrize("fusion", [LateFusion, CrossAttention])
def test_padding_changes_nothing_and_a_masked_modality_equals_one_left_out(fusion: type[LateFusion]) -> None:
    layer = fusion(8, NAMES, num_labels=2).eval()
    tokens, mask = batch()
    expected = layer(tokens, mask)
    assert expected.shape == (3, 2)
    assert expected.isfinite().all()
    noisy = {name: values + 9 * (~mask[name]).unsqueeze(-1) if mask[name] is not None else values  # type: ignore[operator]
             for name, values in tokens.items()}  # fmt: skip
    torch.testing.assert_close(layer(noisy, mask), expected)
    without = {name: values for name, values in tokens.items() if name != "audio"}
    torch.testing.assert_close(layer(without, mask)[1], expected[1])


@pytest.mark.parametrize("fusion", [LateFusion, CrossAttention])
def test_a_single_modality_and_samples_without_any_stay_finite(fusion: type[LateFusion]) -> None:
    layer = fusion(8, NAMES)
    tokens, _ = batch()
    no_tokens = {name: torch.zeros(values.shape[:2], dtype=torch.bool) for name, values in tokens.items()}
    assert layer({"keys": tokens["keys"]}).isfinite().all()
    logits = layer(tokens, no_tokens)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_cross_attention_mixes_modalities_before_averaging_and_late_fusion_does_not() -> None:
    """A change that leaves a modality's mean as it was is visible only to the attention of other modalities."""
    tokens, _ = batch()
    moved = {**tokens, "keys": tokens["keys"] + torch.tensor([3.0, -3, 3, -3, 3, -3])[:, None]}
    late, cross = LateFusion(8, NAMES).eval(), CrossAttention(8, NAMES).eval()
    torch.testing.assert_close(late(moved), late(tokens))
    assert not torch.allclose(cross(moved), cross(tokens), atol=1e-3)


@pytest.mark.parametrize("model", [LateFusionForPrediction, CrossAttentionForPrediction])
def test_baselines_have_the_interface_of_clcr_and_load_after_saving(model: Any, tmp_path: Any) -> None:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 3} for name in ("text", "audio")}
    config = CLCRConfig(
        modalities=modalities, hidden_size=16, shared_rank=8, private_rank=4, num_heads=2, num_levels=2, dropout=0.0
    )
    network = model(config).eval()
    inputs, labels = {"text": torch.randn(4, 5, 3), "audio": None}, torch.randn(4)
    output = network(inputs, {"text": torch.ones(4, 5, dtype=torch.bool)}, labels=labels)
    torch.testing.assert_close(output.loss, (output.logits[:, 0] - labels).abs().mean())
    network.save_pretrained(tmp_path)
    assert torch.equal(model.from_pretrained(tmp_path).eval()(inputs).logits, output.logits)
