"""A synthetic data set whose labels depend on values planted in the features, written as an MMSA feature file.

The features of every token are Gaussian noise. Into each sample, every factor of the settings is planted once per
modality that has it, along a direction of its own, and every modality may get distractors of the same forms, along
directions orthogonal to those of the factors. The label is the factors' formula plus noise, clipped to [-3, 3].
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.features.field_names import FEATURES
from multifuse.recipes.data.features.layouts import SPLITS
from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS, Event, PlantedSettings, shortest
from multifuse.recipes.data.features.planted_waves import SPANS, carrier, first_and_last_start, pattern
from multifuse.recipes.files import whole

LABEL_RANGE = 3.0
_WORDS = (
    ("dreadful", "bad", "poor", "plain", "fair", "good", "great", "superb"),
    ("never", "seldom", "rarely", "sometimes", "often", "mostly", "usually", "always"),
)
"""The words that show the value of the first and the second token-level factor of text in ``raw_text``."""
_FILLERS = ("the", "film", "was", "and", "it", "so", "then", "we", "saw", "a")


@dataclass(frozen=True)
class Truth:
    """What was planted in the N samples of a split, with F factors and E events; the file does not contain it."""

    values: NDArray[np.float64]
    """The values of the factors, (N, F)."""
    starts: NDArray[np.int64]
    """The first token of each event, (N, E); 0 for an event at the level of the clip."""
    tokens: Mapping[str, NDArray[np.bool_]]
    """By modality (N, T): whether a token carries a factor at the token or order level; distractors do not count."""


@dataclass(frozen=True)
class PlantedFeatures:
    """A planted set: the splits as in the file, what was planted in each, and the direction of each event."""

    settings: PlantedSettings
    splits: Mapping[str, Mapping[str, Any]]
    truth: Mapping[str, Truth]
    directions: tuple[NDArray[np.float64], ...]


def planted(settings: PlantedSettings, seed: int = 0) -> PlantedFeatures:
    """Draws a set, which is the same on every machine for the same settings and seed.

    Sets that differ in nothing but their asynchrony, or the size of a noise, have all other random numbers in common.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    directions = _directions(settings, random)
    drawn = {name: _split(settings, directions, name, random) for name in SPLITS}
    splits = {name: split for name, (split, _) in drawn.items()}
    return PlantedFeatures(settings, splits, {name: truth for name, (_, truth) in drawn.items()}, directions)


def write_planted(path: Path, settings: PlantedSettings = SETTINGS[EMBEDDED], seed: int = 0) -> None:
    """Writes a set to ``path`` as a feature file, atomically."""
    content = pickle.dumps(planted(settings, seed).splits, protocol=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_bytes(content)


def _directions(settings: PlantedSettings, random: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Returns a unit vector per event, orthogonal to those of the other events of its modality."""
    events = settings.events()
    directions: list[NDArray[np.float64]] = []
    for event in events:
        direction = random.normal(size=settings.widths[event.modality])
        for other, earlier in zip(events, directions):
            if other.modality == event.modality:
                direction = direction - (direction * earlier).sum() * earlier
        directions.append(np.asarray(direction / np.linalg.norm(direction)))
    return tuple(directions)


def _split(
    settings: PlantedSettings, directions: tuple[NDArray[np.float64], ...], name: str, random: np.random.Generator
) -> tuple[dict[str, Any], Truth]:
    count = settings.sizes[name]
    values = random.uniform(-1, 1, size=(count, len(settings.factors)))
    binary = [factor.values == "binary" for factor in settings.factors]
    values[:, binary] = np.sign(values[:, binary])
    lengths = {
        modality: random.integers(shortest(longest), longest + 1, size=count)
        for modality, longest in ((modality, settings.lengths[modality]) for modality in FEATURES)
    }
    features = {
        modality: random.normal(
            scale=settings.feature_noise, size=(count, settings.lengths[modality], settings.widths[modality])
        )
        for modality in FEATURES
    }
    drawn = _draw_events(settings, values, lengths, random)
    _plant(features, settings.events(), directions, drawn, lengths)
    noise = random.normal(scale=settings.label_noise, size=count)
    labels = np.clip(settings.clean_labels(values) + noise, -LABEL_RANGE, LABEL_RANGE).astype(np.float32)
    truth = Truth(values, drawn.starts, _informative(settings, drawn.starts, lengths))
    return _fields(name, labels, drawn.sentences, features, lengths), truth


class _Drawn(NamedTuple):
    """Random properties of the events of a split, (N, E) each, and the sentences (N,) that go with them."""

    values: NDArray[np.float64]
    starts: NDArray[np.int64]
    signs: NDArray[np.float64]
    sentences: list[str]


def _draw_events(
    settings: PlantedSettings,
    factor_values: NDArray[np.float64],
    lengths: Mapping[str, NDArray[np.int64]],
    random: np.random.Generator,
) -> _Drawn:
    events = settings.events()
    values = _event_values(settings, factor_values, random)
    common = random.spawn(1)[0]  # its own stream, so that another asynchrony changes nothing but the times
    starts, signs = np.zeros(values.shape, dtype=np.int64), np.ones(values.shape)
    worded = [i for i, event in enumerate(events) if (event.modality, event.level) == ("text", "token")]
    worded = [index for index in worded if events[index].factor is not None]
    sentences = []
    for row in range(len(values)):
        row_lengths = {modality: int(lengths[modality][row]) for modality in FEATURES}
        centre = _common_centre(settings, row_lengths, common)
        for modality in FEATURES:
            for index, event in enumerate(events):
                if event.modality == modality and event.level == "clip":
                    signs[row, index] = random.choice([-1.0, 1.0])
                elif event.modality == modality:
                    starts[row, index] = _start(event, row_lengths[modality], centre, settings.asynchrony, random)
            if modality == "text":
                words = list(zip(starts[row, worded].tolist(), values[row, worded].tolist()))
                sentences.append(_sentence(random, words, row_lengths["text"]))
    return _Drawn(values, starts, signs, sentences)


def _plant(
    features: dict[str, NDArray[np.float64]],
    events: tuple[Event, ...],
    directions: tuple[NDArray[np.float64], ...],
    drawn: _Drawn,
    lengths: Mapping[str, NDArray[np.int64]],
) -> None:
    """Adds the events to the features, in place."""
    for index, event in enumerate(events):
        for row, length in enumerate(lengths[event.modality]):
            planted = drawn.values[row, index] * pattern(event.level, int(drawn.starts[row, index]), length)
            shape = event.amplitude * drawn.signs[row, index] * (carrier(event.level, length) + planted)
            features[event.modality][row, :length] += shape[:, None] * directions[index]


def _informative(
    settings: PlantedSettings, starts: NDArray[np.int64], lengths: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.bool_]]:
    """Returns by modality (N, T) the tokens that carry a factor which has a time."""
    tokens = {name: np.zeros((len(starts), longest), dtype=bool) for name, longest in settings.lengths.items()}
    for index, event in enumerate(settings.events()):
        if event.factor is not None and event.level != "clip":
            steps = np.arange(settings.lengths[event.modality]) - starts[:, index, None]
            tokens[event.modality] |= (steps >= 0) & (steps < SPANS[event.level])
    return tokens


def _event_values(
    settings: PlantedSettings, values: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Returns the value of each event, (N, E): a factor's, with noise if it is shared, or a distractor's own."""
    factors = [None if event.factor is None else settings.factors[event.factor] for event in settings.events()]
    shared = [factor is not None and factor.shared for factor in factors]
    distracting = [factor is None for factor in factors]
    event_values = values[:, [event.factor or 0 for event in settings.events()]]
    event_values[:, shared] += random.normal(scale=settings.copy_noise, size=(len(values), sum(shared)))
    event_values[:, distracting] = random.uniform(-1, 1, size=(len(values), sum(distracting)))
    return event_values


def _common_centre(settings: PlantedSettings, lengths: Mapping[str, int], random: np.random.Generator) -> float:
    """Draws a relative time, in (0, 1), around which every factor that has a time fits into its sequence."""
    timed = [event for event in settings.events() if event.factor is not None and event.level != "clip"]
    if not timed:
        return 0.5
    spans = []
    for event in timed:
        length, half = lengths[event.modality], SPANS[event.level] / 2
        spans.append([(start + half) / length for start in first_and_last_start(event.level, length)])
    return float(random.uniform(max(low for low, _ in spans), min(high for _, high in spans)))


def _start(event: Event, length: int, centre: float, asynchrony: float, random: np.random.Generator) -> int:
    """Draws the first token of an event: a mixture of its own time and the common one, if it is not a distractor."""
    first, last = first_and_last_start(event.level, length)
    own = int(random.integers(first, last + 1))
    if event.factor is None:
        return own
    half = SPANS[event.level] / 2
    return int(np.rint(asynchrony * own + (1 - asynchrony) * (centre * length - half)))


def _sentence(random: np.random.Generator, words: list[tuple[int, float]], length: int) -> str:
    sentence = [str(word) for word in random.choice(_FILLERS, size=length)]
    taken: set[int] = set()
    for (position, value), choices in zip(words, _WORDS):
        position += position in taken  # a token-level event is never at the last token, so a next one exists
        taken.add(position)
        sentence[position] = choices[min(max(int((value + 1) / 2 * len(choices)), 0), len(choices) - 1)]
    return " ".join(sentence)


def _fields(
    name: str,
    labels: NDArray[np.float32],
    sentences: list[str],
    features: dict[str, NDArray[np.float64]],
    lengths: dict[str, NDArray[np.int64]],
) -> dict[str, Any]:
    """Returns the fields of a split as in MMSA's files."""
    split: dict[str, Any] = {
        "id": np.array([f"planted_{name}$_${row}" for row in range(len(labels))]),
        "raw_text": np.array(sentences),
        "regression_labels": labels,
        "classification_labels": np.sign(labels).astype(np.float32),
        "annotations": np.array([("Negative", "Neutral", "Positive")[int(np.sign(label)) + 1] for label in labels]),
    }
    for modality, values in features.items():
        values *= (np.arange(values.shape[1]) < lengths[modality][:, None])[..., None]
        split[modality] = values.astype(np.float32)
        split[f"{modality}_lengths"] = lengths[modality].tolist()
    split["audio"][0, 0, 0] = -np.inf  # as in the real files; the reader must replace and count it
    return split
