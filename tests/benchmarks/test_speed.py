"""The arithmetic of the speed benchmark: turns on a simulated clock, regressions, tables, and which files it writes."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import speed
from benchmarks.launches import Launches
from benchmarks.length_speed import Length
from benchmarks.op_speed import sort_based
from benchmarks.speed import Report, regressions
from benchmarks.step_profile import Operator
from benchmarks.timing import Comparison, Timing, in_turns
from multifuse.ops import project_capped_simplex


def timing(seconds: float) -> Timing:
    return Timing(seconds, 0.9 * seconds, 1.1 * seconds, 5)


def comparison(ours: float, peer: float, target: float | None = None) -> Comparison:
    return Comparison("the op", "clamp", timing(ours), timing(peer), target)


def report(ours: float) -> Report:
    machine = {"processor": "A Processor (TM) AVX2", "threads": 2}
    operators = [Operator("aten::mm", 0.25, 7.0)]
    return Report(
        machine,
        [comparison(ours, 2.0, 1.5)],
        [Length(64, 0.5, 3.0)],
        operators,
        operators,
        [Launches("a step", 40, 60)],
        {"0.5": 0.8},
        0.1,
    )


def test_functions_take_turns_and_short_ones_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], {"short": 0, "long": 0}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def call(name: str, seconds: float) -> None:
        calls[name] += 1
        now[0] += seconds

    times = in_turns({"short": lambda: call("short", 0.001), "long": lambda: call("long", 1.0)}, seconds=5.0)
    assert times["short"].median == pytest.approx(0.001)
    assert times["long"].median == pytest.approx(1.0)
    assert times["short"].turns == times["long"].turns == 5
    assert calls["long"] == 4 + 2 * 5, "a long call takes a turn of its own, after one that is not measured"
    assert calls["short"] >= 4 + 5 * 9, "a short call fills its turn"


def test_ratio_is_ours_over_the_peers_and_is_missed_above_its_target() -> None:
    assert comparison(3.0, 2.0).ratio == 1.5
    assert not comparison(3.0, 2.0, 1.5).is_missed
    assert comparison(3.1, 2.0, 1.5).is_missed
    assert not comparison(9.0, 2.0).is_missed


def test_a_slowdown_of_over_a_fifth_against_the_peer_is_flagged() -> None:
    before = json.loads(report(2.0).as_json())
    assert regressions(before, report(2.4)) == []
    (flag,) = regressions(before, report(2.6))
    assert "ratio 1.3, was 1 (30 % slower)" in flag
    new = replace(report(2.0), comparisons=[Comparison("new", "clamp", timing(9), timing(1))])
    assert regressions(before, new) == []


def test_launches_that_grow_by_over_a_fifth_are_flagged() -> None:
    before = json.loads(report(2.0).as_json())
    assert regressions(before, replace(report(2.0), launches=[Launches("a step", 60, 60)])) == []
    more = [Launches("a step", 60, 61), Launches("a new step", 900, 900)]
    assert regressions(before, replace(report(2.0), launches=more)) == ["launches of a step: 121, was 100"]


def test_results_are_written_and_a_check_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(speed, "measured", lambda seconds: report(2.0))
    monkeypatch.setattr(sys, "argv", ["speed", "--results", str(tmp_path)])
    speed.main()
    table = (tmp_path / "a-processor-tm-avx2-2-threads.md").read_text()
    assert "| the op | 2e+03 ms (1.8e+03 to 2.2e+03) | clamp | 2e+03 ms (1.8e+03 to 2.2e+03) | 1 | <= 1.5 |" in table
    written = (tmp_path / "a-processor-tm-avx2-2-threads.json").read_text()
    monkeypatch.setattr(speed, "measured", lambda seconds: report(4.0))
    monkeypatch.setattr(sys, "argv", ["speed", "--results", str(tmp_path), "--check"])
    with pytest.raises(SystemExit) as stopped:
        speed.main()
    assert stopped.value.code == 1
    assert "REGRESSION: the op against clamp" in capsys.readouterr().err
    assert (tmp_path / "a-processor-tm-avx2-2-threads.json").read_text() == written
    assert torch.get_num_threads() == threads


def test_the_sorting_peer_agrees_where_no_token_saturates() -> None:
    z = torch.rand(7, 9) * 0.5
    budget = torch.full((7,), 0.8)
    torch.testing.assert_close(sort_based(z, budget), project_capped_simplex(z, budget))
