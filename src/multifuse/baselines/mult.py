"""MulT, compact: cross-modal transformers between every ordered pair of modalities, and self-attention over each."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from multifuse.baselines.attention import MaskedAttention, MaskedTransformer
from multifuse.baselines.fusion import Fusion, FusionForPrediction, FusionOutput, Masks, NormalisedMeans, Tokens, zeroed

CROSS_LAYERS = 1


class CrossModalLayer(nn.Module):
    """A pre-norm transformer layer whose attention goes from the tokens of a modality to those of another, its source.

    ``forward(tokens, source, mask)``: (B, T, d), (B, S, d), (B, S) -> (B, T, d). An absent source adds nothing.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.token_norm, self.source_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MaskedAttention(dim, num_heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, source: Tensor | None, mask: Tensor | None) -> Tensor:
        if source is not None:
            attended = self.attention(self.token_norm(tokens), self.source_norm(source), mask)
            tokens = tokens + self.dropout(attended)
        hidden: Tensor = self.feed_forward(tokens)
        return tokens + hidden


class MulT(Fusion):
    """A compact version of MulT (Tsai et al., ACL 2019).

    The tokens of every modality pass through ``CROSS_LAYERS`` layers for each other modality as source. The results are
    concatenated, go through a self-attention layer of that width, and are averaged; the head reads the normalised means
    of all modalities. It leaves out the temporal convolutions and sinusoidal positions, which CLCR's encoders replace,
    and has fewer layers. The published model reads the last token, where ours reads the mean, and has a residual block
    in the place of our head.
    """

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout, num_heads)
        count = len(self.modalities)
        # A modality alone has no source, and its own tokens are the only stream.
        width = max(count - 1, 1) * dim
        self.crossings = nn.ModuleDict(
            {
                self._key(target, source): nn.ModuleList(
                    CrossModalLayer(dim, num_heads, dropout) for _ in range(CROSS_LAYERS)
                )
                for target in self.modalities
                for source in self.modalities
                if source != target
            }
        )
        self.transformers = nn.ModuleList(MaskedTransformer(width, num_heads, dropout) for _ in self.modalities)
        self.means = NormalisedMeans(width, self.modalities)
        self.head = self._head(count * width)

    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        tokens = zeroed(tokens, mask)
        mixed = {
            name: transformer(self._streams(name, tokens, mask), mask.get(name))
            for name, transformer in zip(self.modalities, self.transformers, strict=True)
            if name in tokens
        }
        return FusionOutput(self.head(self.means(mixed, mask).values.flatten(1)), {})

    def _streams(self, target: str, tokens: Tokens, mask: Masks) -> Tensor:
        """Returns the tokens of a modality after those of each other one were mixed in: (B, T, (M - 1) d)."""
        streams = []
        for source in self.modalities:
            if source == target:
                continue
            stream = tokens[target]
            layers = self.crossings[self._key(target, source)]
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                stream = layer(stream, tokens.get(source), mask.get(source))
            streams.append(stream)
        return torch.cat(streams, dim=-1) if streams else tokens[target]

    def _key(self, target: str, source: str) -> str:
        # Numbers, because names may themselves contain whatever joins them.
        return f"{self.modalities.index(source)}_to_{self.modalities.index(target)}"


class MulTForPrediction(FusionForPrediction):
    """Predicts with `MulT` behind CLCR's encoders."""

    fusion_class = MulT
