"""The counter of launches: what it counts, and how many a step of CLCR needs."""

import pytest
import torch

from benchmarks.launches import Launches, launches_in, measure, most_frequent, table


def test_views_allocations_and_scalars_are_not_counted() -> None:
    values = torch.randn(3, 4)
    assert launches_in(lambda: values.mT.unsqueeze(0).expand(2, 4, 3).select(0, 0)) == 0
    assert launches_in(lambda: torch.empty(3) is values) == 0
    assert launches_in(lambda: torch.where(values > 0, values, 0.0)) == 2
    assert launches_in(lambda: values.mT.contiguous().add_(1)) == 2


def test_the_projection_is_one_operator() -> None:
    from multifuse.ops import project_capped_simplex

    z, budget = torch.rand(3, 4), torch.ones(3)
    assert launches_in(lambda: project_capped_simplex(z, budget)) == 1


def test_the_table_adds_the_phases_up() -> None:
    assert "| a step | 2 | 3 | 1 | 6 |" in table([Launches("a step", 2, 3, 1)])


@pytest.fixture(scope="module")
def measured() -> dict[str, Launches]:
    return {row.what: row for row in measure()}


def test_a_step_of_clcr_does_not_need_more_launches_again(measured: dict[str, Launches]) -> None:
    """It needed more than twice as many when every level, modality and loss was computed by itself."""
    assert measured["CLCR"].total <= 1100
    assert measured["CLCR, no regularisers"].total < measured["CLCR"].total
    assert measured["late-fusion"].total < measured["cross-attention"].total < measured["CLCR"].total


def test_one_orthonormalisation_serves_the_bases_and_one_computation_the_budgets_of_all_levels(
    measured: dict[str, Launches],
) -> None:
    assert measured["the bases of all levels"].total <= 40
    assert measured["the budgets of all levels, from codes"].total <= 70


def test_the_parts_add_up_to_less_than_the_step(measured: dict[str, Launches]) -> None:
    parts = ("the hierarchy", "the exchanges of all levels, bases included", "InterCAD", "the regularisers")
    forward = sum(measured[part].forward for part in parts)
    assert 0.8 * measured["CLCR"].forward < forward < measured["CLCR"].forward


def test_the_most_frequent_operators_come_first() -> None:
    numbers = [int(entry.split()[1]) for entry in most_frequent(5).split(", ")]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 5
