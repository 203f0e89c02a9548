"""Other fusions to compare with, all called as `IntraCED` is, and models with them behind CLCR's encoders."""

from multifuse.baselines.concatenation import Concatenation, ConcatenationForPrediction
from multifuse.baselines.cross_attention import CrossAttention, CrossAttentionForPrediction
from multifuse.baselines.fusion import Fusion, FusionOutput
from multifuse.baselines.late import LateFusion, LateFusionForPrediction
from multifuse.baselines.low_rank import LowRankFusion, LowRankFusionForPrediction
from multifuse.baselines.mult import MulT, MulTForPrediction
from multifuse.baselines.shared_private import SharedPrivateFusion, SharedPrivateFusionForPrediction

__all__ = [
    "Concatenation",
    "ConcatenationForPrediction",
    "CrossAttention",
    "CrossAttentionForPrediction",
    "Fusion",
    "FusionOutput",
    "LateFusion",
    "LateFusionForPrediction",
    "LowRankFusion",
    "LowRankFusionForPrediction",
    "MulT",
    "MulTForPrediction",
    "SharedPrivateFusion",
    "SharedPrivateFusionForPrediction",
]
