"""What can be reached on a planted set: the oracle's errors are those that can be computed by hand."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from multifuse.recipes.data.features.field_names import FEATURES
from multifuse.recipes.data.features.planted import PlantedFeatures, planted
from multifuse.recipes.data.features.planted_oracle import (
    Reachable,
    _truncated_normal,
    averaged,
    copy_estimates,
    reachable,
)
from multifuse.recipes.data.features.planted_settings import SETTINGS, Factor, PlantedSettings

SIZES = {"train": 300, "valid": 1, "test": 300}


@cache
def small(name: str) -> PlantedFeatures:
    return planted(replace(SETTINGS[name], sizes=SIZES))


@cache
def reached(name: str) -> Reachable:
    return reachable(small(name))


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_part_of_a_setting_is_worth_something(name: str) -> None:
    found = reached(name)
    assert found.floor == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.15)
    assert found.floor < found.oracle < 0.9 * found.additive
    assert all(1.1 * found.oracle < error for error in found.without.values()), "a modality is not needed"
    assert found.additive < found.constant
    if any(factor.shared for factor in SETTINGS[name].factors):
        assert found.oracle < 0.9 * found.one_copy
    else:
        assert found.oracle == found.one_copy


def test_without_noise_in_the_features_the_oracle_reaches_the_floor() -> None:
    settings = replace(SETTINGS["default"], sizes=SIZES, feature_noise=1e-3, copy_noise=0.0)
    found = reachable(planted(settings))
    # The draws of the posterior's median include the label's noise: 0.1 / sqrt(1000 draws), a few thousandths.
    assert found.oracle == pytest.approx(found.floor, abs=0.005)
    exact = reachable(planted(replace(settings, feature_noise=0.0, label_noise=0.0)))
    assert exact.floor == pytest.approx(0, abs=1e-6)
    assert exact.oracle == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("name", ["default", "levels"])
def test_the_variance_of_a_copys_estimate_is_that_of_the_closed_form(name: str) -> None:
    data = small(name)
    estimates = copy_estimates(data, "train")
    for index, event in enumerate(data.settings.events()):
        if event.factor is not None:
            errors = estimates.values[:, index] - data.truth["train"].values[:, event.factor]
            scaled = errors / np.sqrt(estimates.variances[:, index])
            assert abs(scaled.mean()) < 4 / np.sqrt(len(scaled))
            assert scaled.std() == pytest.approx(1, abs=0.17), event


def test_the_closed_form_by_hand() -> None:
    token, order = Factor("word", "token", ("text",), 1.0), Factor("shared", "order", ("text", "audio"), 1.0)
    data = planted(PlantedSettings((token, order), sizes=SIZES, feature_noise=0.5, copy_noise=0.3))
    variances = copy_estimates(data, "train").variances
    np.testing.assert_allclose(variances[:, 0], 0.25 / 36)
    np.testing.assert_allclose(variances[:, 1:], 0.25 / (8 * 2.5**2) + 0.09)


@pytest.mark.parametrize("modalities", [("text",), ("text", "audio"), FEATURES])
def test_averaging_k_copies_divides_the_variance_by_k(modalities: tuple[str, ...]) -> None:
    """The swings' variance is (0.5 / 2.5)**2 / 8 + 0.4**2 = 0.165 if shared; of three copies it is 0.055."""
    settings = PlantedSettings((Factor("f", "order", modalities, 1.0),), sizes={**SIZES, "train": 3000}, copy_noise=0.4)
    data = planted(settings)
    found = averaged(settings, copy_estimates(data, "train"), 0, range(len(modalities)))
    assert found is not None
    estimate, variance = found
    expected = 0.005 if len(modalities) == 1 else 0.165 / len(modalities)
    np.testing.assert_allclose(variance, expected)
    assert np.var(estimate - data.truth["train"].values[:, 0]) == pytest.approx(expected, rel=0.1)


def test_the_most_exact_copy_weighs_most() -> None:
    """A swing has less noise than a token of the same amplitude, so equal weights would be worse than the best copy."""
    settings = PlantedSettings((Factor("f", "token", ("text", "audio"), 1.0),), sizes=SIZES)
    estimates = copy_estimates(planted(settings), "train")
    uneven = replace(estimates, variances=estimates.variances * np.array([1.0, 3.0]))
    found = averaged(settings, uneven, 0, (0, 1))
    assert found is not None
    np.testing.assert_allclose(found[0], estimates.values @ np.array([0.75, 0.25]))
    np.testing.assert_allclose(found[1], 0.75 * 0.25 / 36)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_linear_probe_on_the_filters_recovers_every_factor(name: str) -> None:
    data = small(name)
    train, test = (copy_estimates(data, split).values for split in ("train", "test"))
    probe = Ridge(alpha=1e-3).fit(train, data.truth["train"].values)
    found, values = probe.predict(test), data.truth["test"].values
    for column, factor in enumerate(data.settings.factors):
        correlation = np.corrcoef(found[:, column], values[:, column])[0, 1]
        # The best correlation possible, from the variance of a value and that of the averaged copies' noise.
        noise = data.settings.copy_noise**2 / len(factor.modalities) if factor.shared else 0.0
        signal = 1.0 if factor.values == "binary" else 1 / 3
        assert correlation > np.sqrt(signal / (signal + noise)) - 0.06, factor.name


@given(st.floats(-3, 3), st.floats(0.05, 2))
def test_the_posterior_of_a_uniform_value_is_that_of_bayes_rule(centre: float, deviation: float) -> None:
    grid = np.linspace(-1, 1, 20_001)
    logits = -((grid - centre) ** 2) / (2 * deviation**2)
    weights = np.exp(logits - logits.max())
    cumulative = np.cumsum(weights) / weights.sum()
    quantiles = np.array([0.1, 0.5, 0.9])
    found = _truncated_normal(np.array([centre]), np.array([deviation**2]), quantiles[:, None])[:, 0]
    expected = np.interp(quantiles if centre >= 0 else 1 - quantiles, cumulative, grid)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("centre", [-5.0, 5.0])
def test_an_estimate_far_outside_means_the_nearest_bound(centre: float) -> None:
    values = _truncated_normal(np.array([centre]), np.array([1e-12]), np.array([[0.3], [0.7]]))
    np.testing.assert_allclose(values, np.sign(centre), atol=1e-6)
