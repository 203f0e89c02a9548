"""The knobs of the planted set, and its named settings.

The label of a sample is a weighted sum of latent values (`Factor`) and of their products (`Interaction`). Each value
is planted in the features of one modality or of several, at one level (see `planted_waves`). docs/data.md describes
what each knob is for.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features.field_names import FEATURES
from multifuse.recipes.data.features.layouts import SPLITS
from multifuse.recipes.data.features.planted_waves import LEVELS, SHORTEST, Level


@dataclass(frozen=True)
class Factor:
    """A latent value, drawn independently per sample: uniform in [-1, 1], or -1 or 1 if ``values`` is ``"binary"``."""

    name: str
    level: Level
    modalities: tuple[str, ...]
    """Where the value is planted: one modality has it to itself, several share it and have a copy each."""
    weight: float
    values: Literal["continuous", "binary"] = "continuous"

    @property
    def shared(self) -> bool:
        return len(self.modalities) > 1


@dataclass(frozen=True)
class Interaction:
    """Adds ``weight`` times the product of the values of two factors, given by name, to the label."""

    first: str
    second: str
    weight: float


@dataclass(frozen=True)
class Event:
    """What is planted once in each sample: a copy of a factor, or a distractor (``factor`` is ``None``)."""

    modality: str
    level: Level
    amplitude: float
    factor: int | None


@dataclass(frozen=True)
class PlantedSettings:
    """Everything that determines a planted set, except the seed.

    Raises:
        ValueError: if a value is out of its range, or a name is unknown or used twice.
    """

    factors: tuple[Factor, ...]
    interactions: tuple[Interaction, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=lambda: {"train": 1024, "valid": 192, "test": 384})
    """Number of samples of each split."""
    lengths: Mapping[str, int] = field(default_factory=lambda: {"text": 16, "vision": 20, "audio": 24})
    """Number of tokens of the longest samples of each modality; the shortest have two thirds of it."""
    widths: Mapping[str, int] = field(default_factory=lambda: {"text": 32, "vision": 16, "audio": 16})
    """Number of features of a token of each modality."""
    amplitudes: Mapping[Level, float] = field(default_factory=lambda: {"token": 6.0, "order": 2.5, "clip": 1.5})
    """Amplitude of the events of each level."""
    asynchrony: float = 1.0
    """0 plants all factors of a sample at the same relative time, 1 at independent times; between, times are mixed."""
    distractors: float = 0.0
    """Amplitude of the distractors relative to that of the factors; 0 for none."""
    distractor_levels: Literal["all", "other"] = "all"
    """Whether a modality has a distractor at each level, or only at the levels at which it has no factor."""
    feature_noise: float = 0.5
    """Standard deviation of the noise of every feature."""
    label_noise: float = 0.1
    """Standard deviation of the noise of the labels."""
    copy_noise: float = 0.0
    """Standard deviation of the noise of each copy of a shared value, in units of the value."""

    def __post_init__(self) -> None:
        _check(self)

    def events(self) -> tuple[Event, ...]:
        """Returns what is planted in each sample, modality by modality, factors before distractors."""
        return tuple(self._events())

    def _events(self) -> Iterator[Event]:
        for modality in FEATURES:
            here = [(index, factor) for index, factor in enumerate(self.factors) if modality in factor.modalities]
            for index, factor in here:
                yield Event(modality, factor.level, self.amplitudes[factor.level], index)
            left_out = {factor.level for _, factor in here} if self.distractor_levels == "other" else set()
            for level in LEVELS:
                if self.distractors and level not in left_out:
                    yield Event(modality, level, self.amplitudes[level] * self.distractors, None)

    def clean_labels(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the labels (N,) of factor values (N, F), without noise, before they are clipped to [-3, 3]."""
        column = {factor.name: values[:, index] for index, factor in enumerate(self.factors)}
        labels = np.zeros(len(values))
        for factor in self.factors:
            labels += factor.weight * column[factor.name]
        for interaction in self.interactions:
            labels += interaction.weight * column[interaction.first] * column[interaction.second]
        return labels


def _check(settings: PlantedSettings) -> None:
    names = [factor.name for factor in settings.factors]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"factors must have different names, and at least one is needed, got {names}")
    for factor in settings.factors:
        where = f"the {{}} of factor {factor.name!r}"
        _check_choice(where.format("level"), factor.level, LEVELS)
        _check_choice(where.format("values"), factor.values, ("continuous", "binary"))
        for modality in factor.modalities:
            _check_choice(where.format("modalities"), modality, FEATURES)
        if len(set(factor.modalities)) < len(factor.modalities) or not factor.modalities:
            raise ValueError(f"{where.format('modalities')} must be one or more, each once, got {factor.modalities}")
        _check_finite(where.format("weight"), factor.weight, lowest=-math.inf)
    for interaction in settings.interactions:
        for name in (interaction.first, interaction.second):
            _check_choice("an interaction's factors", name, names)
        _check_finite("an interaction's weight", interaction.weight, lowest=-math.inf)
    for name in ("distractors", "feature_noise", "label_noise", "copy_noise"):
        _check_finite(name, getattr(settings, name), lowest=0)
    if not 0 <= settings.asynchrony <= 1:
        raise ValueError(f"asynchrony must be in [0, 1], got {settings.asynchrony}")
    _check_choice("distractor_levels", settings.distractor_levels, ("all", "other"))
    _check_sizes(settings)


def _check_sizes(settings: PlantedSettings) -> None:
    """Checks the mappings, whose keys are fixed: splits, modalities and levels."""
    for name, keys in (("sizes", SPLITS), ("lengths", FEATURES), ("widths", FEATURES), ("amplitudes", LEVELS)):
        mapping: Mapping[str, float] = getattr(settings, name)
        if set(mapping) != set(keys):
            raise ValueError(f"{name} must have the keys {', '.join(keys)}, got {', '.join(mapping)}")
    for name, amplitude in settings.amplitudes.items():
        if not 0 < amplitude < math.inf:
            raise ValueError(f"amplitudes must be finite and > 0, got {amplitude} for {name}")
    for name, size in settings.sizes.items():
        if size < 1:
            raise ValueError(f"sizes must be >= 1, got {size} for {name}")
    for name, length in settings.lengths.items():
        if shortest(length) < SHORTEST:
            raise ValueError(f"lengths must be >= {SHORTEST * 3 // 2}, got {length} for {name}")
    for name, width in settings.widths.items():
        directions = sum(event.modality == name for event in settings.events())
        if width < max(directions, 1):
            raise ValueError(f"widths must be >= the number of events, {directions} in {name}, got {width}")


def shortest(length: int) -> int:
    """Returns the length of the shortest samples of a modality whose longest have ``length`` tokens."""
    return length * 2 // 3


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_finite(name: str, value: float, lowest: float) -> None:
    if not (lowest <= value and math.isfinite(value)):
        raise ValueError(f"{name} must be finite{' and >= 0' if lowest == 0 else ''}, got {value}")


_CUES = PlantedSettings(
    factors=(
        Factor("word", "token", ("text",), 1.3),
        Factor("gesture", "order", ("vision",), 0.8, values="binary"),
        Factor("tone", "clip", ("audio",), 1.3),
    ),
    interactions=(Interaction("word", "tone", 0.8),),
    lengths={"text": 24, "vision": 30, "audio": 40},
    widths={"text": 32, "vision": 16, "audio": 8},
)
_DEFAULT = PlantedSettings(
    factors=(
        Factor("word", "token", ("text",), 0.9),
        Factor("mood", "clip", ("text",), 0.6),
        Factor("gesture", "order", ("vision",), 0.5, values="binary"),
        Factor("tone", "clip", ("audio",), 0.8),
        Factor("emphasis", "token", ("text", "audio"), 0.9),
        Factor("rhythm", "order", ("vision", "audio"), 0.7),
    ),
    interactions=(Interaction("mood", "tone", 0.9), Interaction("word", "gesture", 0.6)),
    sizes={"train": 2048, "valid": 256, "test": 768},  # with fewer, all models overfit, and chance ranks them
    distractors=1.0,
    feature_noise=0.3,
    copy_noise=0.2,
)
_LEVELS = PlantedSettings(
    factors=(
        Factor("word", "token", ("text",), 0.8),
        Factor("mood", "clip", ("text",), 0.8),
        Factor("glance", "token", ("vision",), 0.6),
        Factor("sway", "clip", ("vision",), 0.6),
        Factor("select", "order", ("audio",), 0.6, values="binary"),
    ),
    interactions=(  # where select is 1, the label is 1.6 word + 1.2 glance + 0.6; elsewhere 1.6 mood + 1.2 sway - 0.6
        Interaction("select", "word", 0.8),
        Interaction("select", "mood", -0.8),
        Interaction("select", "glance", 0.6),
        Interaction("select", "sway", -0.6),
    ),
    sizes=_DEFAULT.sizes,
    distractors=1.0,
    distractor_levels="other",
    feature_noise=0.3,
)
_SHARED = PlantedSettings(
    factors=(
        Factor("word", "token", ("text",), 0.4),
        Factor("gesture", "order", ("vision",), 0.3, values="binary"),
        Factor("tone", "clip", ("audio",), 0.4),
        Factor("emphasis", "token", FEATURES, 1.2),
        Factor("rhythm", "order", FEATURES, 1.2),
    ),
    interactions=(Interaction("emphasis", "rhythm", 0.8),),
    distractors=1.0,
    copy_noise=0.6,
)
SETTINGS: dict[str, PlantedSettings] = {
    "cues": _CUES,
    "default": _DEFAULT,
    "levels": _LEVELS,
    "synchronous": replace(_DEFAULT, asynchrony=0.0),
    "shared": _SHARED,
}
EMBEDDED = "cues"
"""The setting that the sentiment job trains on if it is given neither a feature file nor the name of a setting."""
