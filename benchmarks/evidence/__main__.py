"""Tests the claims of the paper: does the runs that are missing, prints the tables and draws the figure.

    python -m benchmarks.evidence                                   # the planted sets
    python -m benchmarks.evidence --mosi FILE --text-encoder NAME   # and CMU-MOSI, with the encoder's frozen last layer
    python -m benchmarks.evidence --digits DIR                      # and the spoken and written digits
    python -m benchmarks.evidence --summary                         # only shows what has been done
    python -m benchmarks.evidence --cost                            # parameters and time of a training step

Every run is one JSON file in --results, made by one process with one thread; what is there is not done again.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evidence.cost import cost_table
from benchmarks.evidence.feature_set import FeatureSet
from benchmarks.evidence.figure import draw
from benchmarks.evidence.plan import SECTIONS, Section, missing
from benchmarks.evidence.processes import do_missing, one_thread_each
from benchmarks.evidence.report import report
from benchmarks.evidence.runs import OtherDataError, Run, check_fingerprint
from benchmarks.evidence.sets import PLANTED, Files, evidence_set

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
    parser.add_argument("--only", nargs="+", choices=[section.data for section in SECTIONS], help="data sets to run")
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
    chosen = [section for section in SECTIONS if section.data in (args.only or files.names)]
    if ungiven := [section.data for section in chosen if section.data not in files.names and not args.summary]:
        parser.error(f"--only {' '.join(ungiven)} needs the argument that names its data")
    failed: list[Run] = []
    try:
        for name, settings in PLANTED.items():
            check_fingerprint(args.results, name, FeatureSet(settings).fingerprint)
        if not args.summary:
            with tempfile.TemporaryDirectory() as folder:
                failed = evidence(chosen, files, args.prepared or Path(folder), args.results, args.processes)
    except OtherDataError as error:
        parser.error(str(error))
    print(report(SECTIONS, args.results))
    draw(SECTIONS, args.results)
    if failed:
        sys.exit(f"{len(failed)} runs have failed; the same command tries them again")


def evidence(sections: Sequence[Section], files: Files, prepared: Path, results: Path, processes: int) -> list[Run]:
    """Does the runs that are missing, and returns those that failed; a set of which none is missing is not made."""
    unfinished = [section for section in sections if any(missing(section, results))]
    sets = {section.data: evidence_set(section.data, files, prepared) for section in unfinished}
    for name in sets.keys() - PLANTED.keys():  # the planted ones, which are always known, have been checked
        check_fingerprint(results, name, sets[name].fingerprint)
    with one_thread_each(processes) as executor:
        return do_missing(executor, unfinished, sets, results)


if __name__ == "__main__":
    main()
