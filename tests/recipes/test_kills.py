"""Three kills of the kill test; ``python -m tests.kills`` makes any number of them."""

import random
from pathlib import Path

from tests.kills import preparation, torment, training


def test_training_ends_with_the_same_files_after_kills(tmp_path: Path) -> None:
    outcome = torment(training(tmp_path, epochs=2), 2, random.Random(3), print)
    assert sum(outcome.kills.values()) == 2
    assert outcome.lives >= 1


def test_preparation_with_workers_ends_with_the_same_files_after_a_kill(tmp_path: Path) -> None:
    outcome = torment(preparation(tmp_path, workers=2), 1, random.Random(0), print)
    assert sum(outcome.kills.values()) == outcome.lives == 1
