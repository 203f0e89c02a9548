"""InterLevelLoss: keeps levels from repeating each other, and from being mixed when they disagree."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from multifuse._internal.exportable import exportable
from multifuse._internal.precision import at_least_float32, without_autocast
from multifuse.layers.exchange import IntraCEDOutput
from multifuse.layers.inter_cad import InterCADOutput
from multifuse.losses.moments import mean_over_ranks
from multifuse.losses.regulariser import Regulariser
from multifuse.losses.streams import Correlations


@exportable
class InterLevelTerms(NamedTuple):
    """Scalars; ``total`` is the sum of the three terms, all 0 with a single level."""

    private_private: Tensor
    """L_pr: private codes of different levels of one modality, mean over pairs l < l'."""
    shared_private: Tensor
    """L_sp: shared codes of one level and private codes of another, of one modality, mean over ordered pairs."""
    mixing: Tensor
    """L_mix: levels switched on together although their descriptors disagree."""
    total: Tensor


class InterLevelLoss(Regulariser):
    r"""Computes ``L_inter = L_pr + L_sp + L_mix``.

    L_pr and L_sp are means of the whitened cross-correlation, token by token, between levels of one modality; and

    .. math:: L_{mix} = E \sum_{l<l'} \omega_l \omega_{l'} (1 - \cos(g_l, g_{l'})) / 2

    Args:
        eps, debias, modalities: as in `IntraLevelLoss`.

    Shape:
        ``forward(levels, aggregate, mask=None)``: the `IntraCEDOutput` of every level, the `InterCADOutput`, masks
        (B, T_m) by modality -> `InterLevelTerms`, all 0 with a single level.

    Raises:
        ValueError: as `IntraLevelLoss`; an aggregate of another number of levels or samples.

    Source: CLCR (arXiv 2602.19605), the inter-level regulariser; the forms of the terms are ours.

    Example:
        >>> names = ("text", "audio")
        >>> tokens = {"text": torch.randn(8, 12, 64), "audio": torch.randn(8, 30, 64)}
        >>> levels = [IntraCED(64, names, shared_rank=24, private_rank=16)(tokens) for _ in range(3)]
        >>> terms = InterLevelLoss()(levels, InterCAD(64, names, num_levels=3)(levels))
        >>> terms.total.shape
        torch.Size([])
    """

    def forward(
        self,
        levels: Sequence[IntraCEDOutput],
        aggregate: InterCADOutput,
        mask: Mapping[str, Tensor | None] | None = None,
    ) -> InterLevelTerms:
        correlations = self.correlations(levels, mask)
        batch, weighed = next(iter(levels[0].shared_code.values())).shape[0], aggregate.level_weights.shape[0]
        if weighed != batch:
            raise ValueError(f"aggregate has batch size {weighed}, levels has {batch}")
        return self.terms(correlations, aggregate, self.training)

    @staticmethod
    def terms(correlations: Correlations, aggregate: InterCADOutput, synchronise: bool) -> InterLevelTerms:
        """Returns the terms, given the correlations."""
        num_levels = correlations.private_private.shape[-1]
        if aggregate.level_weights.shape[-1] != num_levels:
            raise ValueError(f"aggregate has {aggregate.level_weights.shape[-1]} levels, levels has {num_levels}")
        if num_levels == 1:
            zero = correlations.private_private.new_zeros(())
            return InterLevelTerms(zero, zero, zero, zero)
        tables = torch.stack([correlations.private_private, correlations.shared_private])
        other_levels = tables.sum(dim=(1, 2)) - tables.diagonal(dim1=1, dim2=2).sum(-1)
        private_private, shared_private = (other_levels / (num_levels * (num_levels - 1))).unbind()
        mixing = _mixing(aggregate, synchronise)
        return InterLevelTerms(private_private, shared_private, mixing, private_private + shared_private + mixing)


def _mixing(aggregate: InterCADOutput, synchronise: bool) -> Tensor:
    """Returns L_mix, averaged over the samples or segments (of all ranks) that have any modality."""
    direction = normalize(at_least_float32(aggregate.level_descriptors).flatten(0, -3), dim=-1)
    weights = at_least_float32(aggregate.level_weights).flatten(0, -2).unsqueeze(-1)
    with without_autocast(direction.device):
        disagreement = (1 - direction @ direction.mT) / 2
    mixing = (weights * weights.mT * disagreement).triu(1).sum(dim=(-2, -1))
    present = (aggregate.modality_weights != 0).any(dim=-1).flatten()  # NaN is present: it must reach the loss
    return mean_over_ranks(mixing, present, synchronise)
