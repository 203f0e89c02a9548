"""Calls the benchmarks' commands as from the command line, and stands in for the trainings that they start."""

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from multifuse.recipes.jobs.job import Job


class Command:
    """Calls the ``main`` of a benchmark with arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def prints(self, main: Callable[[], None], *arguments: object) -> str:
        """Returns what the command prints."""
        self._monkeypatch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
        main()
        return self._capsys.readouterr().out

    def refuses(self, main: Callable[[], None], *arguments: object) -> str:
        """Returns the line that the command prints, besides its usage, before it ends with status 2."""
        with pytest.raises(SystemExit) as stopped:
            self.prints(main, *arguments)
        printed = self._capsys.readouterr()
        assert (stopped.value.code, printed.out) == (2, "")
        return printed.err.splitlines()[-1].removeprefix("benchmark: error: ")


class FakeRuns:
    """Stands in for `run`: keeps the seeds of the jobs, writes metrics of 0.5, and returns the predictions."""

    def __init__(self, measures: Sequence[str], predictions: Sequence[float]) -> None:
        self.measures, self.predictions = measures, predictions
        self.seeds: list[int] = []

    def __call__(self, job: Job[Any, Any]) -> SimpleNamespace:
        self.seeds.append(job.seed)
        scores = dict.fromkeys(self.measures, 0.5)
        metrics = {"seed": job.seed, "seconds": 1.0, "valid": scores, "test": scores, **job.record()}
        job.output.mkdir()
        (job.output / "metrics.json").write_text(json.dumps(metrics))
        return SimpleNamespace(predictions=self.predictions)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)
