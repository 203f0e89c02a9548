"""Other models that CLCR's training step is compared with, on features (B, T, width) per modality."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from multifuse.baselines.fusion import Fusion

DIM, HEADS = 128, 4


class Transformer(nn.Module):
    """A two-layer transformer over the concatenated tokens of all modalities."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, DIM) for name, width in widths.items()})
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 256, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(DIM, 1)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = torch.cat([self.projections[name](values) for name, values in inputs.items()], dim=1)
        logits: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


class Projected(nn.Module):
    """A fusion of tokens after one linear map per modality in place of an encoder."""

    def __init__(self, widths: Mapping[str, int], fusion: type[Fusion]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, DIM) for name, width in widths.items()})
        self.fusion = fusion(DIM, widths)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.fusion({name: self.projections[name](values) for name, values in inputs.items()}).logits
        return logits
