"""multifuse: drop-in multimodal-fusion layers for PyTorch, and the reference implementation of CLCR (CVPR 2026)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from multifuse.version import __version__

if TYPE_CHECKING:
    from multifuse.deployment import export as export
    from multifuse.layers import BackboneLevels as BackboneLevels
    from multifuse.layers import Bases as Bases
    from multifuse.layers import InterCAD as InterCAD
    from multifuse.layers import InterCADOutput as InterCADOutput
    from multifuse.layers import IntraCED as IntraCED
    from multifuse.layers import IntraCEDOutput as IntraCEDOutput
    from multifuse.layers import ModalityDropout as ModalityDropout
    from multifuse.layers import SemanticHierarchyEncoder as SemanticHierarchyEncoder
    from multifuse.layers import SharedPrivate as SharedPrivate
    from multifuse.layers import StiefelProjector as StiefelProjector
    from multifuse.layers import TemporalConvLevels as TemporalConvLevels
    from multifuse.layers import TextLevels as TextLevels
    from multifuse.layers import TokenBudget as TokenBudget
    from multifuse.layers import cached_bases as cached_bases
    from multifuse.losses import InterLevelLoss as InterLevelLoss
    from multifuse.losses import InterLevelTerms as InterLevelTerms
    from multifuse.losses import IntraLevelLoss as IntraLevelLoss
    from multifuse.losses import IntraLevelTerms as IntraLevelTerms
    from multifuse.losses import WhiteningXCorrLoss as WhiteningXCorrLoss
    from multifuse.models import CLCRConfig as CLCRConfig
    from multifuse.models import CLCRForConditionalGeneration as CLCRForConditionalGeneration
    from multifuse.models import CLCRForPrediction as CLCRForPrediction
    from multifuse.models import CLCRForSegmentPrediction as CLCRForSegmentPrediction
    from multifuse.models import CLCRGenerationOutput as CLCRGenerationOutput
    from multifuse.models import CLCRModel as CLCRModel
    from multifuse.models import CLCRModelOutput as CLCRModelOutput
    from multifuse.models import CLCRPredictionOutput as CLCRPredictionOutput
    from multifuse.processing import FeatureInput as FeatureInput
    from multifuse.processing import FrameInput as FrameInput
    from multifuse.processing import MultimodalCollator as MultimodalCollator
    from multifuse.processing import Sample as Sample
    from multifuse.processing import SoundInput as SoundInput
    from multifuse.processing import TextInput as TextInput
    from multifuse.processing import register as register
    from multifuse.processing.processor import CLCRProcessor as CLCRProcessor

# Loaded on first use, so that `import multifuse` stays as light as torch (the models bring transformers with them).
_HOMES = {
    "export": "multifuse.deployment",
    "BackboneLevels": "multifuse.layers",
    "Bases": "multifuse.layers",
    "InterCAD": "multifuse.layers",
    "InterCADOutput": "multifuse.layers",
    "IntraCED": "multifuse.layers",
    "IntraCEDOutput": "multifuse.layers",
    "ModalityDropout": "multifuse.layers",
    "SemanticHierarchyEncoder": "multifuse.layers",
    "SharedPrivate": "multifuse.layers",
    "StiefelProjector": "multifuse.layers",
    "TemporalConvLevels": "multifuse.layers",
    "TextLevels": "multifuse.layers",
    "TokenBudget": "multifuse.layers",
    "cached_bases": "multifuse.layers",
    "InterLevelLoss": "multifuse.losses",
    "InterLevelTerms": "multifuse.losses",
    "IntraLevelLoss": "multifuse.losses",
    "IntraLevelTerms": "multifuse.losses",
    "WhiteningXCorrLoss": "multifuse.losses",
    "CLCRConfig": "multifuse.models",
    "CLCRForConditionalGeneration": "multifuse.models",
    "CLCRForPrediction": "multifuse.models",
    "CLCRForSegmentPrediction": "multifuse.models",
    "CLCRGenerationOutput": "multifuse.models",
    "CLCRModel": "multifuse.models",
    "CLCRModelOutput": "multifuse.models",
    "CLCRPredictionOutput": "multifuse.models",
    "FeatureInput": "multifuse.processing",
    "FrameInput": "multifuse.processing",
    "MultimodalCollator": "multifuse.processing",
    "Sample": "multifuse.processing",
    "SoundInput": "multifuse.processing",
    "TextInput": "multifuse.processing",
    "register": "multifuse.processing",
    "CLCRProcessor": "multifuse.processing.processor",
}
__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'multifuse' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
