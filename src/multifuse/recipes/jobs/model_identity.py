"""Which model a report is about: the name of its folder, and a digest of its weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multifuse.recipes.files import digest

_DIGITS = 16


@dataclass(frozen=True)
class ModelIdentity:
    """A saved model, as reports name it."""

    name: str
    """The name of its folder, or of its run's, which other models may share."""
    weights: str
    """The first 16 hexadecimal digits of a SHA-256 over its weights."""

    @classmethod
    def of(cls, name: str, folder: Path) -> "ModelIdentity":
        """Returns the identity of the model whose safetensors files are in ``folder``."""
        files = sorted(folder.glob("*.safetensors"))
        lines = "".join(f"{path.name} {digest(path)}\n" for path in files)
        return cls(name, hashlib.sha256(lines.encode()).hexdigest()[:_DIGITS])

    def as_dict(self) -> dict[str, str]:
        """Returns what a report says."""
        return asdict(self)

    def check(self, report: Mapping[str, Any]) -> None:
        """Checks that a report is about this model; its folder may have been renamed since.

        Raises:
            ValueError: if the report names another model, or none.
        """
        named = report.get("model")
        if not isinstance(named, Mapping) or "weights" not in named:
            raise ValueError("does not say which model it is about; evaluate the model again")
        if named["weights"] != self.weights:
            raise ValueError(
                f"is about another model: {named.get('name')!r} with weights {named['weights']!r}, "
                f"not {self.name!r} with weights {self.weights!r}"
            )
