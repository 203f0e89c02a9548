"""Calls the benchmarks' commands as from the command line."""

from collections.abc import Callable

import pytest


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


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)
