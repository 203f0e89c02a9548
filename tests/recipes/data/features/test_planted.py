"""The planted set: the same numbers everywhere, labels that follow the formula, and values where the truth says."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifuse.recipes.data.features.field_names import FEATURES
from multifuse.recipes.data.features.mmsa import read_mmsa
from multifuse.recipes.data.features.planted import planted, write_planted
from multifuse.recipes.data.features.planted_settings import SETTINGS, Factor, PlantedSettings
from multifuse.recipes.data.features.planted_waves import LEVELS, SPANS, Level, carrier, first_and_last_start, pattern

SMALL = {"train": 5, "valid": 2, "test": 3}
NAMED = st.sampled_from(sorted(SETTINGS)).map(lambda name: replace(SETTINGS[name], sizes=SMALL))
SEEDS = st.integers(0, 2**32)


def digest(splits: Any) -> str:
    content = hashlib.sha256()
    for name, split in splits.items():
        for field, values in split.items():
            content.update(f"{name}.{field}".encode())
            content.update(np.asarray(values).tobytes())
    return content.hexdigest()


def test_the_cues_are_the_numbers_on_which_the_committed_results_were_measured() -> None:
    expected = "670701ef82ca3437086c2b09c4a06607465724c5a645affe3284d6faacfd5961"
    assert digest(planted(SETTINGS["cues"], seed=0).splits) == expected


def test_equal_seeds_write_equal_bytes_that_the_reader_accepts(tmp_path: Path) -> None:
    settings = replace(SETTINGS["default"], sizes=SMALL)
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        write_planted(tmp_path / "new" / name, settings, seed)
    one, two, other = ((tmp_path / "new" / name).read_bytes() for name in ("one", "two", "other"))
    assert one == two != other
    data = read_mmsa(tmp_path / "new" / "one")
    assert data.widths == settings.widths
    assert data.replaced == {"text": 0, "vision": 0, "audio": 3}


@given(NAMED, SEEDS)
def test_labels_are_the_formula_of_the_values_plus_noise(settings: PlantedSettings, seed: int) -> None:
    data = planted(replace(settings, label_noise=0.0), seed)
    for name, truth in data.truth.items():
        expected = np.clip(settings.clean_labels(truth.values), -3, 3)
        np.testing.assert_allclose(data.splits[name]["regression_labels"], expected, atol=1e-6)
        for column, factor in enumerate(settings.factors):
            values = truth.values[:, column]
            assert set(np.abs(values)) == {1.0} if factor.values == "binary" else np.all(np.abs(values) < 1)


@given(st.sampled_from(LEVELS), st.integers(10, 40), st.data())
def test_only_the_order_of_a_swing_and_the_balance_of_a_clip_show_the_value(
    level: Level, length: int, data: st.DataObject
) -> None:
    start = 0 if level == "clip" else data.draw(st.integers(*first_and_last_start(level, length)))
    scaled, constant = pattern(level, start, length), carrier(level, length)
    if level == "token":
        assert np.flatnonzero(scaled).tolist() == [start]
    elif level == "order":
        assert scaled.sum() == 0
        assert scaled[start : start + 8].tolist() == [1, 1, 1, 1, -1, -1, -1, -1]
    else:
        energies = [((constant + value * scaled) ** 2).sum() for value in (-0.7, 0.7)]
        assert energies[0] == pytest.approx(energies[1]), "the energy of the whole clip shows the value"
    assert scaled @ constant == pytest.approx(0, abs=1e-9), "a carrier would be taken for a value"


@given(NAMED, SEEDS)
def test_the_directions_of_a_modality_are_orthogonal(settings: PlantedSettings, seed: int) -> None:
    data = planted(settings, seed)
    for modality in FEATURES:
        vectors = np.stack([d for e, d in zip(settings.events(), data.directions) if e.modality == modality])
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-9)


@given(NAMED, st.floats(0, 1), SEEDS)
def test_events_are_inside_their_sequences_and_padding_is_zero(
    settings: PlantedSettings, asynchrony: float, seed: int
) -> None:
    data = planted(replace(settings, asynchrony=asynchrony), seed)
    for name, split in data.splits.items():
        for index, event in enumerate(settings.events()):
            lengths, starts = np.array(split[f"{event.modality}_lengths"]), data.truth[name].starts[:, index]
            assert np.all(lengths * 3 >= settings.lengths[event.modality] * 2 - 2)
            assert event.level == "clip" or np.all((starts >= 0) & (starts + SPANS[event.level] <= lengths))
        for modality in FEATURES:
            padding = np.arange(settings.lengths[modality]) >= np.array(split[f"{modality}_lengths"])[:, None]
            assert not split[modality][padding].any()
            assert not data.truth[name].tokens[modality][padding].any()


def relative_times(settings: PlantedSettings) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns the centres of the factors that have a time, relative to the lengths, and half a token, (N, E) each."""
    data = planted(settings)
    split, starts = data.splits["train"], data.truth["train"].starts
    times, halves = [], []
    for index, event in enumerate(settings.events()):
        if event.factor is not None and event.level != "clip":
            lengths = np.array(split[f"{event.modality}_lengths"])
            times.append((starts[:, index] + SPANS[event.level] / 2) / lengths)
            halves.append(0.5 / lengths)
    return np.stack(times, 1), np.stack(halves, 1)


def test_asynchrony_separates_the_times_of_a_samples_factors() -> None:
    settings = replace(SETTINGS["default"], sizes={**SMALL, "train": 400})
    times, halves = relative_times(replace(settings, asynchrony=0.0))
    assert np.all(np.ptp(times, axis=1) <= 2 * halves.max(1) + 1e-9), "the times are equal but for whole tokens"
    assert np.ptp(times[:, 0]) > 0.1, "the common time is always the same"
    spreads = [
        np.ptp(relative_times(replace(settings, asynchrony=value))[0], axis=1).mean() for value in (0, 0.25, 0.5, 1)
    ]
    assert spreads == sorted(spreads)
    independent = np.corrcoef(relative_times(settings)[0], rowvar=False)
    assert np.abs(independent - np.eye(len(independent))).max() < 0.2


def test_another_asynchrony_or_noise_changes_nothing_else() -> None:
    settings = replace(SETTINGS["default"], sizes=SMALL)
    before = planted(settings).splits["test"]
    for changed in (replace(settings, asynchrony=0.0), replace(settings, feature_noise=2.0, copy_noise=1.0)):
        after = planted(changed).splits["test"]
        assert not np.array_equal(before["vision"], after["vision"])
        np.testing.assert_array_equal(before["regression_labels"], after["regression_labels"])
        assert before["vision_lengths"] == after["vision_lengths"]


def test_without_noise_the_features_are_the_events_and_the_truth_names_their_tokens() -> None:
    factors = (
        Factor("shared", "token", FEATURES, 1.0),
        Factor("gesture", "order", ("vision",), 1.0, values="binary"),
        Factor("tone", "clip", ("audio",), 1.0),
    )
    settings = PlantedSettings(factors, sizes=SMALL, feature_noise=0.0)
    data = planted(settings)
    split, truth = data.splits["train"], data.truth["train"]
    for modality in ("text", "vision"):
        np.testing.assert_array_equal(np.any(split[modality] != 0, axis=2), truth.tokens[modality])
    assert (truth.tokens["audio"].sum(1) == 1).all(), "the clip's tokens count as informative"
    rows = np.arange(SMALL["train"])
    for index, event in enumerate(settings.events()):
        if event.level == "token":
            found = split[event.modality][rows, truth.starts[:, index]] @ data.directions[index]
            np.testing.assert_allclose(found, 6 * truth.values[:, 0], atol=1e-5)


def test_distractors_are_planted_but_change_neither_the_labels_formula_nor_the_informative_tokens() -> None:
    settings = replace(SETTINGS["cues"], sizes=SMALL, feature_noise=0.0, label_noise=0.0, distractors=2.0)
    data = planted(settings)
    split, truth = data.splits["train"], data.truth["train"]
    assert (truth.tokens["text"].sum(1) == 1).all()
    lengths = np.array(split["text_lengths"])
    assert (np.any(split["text"] != 0, axis=2).sum(1) == lengths).all(), "the distractor of a clip has every token"
    np.testing.assert_allclose(
        split["regression_labels"], np.clip(settings.clean_labels(truth.values), -3, 3), atol=1e-6
    )


def test_the_sentence_has_a_word_for_each_of_the_first_two_token_factors_of_text() -> None:
    factors = (Factor("good", "token", ("text",), 1.0), Factor("often", "token", ("text",), 1.0))
    data = planted(PlantedSettings(factors, sizes={**SMALL, "train": 200}))
    split, truth = data.splits["train"], data.truth["train"]
    clashes = 0
    for sentence, starts, values in zip(split["raw_text"], truth.starts, truth.values):
        words, (first, second) = sentence.split(), starts
        assert words[first] in (
            ("dreadful", "bad", "poor", "plain") if values[0] < 0 else ("fair", "good", "great", "superb")
        )
        if first == second:
            clashes, second = clashes + 1, second + 1
        assert words[second] in (
            ("never", "seldom", "rarely", "sometimes") if values[1] < 0 else ("often", "mostly", "usually", "always")
        )
    assert clashes, "no sample has both factors at one token"
