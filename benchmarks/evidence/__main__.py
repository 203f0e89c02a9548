"""Tests the claims of the paper: does the runs that are missing, and prints the tables.

    python -m benchmarks.evidence                                   # the planted sets
    python -m benchmarks.evidence --mosi FILE --text-encoder NAME   # and CMU-MOSI, with the encoder's frozen last layer
    python -m benchmarks.evidence --summary                         # only prints what has been done

Every run is one JSON file in --results, made by one process with one thread; what is there is not done again.
"""

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.evidence import tables
from benchmarks.evidence.plan import SEEDS, grid, rows
from benchmarks.evidence.runs import Run, do
from benchmarks.evidence.sets import EvidenceSet, evidence_sets

RESULTS = Path(__file__).parents[1] / "results" / "evidence"


@dataclass(frozen=True)
class Section:
    """The tables of one data set."""

    data: str
    modalities: tuple[str, ...]
    tables: tuple[str, ...] = ("models",)
    seeds: tuple[int, ...] = SEEDS


SECTIONS = (
    Section("planted-default", ("text", "vision", "audio"), ("models", "ablation", "budget", "sensitivity")),
    Section("planted-levels", ("text", "vision", "audio")),
    Section("planted-cues", ("text", "vision", "audio"), seeds=tuple(range(1, 11))),
    Section("mosi", ("text", "audio"), ("models", "ablation")),
)


def missing(section: Section, results: Path) -> Iterator[list[Run]]:
    """Yields the runs that have not been done: those that choose the learning rates, then those of each table."""
    yield _undone(grid(section.data, section.modalities), results)
    for table in section.tables:
        in_table = rows(section.data, table, section.modalities, results, section.seeds)
        by_seed = (row.runs[index : index + 1] for index in range(len(section.seeds)) for row in in_table)
        yield _undone([run for runs in by_seed for run in runs], results)


def _undone(runs: Iterator[Run] | Sequence[Run], results: Path) -> list[Run]:
    return [run for run in dict.fromkeys(runs) if not run.path(results).exists()]


def do_all(runs: Sequence[Run], sets: dict[str, EvidenceSet], results: Path, processes: int) -> None:
    """Does runs in processes of one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they load torch
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_quietly, run, sets[run.data], results): run for run in runs}
        for count, future in enumerate(as_completed(futures), start=1):
            run = futures[future]
            future.result()
            print(f"{count} of {len(runs)}: {run.data}, {run.name}, seed {run.seed}", flush=True)


def _quietly(run: Run, source: EvidenceSet, results: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        do(run, source, results)


def summary(results: Path) -> str:
    """Returns all tables in Markdown."""
    return "\n".join(part for section in SECTIONS for part in _summary(section, results))


def _summary(section: Section, results: Path) -> Iterator[str]:
    by_table = {name: rows(section.data, name, section.modalities, results, section.seeds) for name in section.tables}
    models = by_table["models"]
    yield f"## {section.data}\n"
    yield f"Models:\n\n{tables.score_table(models, 'clcr', results)}"
    yield f"Learning rates (valid MAE, seed {SEEDS[0]}):\n"
    yield tables.grid_table(list(grid(section.data, section.modalities)), results)
    yield f"Weights of CLCR by epoch:\n\n{tables.entropy_table(models[0], results)}"
    yield f"Rise of the test MAE with corrupted and missing input:\n\n{tables.corruption_table(models, results)}"
    if section.data.startswith("planted"):
        yield f"Linear probes of CLCR's streams, R^2:\n\n{tables.probe_table(models[0], results)}"
    for name in section.tables[1:]:
        yield f"{name.capitalize()}:\n\n{tables.score_table(by_table[name], 'full', results)}"
        if name == "budget":
            yield tables.budget_table(by_table[name], results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mosi", type=Path, help="MMSA feature file of CMU-MOSI")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder of the encoder whose last layer MOSI gets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", choices=[section.data for section in SECTIONS], help="data sets to run")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time (default: one a core)")
    parser.add_argument("--summary", action="store_true", help="only print the tables")
    args = parser.parse_args()
    if (args.mosi is None) != (args.text_encoder is None):
        parser.error("--mosi and --text-encoder must be given together")
    if not args.summary:
        with tempfile.TemporaryDirectory() as folder:
            sets = evidence_sets(args.mosi, args.text_encoder, Path(folder))
            for section in SECTIONS:
                if section.data not in sets or (args.only and section.data not in args.only):
                    continue
                for runs in missing(section, args.results):
                    do_all(runs, sets, args.results, args.processes)
    print(summary(args.results))


if __name__ == "__main__":
    main()
