"""Training recipes: the published one, and the one that was best on validation data here."""

from dataclasses import dataclass, replace
from typing import Literal

from multifuse.recipes.data.media.augmentation import ImageAugmentation, SpectrogramAugmentation
from multifuse.recipes.data.media.clip_dataset import Augmentation


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. ``lr`` is the fusion model's; a pretrained encoder's, ``lr * encoder_lr_scale``."""

    optimizer: Literal["adamw", "sgd"]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Literal["constant", "linear"]
    warmup: float
    """Share of all steps over which the learning rate rises."""
    encoder_lr_scale: float
    layer_decay: float
    """The encoder's learning rate shrinks by this factor a layer, from the top."""
    feature_dropout: float
    """Dropout in the encoders of stored features, on their input too."""
    regression_loss: Literal["l1", "mse", "smooth_l1"]
    max_grad_norm: float
    """0: gradients are not clipped."""
    weight_average: float | None
    """The decay of a running mean of the weights, which is evaluated and kept; ``None``: the weights themselves."""
    initial_last_level: float | None
    """The last level's weight before training; ``None``: all levels alike."""
    level_floor: float = 0.0
    """The share of the level weights that is uniform."""
    modality_floor: float = 0.0
    """The same of the modality weights."""
    augmentation: Augmentation | None = None
    """Of spectrograms and frames."""


# The paper's training: SGD, momentum 0.9, learning rate 1e-3, weight decay 1e-4, batch 64, 100 epochs.
PAPER = Recipe(
    optimizer="sgd",
    epochs=100,
    batch_size=64,
    lr=1e-3,
    weight_decay=1e-4,
    schedule="constant",
    warmup=0.0,
    encoder_lr_scale=1.0,
    layer_decay=1.0,
    feature_dropout=0.1,
    regression_loss="l1",
    max_grad_norm=0.0,
    weight_average=None,
    initial_last_level=None,
)

# Fine-tuning a pretrained text encoder, by its size: each chosen on the validation split of MOSI (docs/results.md).
FINE_TUNING = Recipe(
    optimizer="adamw",
    epochs=5,
    batch_size=32,
    lr=5e-4,
    weight_decay=0.01,
    schedule="linear",
    warmup=0.1,
    encoder_lr_scale=0.2,
    layer_decay=0.9,
    feature_dropout=0.7,
    regression_loss="mse",
    max_grad_norm=1.0,
    weight_average=None,
    initial_last_level=0.99,  # where a pretrained encoder holds what it was trained for
)
FINE_TUNING_SMALL = replace(
    FINE_TUNING,
    epochs=8,
    batch_size=16,
    lr=2.5e-4,
    encoder_lr_scale=0.4,
    layer_decay=1.0,
    regression_loss="l1",
    weight_average=0.99,
)
SMALL_WIDTH = 512
"""An encoder narrower than this is a small one."""

# Training on stored features, everything from scratch.
FEATURES = Recipe(
    optimizer="adamw",
    epochs=20,
    batch_size=32,
    lr=1e-3,
    weight_decay=0.01,
    schedule="linear",
    warmup=0.1,
    encoder_lr_scale=1.0,
    layer_decay=1.0,
    feature_dropout=0.1,
    regression_loss="l1",
    max_grad_norm=1.0,
    weight_average=None,
    initial_last_level=None,
)

# The published recipe on clips, with OGM-GE's cropping and mirroring of frames.
CLIPS_PAPER = replace(PAPER, augmentation=Augmentation(vision=ImageAugmentation(scale=0.92, flip=True)))

# Training on clips, ResNets from scratch: a place to start from, not chosen on any of the benchmarks.
CLIPS = replace(
    FEATURES,
    epochs=50,
    batch_size=64,
    lr=2e-3,
    weight_decay=0.05,
    augmentation=Augmentation(
        audio=SpectrogramAugmentation(time_shift=0.1, gain=0.5, noise=0.2),
        vision=ImageAugmentation(scale=0.5, flip=True, contrast=0.2),
    ),
)

# Clips behind pretrained backbones, which learn slower with depth: a place to start from, too.
CLIPS_FINE_TUNING = replace(CLIPS, encoder_lr_scale=0.1, layer_decay=0.8)

# Spoken and written digits; how it was chosen: docs/results.md. With uniform weights sound is learnt beside pictures.
AV_DIGITS = replace(
    CLIPS,
    epochs=36,
    batch_size=24,
    lr=2e-3,
    weight_average=0.99,
    level_floor=1.0,
    modality_floor=1.0,
    augmentation=Augmentation(
        SpectrogramAugmentation(
            time_shift=0.1, frequency_shift=0.03, frequency_warp=0.15, stretch=0.2, gain=0.7, noise=0.8
        ),
        ImageAugmentation(scale=0.15, shift=0.04, rotation=8, stretch=0.08, contrast=0.2, noise=0.1),
        pair_anew=True,
    ),
)

# The embedded defaults of the audio-visual examples: a few hundred small clips.
PLANTED_CLIPS = replace(
    CLIPS,
    epochs=6,
    batch_size=16,
    augmentation=Augmentation(SpectrogramAugmentation(time_shift=0.1), ImageAugmentation(shift=0.05)),
)


def clip_recipe(benchmark: str, synthetic: bool, pretrained: bool = False) -> Recipe:
    """The default recipe of an audio-visual benchmark, with a pretrained backbone or without one."""
    if synthetic:
        return PLANTED_CLIPS
    if pretrained:
        return CLIPS_FINE_TUNING
    return AV_DIGITS if benchmark == "av_digits" else CLIPS


def fine_tuning_or_features(encoder_width: int | None) -> Recipe:
    """The default recipe, by the width of the pretrained encoder that is tuned, ``None`` without one."""
    if encoder_width is None:
        return FEATURES
    return FINE_TUNING_SMALL if encoder_width < SMALL_WIDTH else FINE_TUNING
