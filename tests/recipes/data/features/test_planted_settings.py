"""The knobs of the planted set: what they refuse, and which events they stand for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS, Factor, Interaction

CUES = SETTINGS["cues"]
WORD = Factor("word", "token", ("text",), 1.0)


def word(**changes: Any) -> Factor:
    return replace(WORD, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": ()}, "factors must have different names, and at least one is needed"),
        ({"factors": (WORD, WORD)}, r"got \['word', 'word'\]"),
        ({"factors": (word(level="phrase"),)}, "the level of factor 'word' must be one of token, order, clip"),
        ({"factors": (word(values="ternary"),)}, "the values of factor 'word' must be .* got 'ternary'"),
        ({"factors": (word(modalities=("touch",)),)}, "the modalities of factor 'word' .* got 'touch'"),
        ({"factors": (word(modalities=()),)}, "must be one or more, each once, got"),
        ({"factors": (word(modalities=("text", "text")),)}, "must be one or more, each once, got"),
        ({"factors": (word(weight=float("nan")),)}, "the weight of factor 'word' must be finite, got nan"),
        ({"interactions": (Interaction("word", "nod", 1.0),)}, "an interaction's factors must be .* got 'nod'"),
        ({"interactions": (Interaction("word", "tone", float("inf")),)}, "an interaction's weight must be finite"),
        ({"asynchrony": 1.5}, r"asynchrony must be in \[0, 1\], got 1.5"),
        ({"distractors": -1.0}, "distractors must be finite and >= 0, got -1.0"),
        ({"distractor_levels": "none"}, "distractor_levels must be one of all, other, got 'none'"),
        ({"feature_noise": float("inf")}, "feature_noise must be finite and >= 0, got inf"),
        ({"label_noise": -0.1}, "label_noise must be finite and >= 0, got -0.1"),
        ({"copy_noise": float("nan")}, "copy_noise must be finite and >= 0, got nan"),
        ({"sizes": {"train": 1, "test": 1}}, "sizes must have the keys train, valid, test, got train, test"),
        ({"sizes": {"train": 1, "valid": 0, "test": 1}}, "sizes must be >= 1, got 0 for valid"),
        ({"lengths": {**CUES.lengths, "vision": 14}}, "lengths must be >= 15, got 14 for vision"),
        ({"widths": {**CUES.widths, "audio": 0}}, "widths must be >= the number of events, 1 in audio, got 0"),
        ({"widths": {**CUES.widths, "audio": 3}, "distractors": 1.0}, "4 in audio, got 3"),
        ({"amplitudes": {**CUES.amplitudes, "clip": 0.0}}, "amplitudes must be finite and > 0, got 0.0 for clip"),
    ],
)
def test_a_wrong_knob_is_refused_in_one_line_that_shows_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        replace(CUES, **changes)
    assert "\n" not in str(caught.value)


def test_a_shared_factor_has_a_copy_in_each_modality_and_distractors_have_every_level() -> None:
    shared = word(modalities=("text", "audio"))
    events = replace(CUES, factors=(shared,), interactions=(), distractors=0.5).events()
    assert [(event.modality, event.level) for event in events if event.factor == 0] == [
        ("text", "token"),
        ("audio", "token"),
    ]
    distractors = [event for event in events if event.factor is None]
    assert len(distractors) == 9
    assert {event.amplitude for event in distractors if event.level == "token"} == {3.0}


def test_distractors_at_other_levels_avoid_those_of_the_modalitys_factors() -> None:
    events = replace(CUES, distractors=1.0, distractor_levels="other").events()
    levels = {
        name: {event.level for event in events if event.modality == name and event.factor is None}
        for name in CUES.widths
    }
    assert levels == {"text": {"order", "clip"}, "vision": {"token", "clip"}, "audio": {"token", "order"}}


def test_the_label_is_the_weighted_sum_of_values_and_products() -> None:
    labels = CUES.clean_labels(np.array([[0.5, -1.0, -0.25]]))
    np.testing.assert_allclose(labels, [1.3 * 0.5 - 0.8 - 1.3 * 0.25 - 0.8 * 0.5 * 0.25])


def test_the_named_settings_have_what_their_names_promise() -> None:
    assert EMBEDDED in SETTINGS
    assert replace(SETTINGS["synchronous"], asynchrony=1.0) == SETTINGS["default"]
    values = np.array([[0.5, -0.3, 0.25, -0.1, 1.0], [0.5, -0.3, 0.25, -0.1, -1.0]])
    np.testing.assert_allclose(
        SETTINGS["levels"].clean_labels(values), [0.6 + 1.6 * 0.5 + 1.2 * 0.25, -0.6 - 1.6 * 0.3 - 1.2 * 0.1]
    )
    weights: dict[bool, float] = {True: 0.0, False: 0.0}
    for factor in SETTINGS["shared"].factors:
        weights[factor.shared] += factor.weight
    assert weights[True] > weights[False]
