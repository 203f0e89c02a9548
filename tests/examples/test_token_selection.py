"""`examples/token_selection.py`, run for a few steps: its table, and that the weights it compares are what it says."""

from tests import programs
from tests.paths import ROOT


def test_the_example_prints_one_row_per_selector() -> None:
    sizes = ("--steps", 12, "--test-samples", 64)
    done = programs.run(ROOT / "examples/token_selection.py", *sizes, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    header, rule, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert header[:3] == ["selector", "non-zero tokens", "accuracy in %, all"]
    assert rule[0].count("---") == len(header)
    used = {row[0]: float(row[1]) for row in rows}
    assert list(used) == ["soft_topk, k = 4", "sparsemax (soft_topk, k = 1)", "softmax"]
    assert used["softmax"] == 64
    assert 4 <= used["soft_topk, k = 4"] < 64
    assert used["sparsemax (soft_topk, k = 1)"] < used["soft_topk, k = 4"]
    for row in rows:
        assert len(row) == len(header)
        assert all(0 <= float(value) <= 100 for value in row[2:6])
