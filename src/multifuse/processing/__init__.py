"""From texts, features and media files to the inputs of a model: its processor, and the collator of its batches."""

from multifuse.processing.collator import MultimodalCollator, Sample
from multifuse.processing.feature_input import FeatureInput
from multifuse.processing.frame_input import FrameInput
from multifuse.processing.registration import register
from multifuse.processing.sound_input import SoundInput
from multifuse.processing.text_input import TextInput

__all__ = [
    "FeatureInput",
    "FrameInput",
    "MultimodalCollator",
    "Sample",
    "SoundInput",
    "TextInput",
    "register",
]
