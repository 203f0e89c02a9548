"""CLCR as Hugging Face classes."""

from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.modeling_clcr import CLCRForPrediction, CLCRModel
from multifuse.models.modeling_segments import CLCRForSegmentPrediction
from multifuse.models.outputs import CLCRModelOutput, CLCRPredictionOutput

__all__ = [
    "CLCRConfig",
    "CLCRForPrediction",
    "CLCRForSegmentPrediction",
    "CLCRModel",
    "CLCRModelOutput",
    "CLCRPredictionOutput",
]
