"""One run of the evidence: which model on which data, and the file that holds everything measured on it."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.fingerprints import write_result
from benchmarks.machine import machine
from multifuse.recipes import pooled


@dataclass(frozen=True)
class Run:
    """A model, what differs from its defaults, and a seed."""

    data: str
    """The name of an `EvidenceSet`."""
    model: str
    """A name of `multifuse train --model`, or one of ``pooled.KINDS``."""
    seed: int
    lr: float | None = None
    modalities: tuple[str, ...] | None = None
    config: tuple[tuple[str, Any], ...] = ()
    """Fields of `CLCRConfig` that differ from the reference configuration."""
    epochs: int | None = None
    """``None`` trains for as long as the recipe says."""

    @property
    def is_trained(self) -> bool:
        """Whether a network is trained, which depends on the seed and the learning rate."""
        return self.model not in pooled.KINDS

    @property
    def name(self) -> str:
        """The name of the run's file, without the seed."""
        fields = [*self.config, ("epochs", self.epochs), ("lr", self.lr)]
        settings = [f"{field}={value}" for field, value in fields if value is not None]
        return ".".join([self.model, *(self.modalities or ()), *settings])

    def path(self, results: Path) -> Path:
        """Returns the run's file."""
        return results / self.data / f"{self.name}.seed={self.seed}.json"


class EvidenceSet(Protocol):
    """A data set, and how models are trained and measured on it; it is passed between processes."""

    @property
    def fingerprint(self) -> str:
        """Tells these data from others of the same name."""

    def measured(self, run: Run, folder: Path) -> dict[str, Any]:
        """Trains and measures a run's model, with ``folder`` for intermediate files.

        Returns at least ``"valid"`` and ``"test"``, each with its measures by name.
        """


def load(run: Run, results: Path) -> dict[str, Any] | None:
    """Returns what was measured on a run; ``None`` if it has not been done."""
    path = run.path(results)
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def do(run: Run, source: EvidenceSet, results: Path) -> None:
    """Trains and measures a model, and writes its file once everything is known."""
    with tempfile.TemporaryDirectory() as folder:
        result = source.measured(run, Path(folder))
    result["run"], result["fingerprint"] = asdict(run), source.fingerprint
    result["machine"] = machine()
    write_result(run.path(results), result)
