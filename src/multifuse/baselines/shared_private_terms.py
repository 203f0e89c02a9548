"""The regularisers of shared-private fusion, as MISA has them: similarity, difference and reconstruction.

Vectors are (B, M, d) for M modalities, and ``present`` (B, M) tells which modalities a sample has. With
``synchronise``, statistics are those of the samples of all ranks.
"""

import torch
from torch import Tensor

from multifuse.losses.moments import mean_over_ranks, sum_over_ranks

MOMENTS = 5


def similarity(shared: Tensor, present: Tensor, synchronise: bool = False) -> Tensor:
    """Returns the central moment discrepancy of the modalities' shared vectors, averaged over pairs of modalities.

    The discrepancy of two sets of vectors is the sum over k, up to ``MOMENTS``, of the Euclidean distance between their
    means (k = 1) and between their central moments of order k, both per feature; features must be in [0, 1].

    Source: Zellinger et al. (ICLR 2017), as in MISA (Hazarika et al., ACM MM 2020).
    """
    mean, count = _mean(shared, present, synchronise)
    centred = (shared - mean).masked_fill(~present.unsqueeze(-1), 0.0)
    powers = torch.stack([centred.pow(k).sum(dim=0) for k in range(2, MOMENTS + 1)])
    moments = torch.cat([mean.unsqueeze(0), sum_over_ranks(powers, synchronise) / count.clamp(min=1.0)])
    first, second = _pairs(shared)
    distances: Tensor = torch.linalg.vector_norm(moments[:, first] - moments[:, second], dim=-1).sum(dim=0)
    compared = ((count[first] > 0) & (count[second] > 0)).squeeze(-1)
    return distances.masked_fill(~compared, 0.0).sum() / compared.sum().clamp(min=1)


def difference(shared: Tensor, private: Tensor, present: Tensor, synchronise: bool = False) -> Tensor:
    """Returns how far the vectors of a sample are from orthogonal: private and shared, and private of two modalities.

    For every such pair, the rows of both are centred and scaled to norm 1, and the mean square of the entries of their
    product (d, d) over samples is taken; the pairs are summed.

    Source: MISA (Hazarika et al., ACM MM 2020); like its code, without gradient through the norms.
    """
    first, second = _pairs(shared)
    left, right = torch.cat([private, private[:, first]], dim=1), torch.cat([shared, private[:, second]], dim=1)
    real = torch.cat([present, present[:, first] & present[:, second]], dim=1)
    both = torch.cat([left, right], dim=1)
    rows = _unit_rows(both, torch.cat([real, real], dim=1), synchronise)
    left, right = rows.chunk(2, dim=1)
    products = sum_over_ranks(torch.einsum("bpi,bpj->pij", left, right), synchronise)
    return products.square().mean(dim=(1, 2)).sum()


def reconstruction(decoded: Tensor, vectors: Tensor, present: Tensor, synchronise: bool = False) -> Tensor:
    """Returns the mean squared error of the decoded vectors, over samples, modalities and features."""
    errors = (decoded - vectors).square().mean(dim=-1)
    return mean_over_ranks(errors.flatten(), present.flatten(), synchronise)


def _pairs(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the numbers of the modalities in every unordered pair, (P,) each."""
    first, second = torch.triu_indices(vectors.shape[1], vectors.shape[1], offset=1, device=vectors.device)
    return first, second


def _mean(vectors: Tensor, present: Tensor, synchronise: bool) -> tuple[Tensor, Tensor]:
    """Returns the mean over samples that have the modality, (M, d), and their number, (M, 1)."""
    weight = present.unsqueeze(-1).to(vectors.dtype)
    sums = sum_over_ranks(torch.cat([vectors * weight, weight], dim=-1).sum(dim=0), synchronise)
    count = sums[:, -1:].detach()
    return sums[:, :-1] / count.clamp(min=1.0), count


def _unit_rows(vectors: Tensor, present: Tensor, synchronise: bool) -> Tensor:
    centred = vectors - _mean(vectors, present, synchronise)[0]
    centred = centred.masked_fill(~present.unsqueeze(-1), 0.0)
    norms: Tensor = torch.linalg.vector_norm(centred.detach(), dim=-1, keepdim=True)
    return centred / (norms + 1e-6)
