"""Baselines for CLCR's fusion behind the same encoders: late fusion and cross-attention."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from multifuse._internal.masks import has_tokens, joined_mask, masked_mean
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.modeling_clcr import CLCRPredictionOutput, CLCRPreTrainedModel, hierarchy, token_masks


class LateFusion(nn.Module):
    """Concatenates the mean token of every modality and applies an MLP.

    Args:
        dim: d, the width of the tokens.
        modalities: the names of the modalities.
        num_labels: the width of the output.
        dropout: dropout rate in the MLP during training.

    ``forward(tokens, mask=None)``: dicts of (B, T_m, d) and (B, T_m) bool -> (B, num_labels). A modality that is absent
    or fully masked counts as zeros.
    """

    def __init__(self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.head = nn.Sequential(
            nn.Linear(len(self.modalities) * dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, num_labels)
        )

    def forward(self, tokens: Mapping[str, Tensor], mask: Mapping[str, Tensor | None] | None = None) -> Tensor:
        mask = {} if mask is None else mask
        means = {name: masked_mean(self._mixed(name, tokens, mask), mask.get(name)) for name in tokens}
        absent = torch.zeros_like(next(iter(means.values())))
        logits: Tensor = self.head(torch.cat([means.get(name, absent) for name in self.modalities], dim=-1))
        return logits

    def _mixed(self, name: str, tokens: Mapping[str, Tensor], mask: Mapping[str, Tensor | None]) -> Tensor:
        """Returns a modality's tokens after any exchange with the others, of which there is none here."""
        return tokens[name]


class CrossAttention(LateFusion):
    """Late fusion after a residual `nn.MultiheadAttention` per modality, from its tokens to those of all the others."""

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__(dim, modalities, num_labels, dropout)
        # Keys are prefixed, since a modality may have the name of an attribute of nn.ModuleDict.
        self.attentions = nn.ModuleDict(
            {f"modality_{name}": nn.MultiheadAttention(dim, num_heads, batch_first=True) for name in self.modalities}
        )

    def _mixed(self, name: str, tokens: Mapping[str, Tensor], mask: Mapping[str, Tensor | None]) -> Tensor:
        queries, others = tokens[name], [other for other in tokens if other != name]
        if not others:
            return queries
        keys = torch.cat([tokens[other] for other in others], dim=1)
        attention = self.attentions[f"modality_{name}"]
        real = joined_mask([(tokens[other], mask.get(other)) for other in others])
        if real is None:
            return queries + cast(Tensor, attention(queries, keys, keys, need_weights=False)[0])
        reaches = has_tokens(keys, real).unsqueeze(-1)
        hidden = ~real & reaches  # a sample whose keys are all hidden would give NaN
        attended = attention(queries, keys, keys, key_padding_mask=hidden, need_weights=False)[0]
        return queries + cast(Tensor, attended.masked_fill(~reaches.unsqueeze(-1), 0.0))


class _FusionBaselineForPrediction(CLCRPreTrainedModel):
    """Predicts from the last level of CLCR's encoders, with the task's loss only; else like `CLCRForPrediction`."""

    accepts_loss_kwargs = False
    fusion_class: ClassVar[type[LateFusion]]

    def __init__(self, config: CLCRConfig) -> None:
        super().__init__(config)
        self.hierarchy = hierarchy(config)
        names = self.hierarchy.modalities
        self.fusion = self.fusion_class(config.hidden_size, names, config.num_labels, float(config.dropout))
        self.post_init()

    def forward(
        self,
        inputs: Mapping[str, Any],
        mask: Mapping[str, Tensor | None] | None = None,
        labels: Tensor | None = None,
    ) -> CLCRPredictionOutput:
        masks = token_masks(inputs, mask, self.hierarchy.modalities)
        levels = self.hierarchy(inputs, masks)
        masks = self.hierarchy.token_masks(levels, masks)
        logits = self.fusion(levels[-1], masks)
        loss = None if labels is None else self.task_loss(logits.float(), labels)
        return CLCRPredictionOutput(loss=loss, logits=logits)


class LateFusionForPrediction(_FusionBaselineForPrediction):
    """Predicts with `LateFusion` behind CLCR's encoders."""

    fusion_class = LateFusion


class CrossAttentionForPrediction(_FusionBaselineForPrediction):
    """Predicts with `CrossAttention` behind CLCR's encoders."""

    fusion_class = CrossAttention
