"""A small synthetic data set with planted cross-level asynchrony, written as an MMSA feature file.

Every utterance has three independent latent cues, each in one modality, at one temporal scale and at its own time:

- text, one token: a polarity along a fixed direction of a single token's features (a lexical cue);
- vision, a few frames: an up-down or down-up swing that sums to zero, so only the order reveals its sign;
- audio, the whole clip: the balance of energy between its two halves, hidden in the amplitude of a carrier.

The label is their weighted sum plus an interaction of text and audio and a little noise, clipped to [-3, 3]; no single
modality or level predicts it.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.files import whole

SIZES = {"train": 1024, "valid": 192, "test": 384}
LENGTHS = {"text": 24, "vision": 30, "audio": 40}
WIDTHS = {"text": 32, "vision": 16, "audio": 8}
_WORDS = ("dreadful", "bad", "poor", "plain", "fair", "good", "great", "superb")
_FILLERS = ("the", "film", "was", "and", "it", "so", "then", "we", "saw", "a")


def planted_splits(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Draws the three splits, which are the same on every machine for the same seed."""
    random = np.random.Generator(np.random.PCG64(seed))
    directions = {name: _direction(random, width) for name, width in WIDTHS.items()}
    return {name: _split(name, count, directions, random) for name, count in SIZES.items()}


def write_planted(path: Path, seed: int = 0) -> None:
    """Writes the data set to ``path`` as a feature file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        partial.write_bytes(pickle.dumps(planted_splits(seed), protocol=4))


def _direction(random: np.random.Generator, width: int) -> NDArray[np.float64]:
    direction = random.normal(size=width)
    return np.asarray(direction / np.linalg.norm(direction))


def _split(
    split_name: str, count: int, directions: dict[str, NDArray[np.float64]], random: np.random.Generator
) -> dict[str, Any]:
    cues = random.uniform(-1, 1, size=(count, 3))
    cues[:, 1] = np.sign(cues[:, 1])
    lengths = {name: random.integers(longest * 2 // 3, longest + 1, size=count) for name, longest in LENGTHS.items()}
    features = {
        name: random.normal(scale=0.5, size=(count, longest, WIDTHS[name])) for name, longest in LENGTHS.items()
    }
    sentences = []
    for row, (lexical, swing, balance) in enumerate(cues):
        position = int(random.integers(1, lengths["text"][row] - 1))
        features["text"][row, position] += 6 * lexical * directions["text"]
        sentences.append(_sentence(random, lexical, position, int(lengths["text"][row])))
        start = int(random.integers(0, lengths["vision"][row] - 8))
        features["vision"][row, start : start + 4] += 2.5 * swing * directions["vision"]
        features["vision"][row, start + 4 : start + 8] -= 2.5 * swing * directions["vision"]
        steps = np.arange(lengths["audio"][row])
        slope = 1 + balance * np.cos(np.pi * steps / max(len(steps) - 1, 1))
        carrier = slope * np.where(steps % 2, 1.0, -1.0) * random.choice([-1.0, 1.0])
        features["audio"][row, : len(steps)] += 1.5 * carrier[:, None] * directions["audio"]
    labels = 1.3 * cues[:, 0] + 0.8 * cues[:, 1] + 1.3 * cues[:, 2] + 0.8 * cues[:, 0] * cues[:, 2]
    labels = np.clip(labels + random.normal(scale=0.1, size=count), -3, 3).astype(np.float32)
    split: dict[str, Any] = {
        "id": np.array([f"planted_{split_name}$_${row}" for row in range(count)]),
        "raw_text": np.array(sentences),
        "regression_labels": labels,
        "classification_labels": np.sign(labels).astype(np.float32),
        "annotations": np.array([("Negative", "Neutral", "Positive")[int(np.sign(label)) + 1] for label in labels]),
    }
    for name, values in features.items():
        values *= (np.arange(LENGTHS[name]) < lengths[name][:, None])[..., None]
        split[name] = values.astype(np.float32)
        split[f"{name}_lengths"] = lengths[name].tolist()
    split["audio"][0, 0, 0] = -np.inf  # as in the real files; the reader must replace and count it
    return split


def _sentence(random: np.random.Generator, lexical: float, position: int, length: int) -> str:
    words = [str(word) for word in random.choice(_FILLERS, size=length)]
    words[position] = _WORDS[min(int((lexical + 1) / 2 * len(_WORDS)), len(_WORDS) - 1)]
    return " ".join(words)
