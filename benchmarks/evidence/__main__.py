"""Tests the claims of the paper: does the runs that are missing, prints the tables and draws the figure.

    python -m benchmarks.evidence                                   # the planted sets
    python -m benchmarks.evidence --mosi FILE --text-encoder NAME   # and CMU-MOSI, with the encoder's frozen last layer
    python -m benchmarks.evidence --digits DIR                      # and the spoken and written digits
    python -m benchmarks.evidence --summary                         # only shows what has been done
    python -m benchmarks.evidence --cost                            # parameters and time of a training step

Every run is one JSON file in --results, made by one process with one thread; what is there is not done again. Files
that were made with other data are refused.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import fingerprints
from benchmarks.evidence.cost import cost_table
from benchmarks.evidence.figure import draw
from benchmarks.evidence.plan import SECTIONS, Section
from benchmarks.evidence.processes import do_missing, one_thread_each
from benchmarks.evidence.report import report
from benchmarks.evidence.runs import EvidenceSet, Run
from benchmarks.evidence.sets import Files, evidence_set

RESULTS = Path(__file__).parents[1] / "results" / "evidence"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mosi", type=Path, help="MMSA feature file of CMU-MOSI")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder of the encoder whose last layer MOSI gets")
    parser.add_argument("--digits", type=Path, help="folder of the spoken and written digits as distributed")
    parser.add_argument(
        "--prepared", type=Path, help="folder for what is made once of --mosi and --digits; default: a temporary one"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--only", nargs="+", choices=[section.data for section in SECTIONS], help="data sets to run and show"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time (default: one a core)")
    parser.add_argument("--summary", action="store_true", help="only print the tables and draw the figure")
    parser.add_argument("--cost", action="store_true", help="only print what a training step of each model costs")
    args = parser.parse_args()
    if (args.mosi is None) != (args.text_encoder is None):
        parser.error("--mosi and --text-encoder must be given together")
    if args.processes < 1:
        parser.error(f"--processes must be >= 1, got {args.processes}")
    files = Files(args.mosi, args.text_encoder, args.digits)
    if args.cost:
        print(cost_table())
        return
    shown = [section for section in SECTIONS if args.only is None or section.data in args.only]
    named = [section for section in shown if section.data in files.names]
    if args.only and not args.summary and (ungiven := [s.data for s in shown if s not in named]):
        parser.error(f"--only {' '.join(ungiven)} needs the argument that names its data")
    failed: list[Run] = []
    try:
        for section in shown:
            paths = sorted((args.results / section.data).glob("*.json"))
            fingerprints.check_same(paths, ["fingerprint"], section.data)
        with tempfile.TemporaryDirectory() as folder:
            if args.summary:  # nothing needs to be made where there is nothing to check
                named = [section for section in named if any((args.results / section.data).glob("*.json"))]
            sets = checked_sets(named, files, args.prepared or Path(folder), args.results)
            if not args.summary:
                failed = evidence(named, sets, args.results, args.processes)
    except fingerprints.ResultsError as error:
        parser.error(str(error))
    tables = report(shown, args.results)
    if args.summary and not tables:
        parser.error(f"--results {args.results} holds no results of {', '.join(section.data for section in shown)}")
    print(tables)
    if args.only is None:  # else the figure would lose the rows of the other sets
        draw(SECTIONS, args.results)
    if failed:
        sys.exit(f"{len(failed)} runs have failed; the same command tries them again")


def checked_sets(sections: Sequence[Section], files: Files, prepared: Path, results: Path) -> dict[str, EvidenceSet]:
    """Makes the sets, also those of which no run is missing: their results must be of the data that the user names.

    Raises:
        ResultsError: results of other data.
    """
    sets = {}
    for section in sections:
        sets[section.data] = source = evidence_set(section.data, files, prepared)
        paths = sorted((results / section.data).glob("*.json"))
        fingerprints.check(paths, {"fingerprint": source.fingerprint})
    return sets


def evidence(sections: Sequence[Section], sets: Mapping[str, EvidenceSet], results: Path, processes: int) -> list[Run]:
    """Does the runs that are missing, and returns those that failed."""
    with one_thread_each(processes) as executor:
        return do_missing(executor, sections, sets, results)


if __name__ == "__main__":
    main()
