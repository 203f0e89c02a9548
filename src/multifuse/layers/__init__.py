"""The method's layers, one a file, under the paper's names."""

from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.layers.inter_cad import InterCAD, InterCADOutput
from multifuse.layers.intra_ced import IntraCED, IntraCEDOutput
from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.layers.stiefel import Bases, SharedPrivate, StiefelProjector
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
]
