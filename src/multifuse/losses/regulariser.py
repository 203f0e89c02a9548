"""Regulariser: what IntraLevelLoss and InterLevelLoss have in common."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from multifuse._internal import checks
from multifuse.layers.exchange import IntraCEDOutput
from multifuse.losses.streams import Correlations, checked, measure


class Regulariser(nn.Module):
    """Measures the correlations between the codes of a batch, with the options of a regulariser."""

    def __init__(self, eps: float = 1e-3, debias: bool = True, *, modalities: Iterable[str] | None = None) -> None:
        super().__init__()
        self.eps, self.debias = checks.positive_number("eps", eps), debias
        self.modalities = None if modalities is None else checks.modality_names(modalities)

    def correlations(self, levels: Sequence[IntraCEDOutput], mask: Mapping[str, Tensor | None] | None) -> Correlations:
        """Measures all correlations; in training, over the batches of all ranks."""
        names, masks = checked(levels, mask, self.modalities)
        return measure(levels, masks, names, self.eps, self.debias, self.training)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, debias={self.debias}, modalities={self.modalities}"
