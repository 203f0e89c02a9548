"""A sample of the hostile files of ``python -m tests.hostile``, which reads any number of them."""

import pytest

from tests.hostile import KINDS, run

CASES = {"features": 300, "media": 150, "lists": 400, "models": 25, "records": 200}


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_are_read_or_refused_in_bounded_memory_and_none_of_their_code_runs(kind: str) -> None:
    outcomes = run(kind, CASES[kind])
    assert outcomes["read"] + outcomes.get("refused", 0) == CASES[kind]
    assert outcomes["read"] > 0, "every case was refused, so the unchanged file may be refused too"
