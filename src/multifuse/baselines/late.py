"""Late fusion: the normalised mean tokens of all modalities, concatenated, and an MLP."""

from collections.abc import Iterable

from multifuse.baselines.fusion import Fusion, FusionForPrediction, FusionOutput, Masks, NormalisedMeans, Tokens


class LateFusion(Fusion):
    """Concatenates the mean token of every modality, each after a LayerNorm of its own, and applies an MLP.

    A modality that is absent or fully masked counts as zeros. With a single modality, this is that modality alone.
    """

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout, num_heads)
        self.means = NormalisedMeans(dim, self.modalities)
        self.head = self._head(len(self.modalities) * dim)

    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        return FusionOutput(self.head(self.means(tokens, mask).values.flatten(1)), {})


class LateFusionForPrediction(FusionForPrediction):
    """Predicts with `LateFusion` behind CLCR's encoders."""

    fusion_class = LateFusion
