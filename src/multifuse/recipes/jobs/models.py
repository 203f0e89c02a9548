"""The models that the jobs train, by the names of `--model`."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BASELINES = "multifuse.baselines"
# Classes are named, not imported: the command line lists the models without loading torch.
MODELS = {
    "clcr": "multifuse.models.modeling_clcr.CLCRForPrediction",
    "late-fusion": f"{_BASELINES}.late.LateFusionForPrediction",
    "cross-attention": f"{_BASELINES}.cross_attention.CrossAttentionForPrediction",
    "concatenation": f"{_BASELINES}.concatenation.ConcatenationForPrediction",
    "mult": f"{_BASELINES}.mult.MulTForPrediction",
    "low-rank": f"{_BASELINES}.low_rank.LowRankFusionForPrediction",
    "shared-private": f"{_BASELINES}.shared_private.SharedPrivateFusionForPrediction",
    "text": f"{_BASELINES}.text.TextBaselineForPrediction",
}
CLIP_MODELS = tuple(name for name in MODELS if name != "text")
"""The models of clips, which have no text."""


def model_class(name: str) -> "type[PreTrainedModel]":
    """Returns the class of a model, by its name in ``MODELS``."""
    module, _, attribute = MODELS[name].rpartition(".")
    cls: type[PreTrainedModel] = getattr(import_module(module), attribute)
    return cls
