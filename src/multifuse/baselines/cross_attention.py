"""Cross-attention: every modality's tokens attend to those of all the others, then late fusion."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from multifuse._internal.masks import joined_mask
from multifuse._internal.module_keys import module_key
from multifuse.baselines.attention import MaskedAttention
from multifuse.baselines.fusion import FusionForPrediction, FusionOutput, Masks, Tokens, zeroed
from multifuse.baselines.late import LateFusion


class CrossAttention(LateFusion):
    """Late fusion after a residual `nn.MultiheadAttention` per modality, from its tokens to those of all the others."""

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout, num_heads)
        self.attentions = nn.ModuleDict({module_key(name): MaskedAttention(dim, num_heads) for name in self.modalities})

    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        tokens = zeroed(tokens, mask)
        return super()._fused({name: self._mixed(name, tokens, mask) for name in tokens}, mask)

    def _mixed(self, name: str, tokens: Tokens, mask: Masks) -> Tensor:
        """Returns a modality's tokens after the exchange with the others, if there are any."""
        others = [other for other in tokens if other != name]
        if not others:
            return tokens[name]
        keys = torch.cat([tokens[other] for other in others], dim=1)
        real = joined_mask([(tokens[other], mask.get(other)) for other in others])
        attended: Tensor = self.attentions[module_key(name)](tokens[name], keys, real)
        return tokens[name] + attended


class CrossAttentionForPrediction(FusionForPrediction):
    """Predicts with `CrossAttention` behind CLCR's encoders."""

    fusion_class = CrossAttention
