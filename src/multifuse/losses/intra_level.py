"""IntraLevelLoss: keeps the private and the shared codes of one level apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from multifuse._internal import checks
from multifuse.layers.inter_cad import InterCADOutput
from multifuse.layers.intra_ced import IntraCEDOutput
from multifuse.losses.streams import Correlations, checked, measure, weighted_mean
from multifuse.losses.whitening import ridge


class IntraLevelTerms(NamedTuple):
    """Scalars; ``total`` is the sum of the two terms."""

    private_private: Tensor
    """Between the private codes of different modalities, by sample means."""
    private_shared: Tensor
    """Between the private and the shared codes (after the exchange) of one modality, token by token."""
    total: Tensor


class IntraLevelLoss(nn.Module):
    """Averages, over levels and pairs, the whitened cross-correlation of codes that should not repeat each other.

    Two parts, each a mean and added (L_intra): private codes of different modalities; private and shared codes of one
    modality. Without a pair of modalities the first part is 0.

    Args:
        eps: the relative ridge of `WhiteningXCorrLoss`.
        debias: subtract and rescale what independent noise scores (ours).
        modalities: names, in a fixed order. Needed under data parallelism when a rank's batch can lack a modality.

    ``forward(levels, aggregate=None, mask=None)``: ``aggregate``, as `InterLevelLoss` takes it, is ignored.

    Source: CLCR (arXiv 2602.19605), the intra-level regulariser; which rows are compared, and debias, are ours.
    """

    def __init__(self, eps: float = 1e-3, debias: bool = True, modalities: Iterable[str] | None = None) -> None:
        super().__init__()
        self.eps, self.debias = ridge(eps), debias
        self.modalities = None if modalities is None else checks.modality_names(modalities)

    def forward(
        self,
        levels: Sequence[IntraCEDOutput],
        aggregate: InterCADOutput | None = None,
        mask: Mapping[str, Tensor | None] | None = None,
    ) -> IntraLevelTerms:
        names = checked(levels, mask, self.modalities)
        return self.terms(measure(levels, mask, names, self.eps, self.debias, self.training))

    @staticmethod
    def terms(correlations: Correlations) -> IntraLevelTerms:
        """The terms, read from correlations that are measured already."""
        private_private = weighted_mean(correlations.across_modalities, correlations.measured_across)
        same_level = correlations.shared_private.diagonal(dim1=1, dim2=2)
        private_shared = weighted_mean(same_level, correlations.measured)
        return IntraLevelTerms(private_private, private_shared, private_private + private_shared)
