"""What CLCR's training step is measured against: models of other makes, on features (B, T, width) a modality."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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


class LateFusion(nn.Module):
    """Concatenated means of the projected modalities, and an MLP."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, DIM) for name, width in widths.items()})
        self.head = nn.Sequential(nn.Linear(len(widths) * DIM, DIM), nn.GELU(), nn.Linear(DIM, 1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        means = [self.projections[name](values).mean(dim=1) for name, values in inputs.items()]
        logits: Tensor = self.head(torch.cat(means, dim=-1))
        return logits


class CrossAttention(nn.Module):
    """One `nn.MultiheadAttention` a modality, its tokens the queries, all the other modalities' the keys and values."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, DIM) for name, width in widths.items()})
        self.attentions = nn.ModuleDict({name: nn.MultiheadAttention(DIM, HEADS, batch_first=True) for name in widths})
        self.head = nn.Sequential(nn.Linear(len(widths) * DIM, DIM), nn.GELU(), nn.Linear(DIM, 1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = {name: self.projections[name](values) for name, values in inputs.items()}
        means = []
        for name, queries in tokens.items():
            others = torch.cat([values for other, values in tokens.items() if other != name], dim=1)
            attended, _ = self.attentions[name](queries, others, others, need_weights=False)
            means.append((queries + attended).mean(dim=1))
        logits: Tensor = self.head(torch.cat(means, dim=-1))
        return logits
