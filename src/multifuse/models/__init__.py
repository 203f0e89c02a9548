"""CLCR as Hugging Face classes."""

from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.modeling_clcr import CLCRForPrediction, CLCRModel
from multifuse.models.modeling_generation import CLCRForConditionalGeneration
from multifuse.models.modeling_segments import CLCRForSegmentPrediction
from multifuse.models.outputs import CLCRGenerationOutput, CLCRModelOutput, CLCRPredictionOutput

__all__ = [
    "CLCRConfig",
    "CLCRForConditionalGeneration",
    "CLCRForPrediction",
    "CLCRForSegmentPrediction",
    "CLCRGenerationOutput",
    "CLCRModel",
    "CLCRModelOutput",
    "CLCRPredictionOutput",
]
