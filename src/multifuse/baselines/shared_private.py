"""Shared-private fusion, compact MISA: a shared and a private vector per modality, kept apart by three regularisers."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from multifuse._internal.precision import at_least_float32, without_autocast
from multifuse.baselines.attention import MaskedTransformer
from multifuse.baselines.fusion import (
    Fusion,
    FusionForPrediction,
    FusionOutput,
    Masks,
    ModalityMeans,
    NormalisedMeans,
    Tokens,
)
from multifuse.baselines.shared_private_terms import difference, reconstruction, similarity


class SharedPrivateFusion(Fusion):
    """A compact version of MISA (Hazarika et al., ACM MM 2020): shared and private parts, without levels or tokens.

    The normalised mean token of every modality goes through a shared encoder, the same for all modalities, and through
    a private one. A transformer layer mixes the 2 M vectors, and the head reads them concatenated. In training, the
    loss has the terms ``similarity`` (of the shared vectors), ``difference`` (between shared and private vectors) and
    ``reconstruction`` (of the pooled vectors, from the sum of both), with the weights of the authors' code. It leaves
    out the recurrent networks and the projections in front of the encoders, which CLCR's encoders replace; the
    transformer layer is pre-norm, and its feed-forward and the head are smaller.
    """

    term_weights = {"similarity": 1.0, "difference": 0.3, "reconstruction": 1.0}

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout, num_heads)
        count = len(self.modalities)
        self.means = NormalisedMeans(dim, self.modalities)
        self.shared = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())
        self.private = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid()) for _ in self.modalities)
        self.decoders = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities)
        self.transformer = MaskedTransformer(dim, num_heads, dropout)
        self.head = self._head(2 * count * dim)

    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        means = self.means(tokens, mask)
        shared = self.shared(means.values)
        private = _by_modality(self.private, means.values)
        real = means.present.repeat(1, 2)
        mixed = self.transformer(torch.cat([shared, private], dim=1), real)
        logits = self.head(mixed.masked_fill(~real.unsqueeze(-1), 0.0).flatten(1))
        return FusionOutput(logits, self._terms(means, shared, private) if self.training else {})

    def _terms(self, means: ModalityMeans, shared: Tensor, private: Tensor) -> dict[str, Tensor]:
        decoded = _by_modality(self.decoders, shared + private)
        with without_autocast(decoded.device):
            decoded, vectors, shared, private = map(at_least_float32, (decoded, means.values, shared, private))
            return {
                "similarity": similarity(shared, means.present, synchronise=True),
                "difference": difference(shared, private, means.present, synchronise=True),
                "reconstruction": reconstruction(decoded, vectors, means.present, synchronise=True),
            }


class SharedPrivateFusionForPrediction(FusionForPrediction):
    """Predicts with `SharedPrivateFusion` behind CLCR's encoders."""

    fusion_class = SharedPrivateFusion


def _by_modality(modules: nn.ModuleList, vectors: Tensor) -> Tensor:
    """Applies one module per modality: (B, M, d) -> (B, M, d)."""
    return torch.stack([module(vector) for module, vector in zip(modules, vectors.unbind(dim=1), strict=True)], dim=1)
