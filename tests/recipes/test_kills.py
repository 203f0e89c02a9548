"""Three kills of the kill test, ``python -m tests.kills``, which gives as many as are asked for."""

import random
from pathlib import Path

from tests.kills import preparation, torment, training


def test_killed_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    outcome = torment(training(tmp_path, epochs=2), 2, random.Random(3), print)
    assert sum(outcome.kills.values()) == 2
    assert outcome.lives >= 1


def test_a_killed_preparation_with_workers_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    outcome = torment(preparation(tmp_path, workers=2), 1, random.Random(0), print)
    assert sum(outcome.kills.values()) == outcome.lives == 1
