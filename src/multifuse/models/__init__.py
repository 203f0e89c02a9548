"""CLCR as Hugging Face classes."""

from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.modeling_clcr import (
    CLCRForPrediction,
    CLCRForSegmentPrediction,
    CLCRModel,
    CLCRModelOutput,
    CLCRPredictionOutput,
)

__all__ = [
    "CLCRConfig",
    "CLCRForPrediction",
    "CLCRForSegmentPrediction",
    "CLCRModel",
    "CLCRModelOutput",
    "CLCRPredictionOutput",
]
