"""Training recipes: the published one, and our defaults for each kind of input."""

from dataclasses import dataclass, replace
from typing import Literal

from multifuse.recipes.data.media.augmentation import ImageAugmentation, SpectrogramAugmentation
from multifuse.recipes.data.media.clip_dataset import Augmentation


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    ``lr`` is the learning rate of the fusion model; that of a pretrained encoder is ``lr * encoder_lr_scale``.
    """

    optimizer: Literal["adamw", "sgd"]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Literal["constant", "linear"]
    warmup: float
    """Fraction of all steps over which the learning rate rises."""
    encoder_lr_scale: float
    layer_decay: float
    """Factor by which the encoder's learning rate shrinks per layer, from the top down."""
    feature_dropout: float
    """Dropout in the encoders of stored features (on their input too) and of media."""
    regression_loss: Literal["l1", "mse", "smooth_l1"]
    max_grad_norm: float
    """Norm to which gradients are clipped; 0 disables clipping."""
    weight_average: float | None
    """Decay of a running mean of the weights, which is evaluated and saved; ``None`` uses the weights themselves."""
    init_last_level: float | None
    """Weight of the last level before training; ``None`` gives all levels the same weight."""
    level_floor: float = 0.0
    """Fraction of the level weights that is uniform."""
    modality_floor: float = 0.0
    """Fraction of the modality weights that is uniform."""
    augmentation: Augmentation | None = None
    """Augmentation of spectrograms and frames."""


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
    init_last_level=None,
)

# Fine-tuning a large or a small pretrained text encoder; both were chosen on the validation split of MOSI
# (docs/results.md).
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
    init_last_level=0.99,  # a pretrained encoder is most useful at its last level
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
"""Encoders narrower than this are fine-tuned with `FINE_TUNING_SMALL`."""

# Training on stored features, with everything from scratch.
FEATURES = Recipe(
    optimizer="adamw",
    epochs=20,
    batch_size=32,
    lr=2e-3,
    weight_decay=0.01,
    schedule="linear",
    warmup=0.1,
    encoder_lr_scale=1.0,
    layer_decay=1.0,
    feature_dropout=0.1,
    regression_loss="l1",
    max_grad_norm=1.0,
    weight_average=None,
    init_last_level=None,
)

# The published recipe for clips, with OGM-GE's cropping and mirroring of frames.
CLIPS_PAPER = replace(PAPER, augmentation=Augmentation(vision=ImageAugmentation(scale=0.92, flip=True)))

# Training ResNets from scratch on clips: a starting point, not tuned on any of the benchmarks.
CLIPS = replace(
    FEATURES,
    epochs=50,
    batch_size=64,
    weight_decay=0.05,
    augmentation=Augmentation(
        audio=SpectrogramAugmentation(time_shift=0.1, gain=0.5, noise=0.2),
        vision=ImageAugmentation(scale=0.5, flip=True, contrast=0.2),
    ),
)

# Clips with pretrained backbones, whose lower layers learn more slowly: a starting point too.
CLIPS_FINE_TUNING = replace(CLIPS, encoder_lr_scale=0.1, layer_decay=0.8)

# Spoken and written digits, chosen as described in docs/results.md. With uniform weights, the model learns the
# sound alongside the images.
AV_DIGITS = replace(
    CLIPS,
    epochs=36,
    batch_size=24,
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

# The built-in synthetic data of the audio-visual examples: a few hundred small clips.
PLANTED_CLIPS = replace(
    CLIPS,
    epochs=6,
    batch_size=16,
    augmentation=Augmentation(SpectrogramAugmentation(time_shift=0.1), ImageAugmentation(shift=0.05)),
)


def clip_recipe(benchmark: str, synthetic: bool, pretrained: bool = False) -> Recipe:
    """Returns the default recipe of an audio-visual benchmark, with or without a pretrained backbone."""
    if synthetic:
        return PLANTED_CLIPS
    if pretrained:
        return CLIPS_FINE_TUNING
    return AV_DIGITS if benchmark == "av_digits" else CLIPS


def fine_tuning_or_features(encoder_width: int | None) -> Recipe:
    """Returns the default recipe for the width of the pretrained encoder that is fine-tuned, ``None`` without one."""
    if encoder_width is None:
        return FEATURES
    return FINE_TUNING_SMALL if encoder_width < SMALL_WIDTH else FINE_TUNING
