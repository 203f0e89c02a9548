"""Concatenation, or early fusion: one transformer over the tokens of all modalities, side by side in time."""

from collections.abc import Iterable

import torch
from torch import nn

from multifuse._internal.masks import joined_mask
from multifuse.baselines.attention import MaskedTransformer
from multifuse.baselines.fusion import Fusion, FusionForPrediction, FusionOutput, Masks, Tokens, normalised_mean, zeroed

LAYERS = 2


class Concatenation(Fusion):
    """Adds a modality embedding to the tokens, concatenates them along time, and pools a two-layer transformer.

    The head reads the mean token after a LayerNorm.
    """

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout, num_heads)
        self.embedding = nn.Embedding(len(self.modalities), dim)
        self.transformer = MaskedTransformer(dim, num_heads, dropout, LAYERS)
        self.norm = nn.LayerNorm(dim)
        self.head = self._head(dim)

    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        tokens = zeroed(tokens, mask)
        present = [name for name in self.modalities if name in tokens]
        device = tokens[present[0]].device
        marks = dict(
            zip(self.modalities, self.embedding(torch.arange(len(self.modalities), device=device)), strict=True)
        )
        marked = [tokens[name] + marks[name] for name in present]
        real = joined_mask([(tokens[name], mask.get(name)) for name in present])
        hidden = self.transformer(torch.cat(marked, dim=1), real)
        return FusionOutput(self.head(normalised_mean(self.norm, hidden, real)), {})


class ConcatenationForPrediction(FusionForPrediction):
    """Predicts with `Concatenation` behind CLCR's encoders."""

    fusion_class = Concatenation
