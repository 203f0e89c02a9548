"""Reads what multifuse evaluate wrote about a model: its tables and figures."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifuse.recipes.corruption.corrupted import KINDS
from multifuse.recipes.jobs.model_identity import ModelIdentity
from multifuse.recipes.measures import classification, sentiment
from multifuse.recipes.measures.measures import Choice

_TITLES = {"missing": "Missing modalities", "noise": "Corrupted input"}


@dataclass(frozen=True)
class SweepTable:
    """A table of texts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sweep:
    """One evaluation."""

    title: str
    data: str
    """The file or folder, the split and the number of draws."""
    tables: tuple[SweepTable, ...]
    figure: str | None
    """The PNG file in base64."""


def read_sweeps(folders: Iterable[Path], model: ModelIdentity, required: bool) -> tuple[Sweep, ...]:
    """Reads a model's ``missing.json`` and ``noise.json``, with the figure beside each, in every folder.

    Raises:
        ValueError: a file that multifuse evaluate did not write, or wrote about another model, or, if they are
            ``required``, a folder without any.
    """
    sweeps: list[Sweep] = []
    for folder in folders:
        found = [name for name in _TITLES if (folder / f"{name}.json").is_file()]
        if required and not found:
            raise ValueError(f"{folder} contains no missing.json or noise.json")
        sweeps += (_read(folder / f"{name}.json", name, model) for name in found)
    return tuple(sweeps)


def _read(path: Path, name: str, model: ModelIdentity) -> Sweep:
    try:
        report = json.loads(path.read_text())
        tables = tuple(_missing(report) if name == "missing" else _noise(report))
        data = f"{report['data']}, {report['split']} split; draws: {report['draws']}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a report of multifuse evaluate: {type(error).__name__} {error}") from None
    try:
        model.check(report)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    return Sweep(_TITLES[name], data, tables, _figure(path.with_suffix(".png")))


def _figure(path: Path) -> str | None:
    content = path.read_bytes() if path.is_file() else b""
    return base64.b64encode(content).decode() if content.startswith(b"\x89PNG") else None


def _missing(report: Mapping[str, Any]) -> Iterator[SweepTable]:
    subsets = {" + ".join(entry["modalities"]): entry for entry in report["subsets"]}
    yield _table("With only these modalities", "modalities", subsets)
    absences = {f"{100 * entry['rate']:.0f} %": entry for entry in report["absences"]}
    yield _table("Each modality of each sample absent at random", "absent", absences)


def _noise(report: Mapping[str, Any]) -> Iterator[SweepTable]:
    for kind, title in KINDS.items():
        entries = {f"{entry['level']:g}": entry for entry in report["corrupted"] if entry["kind"] == kind}
        if entries:
            yield _table(title.capitalize(), "level", entries)


def _table(title: str, first: str, entries: Mapping[str, Mapping[str, Any]]) -> SweepTable:
    choice = sentiment.CHOICE if any("mae" in entry for entry in entries.values()) else classification.CHOICE
    labels = (choice.of(measure).label for measure in choice.each_epoch)
    rows = tuple((name, *_cells(entry, choice)) for name, entry in entries.items())
    return SweepTable(title, (first, *labels), rows)


def _cells(entry: Mapping[str, Any], choice: Choice) -> Sequence[str]:
    cells = []
    for name in choice.each_epoch:
        value, deviation = entry[name], entry.get(f"{name}_deviation")
        text = "undefined" if value is None else choice.of(name).text(value)
        cells.append(text if deviation is None else f"{text} ± {choice.of(name).text(deviation)}")
    return cells
