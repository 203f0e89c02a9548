"""The data sets of the evidence: settings of the planted set, and CMU-MOSI with a frozen text encoder."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.corruption import with_frozen_text
from multifuse.recipes.data.features.planted import write_planted
from multifuse.recipes.data.features.planted_settings import SETTINGS, PlantedSettings


@dataclass(frozen=True)
class EvidenceSet:
    """A data set, as a feature file that can be made again and again."""

    name: str
    planted: PlantedSettings | None = None
    given: Path | None = None
    """A feature file, if the set is not planted."""

    def file(self, folder: Path) -> Path:
        """Returns the feature file, which is made in ``folder`` if it is planted."""
        if self.given is not None:
            return self.given
        assert self.planted is not None
        path = folder / f"{self.name}.pkl"
        write_planted(path, self.planted)
        return path


def evidence_sets(mosi: Path | None, encoder: str | None, folder: Path) -> dict[str, EvidenceSet]:
    """Returns the sets by name: all planted ones, and MOSI if its file and an encoder are given."""
    sets = {f"planted-{name}": EvidenceSet(f"planted-{name}", settings) for name, settings in SETTINGS.items()}
    if mosi is not None and encoder is not None:
        path = folder / "mosi.pkl"
        with_frozen_text(mosi, encoder, path)
        sets["mosi"] = EvidenceSet("mosi", given=path)
    return sets
