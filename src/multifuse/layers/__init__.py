"""The layers of the method, one per file, under the names of the paper."""

from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.exchange import IntraCEDOutput
from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.layers.inter_cad import InterCAD, InterCADOutput
from multifuse.layers.intra_ced import IntraCED
from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.layers.stiefel import Bases, SharedPrivate, StiefelProjector, cached_bases
from multifuse.layers.temporal_conv import TemporalConvLevels
from multifuse.layers.text_levels import TextLevels
from multifuse.layers.token_budget import TokenBudget

__all__ = [
    "BackboneLevels",
    "Bases",
    "InterCAD",
    "InterCADOutput",
    "IntraCED",
    "IntraCEDOutput",
    "ModalityDropout",
    "SemanticHierarchyEncoder",
    "SharedPrivate",
    "StiefelProjector",
    "TemporalConvLevels",
    "TextLevels",
    "TokenBudget",
    "cached_bases",
]
