"""IntraLevelLoss: keeps the private and the shared codes of one level apart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from multifuse._internal.exportable import exportable
from multifuse.layers.exchange import IntraCEDOutput
from multifuse.losses.regulariser import Regulariser
from multifuse.losses.streams import Correlations


@exportable
class IntraLevelTerms(NamedTuple):
    """Scalars; ``total`` is the sum of the two terms."""

    private_private: Tensor
    """Between the private codes of different modalities, by sample means."""
    private_shared: Tensor
    """Between the private and the shared codes (after the exchange) of one modality, token by token."""
    total: Tensor


class IntraLevelLoss(Regulariser):
    """Averages the whitened cross-correlation of codes that should not repeat each other, over levels and pairs.

    L_intra is the sum of two means: between private codes of different modalities, and between private and shared codes
    of one modality. Without a pair of modalities the first is 0.

    Args:
        eps: the relative ridge of `WhiteningXCorrLoss`.
        debias: subtract what independent noise scores, and rescale (ours).
        modalities: names, in a fixed order. Needed under data parallelism where the batch of a rank can lack a
            modality.

    Shape:
        ``forward(levels, mask=None)``: the `IntraCEDOutput` of every level, masks (B, T_m) by modality ->
        `IntraLevelTerms`.

    Raises:
        ValueError: no level, levels with different modalities, a mask of another shape, ``eps <= 0``.

    Source: CLCR (arXiv 2602.19605), the intra-level regulariser; which rows are compared, and debias, are ours.

    Example:
        >>> exchange = IntraCED(64, ("text", "audio"), shared_rank=24, private_rank=16)
        >>> level = exchange({"text": torch.randn(8, 12, 64), "audio": torch.randn(8, 30, 64)})
        >>> terms = IntraLevelLoss()([level])
        >>> bool(terms.total == terms.private_private + terms.private_shared)
        True
    """

    def forward(
        self,
        levels: Sequence[IntraCEDOutput],
        mask: Mapping[str, Tensor | None] | None = None,
    ) -> IntraLevelTerms:
        return self.terms(self.correlations(levels, mask))

    @staticmethod
    def terms(correlations: Correlations) -> IntraLevelTerms:
        """Returns the terms, given the correlations."""
        private_private = correlations.across_modalities.mean()
        private_shared = correlations.shared_private.diagonal().mean()
        return IntraLevelTerms(private_private, private_shared, private_private + private_shared)
