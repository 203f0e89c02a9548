"""Low-rank tensor fusion, compact: the outer product of all modalities' vectors, contracted with low-rank weights."""

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from multifuse.baselines.fusion import (
    Fusion,
    FusionForPrediction,
    FusionOutput,
    Masks,
    ModalityMeans,
    NormalisedMeans,
    Tokens,
)

RANK = 4


class LowRankFusion(Fusion):
    """A compact version of LMF, low-rank multimodal fusion (Liu et al., ACL 2018).

    A 1 is appended to the normalised mean token of every modality, and the outer product of these vectors over all
    modalities is contracted with a weight tensor of rank ``RANK``: ``h = sum_r w_r prod_m (W_r^m [x_m; 1]) + b``, which
    needs no outer product. A modality that a sample lacks is left out of the product. It leaves out the subnetworks of
    the modalities, which CLCR's encoders replace; ``h`` has the width d, and a linear head follows, where the published
    ``h`` is already the output.
    """

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout, num_heads)
        self.means = NormalisedMeans(dim, self.modalities)
        self.factors = nn.Parameter(torch.empty(len(self.modalities), RANK, dim + 1, dim))
        self.weights = nn.Parameter(torch.empty(RANK))
        self.bias = nn.Parameter(torch.empty(dim))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, num_labels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws factors that keep the scale of normalised vectors, so that their product has it too."""
        nn.init.normal_(self.factors, std=(self.dim + 1) ** -0.5)
        nn.init.normal_(self.weights, std=RANK**-0.5)
        nn.init.zeros_(self.bias)

    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        return FusionOutput(self.head(self.contracted(self.means(tokens, mask))), {})

    def contracted(self, means: ModalityMeans) -> Tensor:
        """Returns the contraction h (B, d)."""
        extended = torch.cat([means.values, torch.ones_like(means.values[..., :1])], dim=-1)
        products = torch.einsum("bmi,mrih->bmrh", extended, self.factors)
        products = products.masked_fill(~means.present[:, :, None, None], 1.0)
        product = reduce(torch.mul, products.unbind(dim=1))  # the gradient of torch.prod waits for a GPU
        return torch.einsum("r,brh->bh", self.weights, product) + self.bias


class LowRankFusionForPrediction(FusionForPrediction):
    """Predicts with `LowRankFusion` behind CLCR's encoders."""

    fusion_class = LowRankFusion
