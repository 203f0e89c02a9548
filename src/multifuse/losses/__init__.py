"""The regularisers of the method."""

from multifuse.losses.inter_level import InterLevelLoss, InterLevelTerms
from multifuse.losses.intra_level import IntraLevelLoss, IntraLevelTerms
from multifuse.losses.whitening import WhiteningXCorrLoss

__all__ = ["InterLevelLoss", "InterLevelTerms", "IntraLevelLoss", "IntraLevelTerms", "WhiteningXCorrLoss"]
