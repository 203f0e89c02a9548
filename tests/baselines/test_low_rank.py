"""Low-rank fusion: equal to the contraction of the outer product with the full weight tensor."""

import pytest
import torch

from multifuse.baselines.fusion import ModalityMeans
from multifuse.baselines.low_rank import RANK, LowRankFusion

NAMES = ("text", "keys", "audio")


def fusion() -> LowRankFusion:
    torch.manual_seed(0)
    layer = LowRankFusion(3, NAMES).double()
    torch.nn.init.normal_(layer.bias)
    return layer


def test_the_product_of_factors_is_the_contracted_outer_product() -> None:
    layer, vectors = fusion(), torch.randn(5, 3, 3, dtype=torch.float64)
    text, keys, audio = torch.cat([vectors, torch.ones(5, 3, 1)], dim=-1).unbind(dim=1)
    outer = torch.einsum("bi,bj,bk->bijk", text, keys, audio)
    weight = torch.einsum("r,rih,rjh,rkh->ijkh", layer.weights, *layer.factors)
    expected = torch.einsum("bijk,ijkh->bh", outer, weight) + layer.bias
    present = torch.ones(5, 3, dtype=torch.bool)
    torch.testing.assert_close(layer.contracted(ModalityMeans(vectors, present)), expected)


@pytest.mark.parametrize("absent", range(3))
def test_an_absent_modality_is_left_out_of_the_product(absent: int) -> None:
    layer, vectors = fusion(), torch.randn(5, 3, 3, dtype=torch.float64)
    first, second = (m for m in range(3) if m != absent)
    extended = torch.cat([vectors, torch.ones(5, 3, 1)], dim=-1)
    weight = torch.einsum("r,rih,rjh->ijh", layer.weights, layer.factors[first], layer.factors[second])
    expected = torch.einsum("bi,bj,ijh->bh", extended[:, first], extended[:, second], weight) + layer.bias
    present = (torch.arange(3) != absent).expand(5, 3)
    torch.testing.assert_close(layer.contracted(ModalityMeans(vectors, present)), expected)


def test_fresh_weights_keep_the_scale_of_normalised_vectors() -> None:
    torch.manual_seed(0)
    layer = LowRankFusion(64, NAMES)
    vectors = torch.nn.functional.layer_norm(torch.randn(256, 3, 64), (64,))
    spread = layer.contracted(ModalityMeans(vectors, torch.ones(256, 3, dtype=torch.bool))).square().mean().sqrt()
    assert 0.3 < spread / layer.weights.norm() < 3
    assert layer.factors.shape == (3, RANK, 65, 64)
