"""What the baselines for CLCR's fusion have in common: the interface, the pooling, and the model around a fusion."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.masks import has_tokens, masked_mean, without_padding
from multifuse._internal.precision import at_least_float32
from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.encoders import encoded, hierarchy
from multifuse.models.flat_inputs import takes_flat_inputs
from multifuse.models.modeling_base import CLCRPreTrainedModel
from multifuse.models.outputs import CLCRPredictionOutput

Tokens = Mapping[str, Tensor]
Masks = Mapping[str, Tensor | None]


class FusionOutput(NamedTuple):
    """What a fusion computes for B samples."""

    logits: Tensor
    """(B, num_labels)."""
    terms: dict[str, Tensor]
    """The named regularisers, unweighted scalars; in training only."""


class Fusion(nn.Module, ABC):
    """Predicts from the tokens of all modalities.

    Args:
        dim: d, the width of the tokens.
        modalities: the names of the modalities, in a fixed order.
        num_labels: the width of the output.
        dropout: dropout rate during training.
        num_heads: number of attention heads, where a fusion has attention; divides ``dim``.

    Shape:
        ``forward(tokens, mask=None)``, called as `IntraCED` is: dicts of (B, T_m, d) and (B, T_m), True or 1 = real
        token -> `FusionOutput`. A modality may be left out or be ``None``; fully masked is the same.

    Raises:
        ValueError: a size that is not a positive integer, tokens or masks that do not fit, by modality, tokens of
            another dtype than the weights.

    Example:
        >>> from multifuse.baselines import LateFusion, MulT
        >>> tokens = {"text": torch.randn(8, 12, 64), "audio": torch.randn(8, 30, 64)}
        >>> [fusion(64, ("text", "audio"))(tokens).logits.shape for fusion in (LateFusion, MulT)]
        [torch.Size([8, 1]), torch.Size([8, 1])]
    """

    term_weights: ClassVar[Mapping[str, float]] = {}
    """The weights of ``terms`` in the loss."""

    def __init__(
        self, dim: int, modalities: Iterable[str], num_labels: int = 1, dropout: float = 0.0, num_heads: int = 4
    ) -> None:
        super().__init__()
        self.dim = checks.positive_integer("dim", dim)
        self.modalities = checks.modality_names(modalities)
        self.num_labels = checks.positive_integer("num_labels", num_labels)
        self.dropout = checks.in_range("dropout", dropout, 0.0, 1.0)
        self.num_heads = checks.positive_integer("num_heads", num_heads)

    def forward(self, tokens: Mapping[str, Tensor | None], mask: Masks | None = None) -> FusionOutput:
        masks = checks.modality_masks(mask, self.modalities)
        checks.token_shapes("tokens", tokens, masks, self.modalities, self.dim)
        given = {name: values for name, values in tokens.items() if values is not None}
        weight = next((weight for weight in self.parameters() if weight.is_floating_point()), None)
        if weight is not None:  # the replicas of DataParallel have no parameters
            for name, values in given.items():
                checks.same_dtype(f"tokens[{name!r}]", values, weight)
        return self._fused(given, masks)

    @abstractmethod
    def _fused(self, tokens: Tokens, mask: Masks) -> FusionOutput:
        """Computes the output; a modality without an entry in ``mask`` is not masked."""

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, {self.modalities}, num_labels={self.num_labels}, dropout={self.dropout}, "
            f"num_heads={self.num_heads}"
        )

    def _head(self, width: int) -> nn.Sequential:
        """Returns an MLP from a width to the logits, as CLCR's head is."""
        return nn.Sequential(
            nn.Linear(width, self.dim), nn.GELU(), nn.Dropout(self.dropout), nn.Linear(self.dim, self.num_labels)
        )


def zeroed(tokens: Tokens, mask: Masks) -> Tokens:
    """Zeroes the tokens at padding, from where attention would spread NaN: a weight of 0 times NaN is NaN."""
    return {name: without_padding(values, mask.get(name)) for name, values in tokens.items()}


class ModalityMeans(NamedTuple):
    """One vector per modality and sample."""

    values: Tensor
    """(B, M, d), zeros for a modality that the sample lacks."""
    present: Tensor
    """(B, M) bool."""


class NormalisedMeans(nn.Module):
    """The mean token of every modality, through a LayerNorm of its own.

    ``forward(tokens, mask)`` -> `ModalityMeans`, in the order of ``modalities``.
    """

    def __init__(self, dim: int, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.modalities = modalities
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in modalities)

    def forward(self, tokens: Tokens, mask: Masks) -> ModalityMeans:
        means = {
            name: normalised_mean(norm, tokens[name], mask.get(name))
            for name, norm in zip(self.modalities, self.norms, strict=True)
            if name in tokens
        }
        present = {name: has_tokens(tokens[name], mask.get(name)) for name in means}
        zeros = torch.zeros_like(next(iter(means.values())))
        absent = torch.zeros_like(next(iter(present.values())))
        return ModalityMeans(
            torch.stack([means.get(name, zeros) for name in self.modalities], dim=1),
            torch.stack([present.get(name, absent) for name in self.modalities], dim=1),
        )


def normalised_mean(norm: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the normalised mean token (B, d), zeros for a sample without tokens."""
    mean: Tensor = norm(masked_mean(tokens, mask))
    return mean.masked_fill(~has_tokens(tokens, mask).unsqueeze(-1), 0.0)


class FusionForPrediction(CLCRPreTrainedModel):
    """Predicts from the last level of CLCR's encoders; else like `CLCRForPrediction`.

    The loss is that of the task, and in training the weighted regularisers of the fusion, if it has any.
    """

    accepts_loss_kwargs = False
    fusion_class: ClassVar[type[Fusion]]

    def __init__(self, config: CLCRConfig) -> None:
        super().__init__(config)
        self.hierarchy = hierarchy(config)
        self.modality_dropout = ModalityDropout(self.hierarchy.modalities, config.modality_dropout)
        self.fusion = self.fusion_class(
            config.hidden_size, self.hierarchy.modalities, config.num_labels, float(config.dropout), config.num_heads
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.MultiheadAttention):  # whose reset has another name than everywhere else in torch
            module._reset_parameters()

    @takes_flat_inputs
    def forward(
        self,
        inputs: Mapping[str, Any],
        mask: Mapping[str, Tensor | None] | None = None,
        labels: Tensor | None = None,
    ) -> CLCRPredictionOutput:
        levels, masks = encoded(self.hierarchy, self.modality_dropout, inputs, mask, self.config.debug)
        fused = self.fusion(levels[-1], masks)
        if labels is None:
            return CLCRPredictionOutput(logits=fused.logits)
        terms = {"task": self.task_loss(at_least_float32(fused.logits), labels), **fused.terms}
        if self.config.debug:
            checks.finite_terms(terms)
        loss = terms["task"]
        for name, weight in self.fusion.term_weights.items():
            if name in terms:
                loss = loss + weight * terms[name]
        return CLCRPredictionOutput(loss=loss, logits=fused.logits, terms=terms)
