"""The data sets of the evidence, made from the files that the user names."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import fingerprints
from benchmarks.corruption import with_frozen_text
from benchmarks.evidence.clip_set import prepared_digits
from benchmarks.evidence.feature_set import FeatureSet
from benchmarks.evidence.runs import EvidenceSet
from multifuse.recipes.data.features.planted_settings import SETTINGS, PlantedSettings

PLANTED = {f"planted-{name}": settings for name, settings in SETTINGS.items()}


@dataclass(frozen=True)
class Files:
    """What the user named: CMU-MOSI's feature file, the text encoder of its words, and the folder of the digits."""

    mosi: Path | None = None
    text_encoder: str | None = None
    digits: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sets that can be made."""
        given = {"mosi": self.mosi, "av_digits": self.digits}
        return (*PLANTED, *(name for name, path in given.items() if path is not None))


def evidence_set(name: str, files: Files, prepared: Path) -> EvidenceSet:
    """Returns a set by name; what takes long to make is kept in the folder ``prepared``, by the files' content."""
    if name in PLANTED:
        return planted_set(PLANTED[name])
    prepared.mkdir(parents=True, exist_ok=True)
    if name == "av_digits":
        assert files.digits is not None
        return prepared_digits(files.digits, prepared)
    assert files.mosi is not None
    assert files.text_encoder is not None
    made_of = f"{fingerprints.of_file(files.mosi)} {fingerprints.of_encoder(files.text_encoder)}"
    fingerprint = fingerprints.of_text(made_of)
    path = prepared / f"{name}.{fingerprint}.pkl"
    if not path.exists():
        with_frozen_text(files.mosi, files.text_encoder, path)
    return FeatureSet(path, fingerprint)


def planted_set(settings: PlantedSettings) -> FeatureSet:
    """Returns what settings plant."""
    return FeatureSet(settings, fingerprints.of_text(repr(settings)))
