"""Runs every speed benchmark: python -m benchmarks.speed [--check] [--threads N] [--seconds S] [--results FOLDER].

Writes FOLDER/<processor>-<threads>.json and a table beside it. First, ratios are compared with those of an existing
file of this name: one that has grown by over 20 % is flagged. With --check, nothing is written, and any flag gives exit
status 1.
"""

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers

import multifuse
from benchmarks import (
    frames_speed,
    import_speed,
    kernels_speed,
    launches,
    length_speed,
    op_speed,
    queries_speed,
    step_profile,
    step_speed,
)
from benchmarks.launches import Launches
from benchmarks.length_speed import Length
from benchmarks.machine import processor
from benchmarks.reports import RESULTS, report_path, write_report
from benchmarks.step_profile import Operator
from benchmarks.timing import Comparison, Timing

TOLERATED = 1.2
IMPORT_LIMIT = 0.25
GAMMAS = (1.0, 0.5, 0.1, 0.02)


@dataclass(frozen=True)
class Report:
    """All figures of one run on one machine."""

    machine: dict[str, Any]
    comparisons: list[Comparison]
    lengths: list[Length]
    operators: list[Operator]
    operators_of_losses: list[Operator]
    launches: list[Launches]
    taking_part: dict[str, float]
    """Fraction of tokens with alpha > 0, per gamma."""
    import_seconds: float

    def as_json(self) -> str:
        entries = [{**asdict(c), "ratio": round(c.ratio, 4), "is_missed": c.is_missed} for c in self.comparisons]
        counts = [{**asdict(row), "total": row.total} for row in self.launches]
        return json.dumps({**asdict(self), "comparisons": entries, "launches": counts}, indent=1) + "\n"

    def as_table(self) -> str:
        lines = [
            f"# Speed on {self.machine['processor']}",
            "",
            ", ".join(f"{name} {value}" for name, value in self.machine.items()) + ".",
            "",
            "Medians of calls made in turns in one process, first to last decile in brackets. A ratio is ours over",
            "theirs: below 1 we are faster.",
            "",
            "| what | ours | against | theirs | ratio | target |",
            "|---|---|---|---|---|---|",
            *(_row(comparison) for comparison in self.comparisons),
            "",
            "IntraCED, two modalities of T tokens, one sample, forward + backward:",
            "",
            "| T | seconds | MiB at the peak |",
            "|---|---|---|",
            *(f"| {length.tokens} | {length.seconds:.3f} | {length.mebibytes:.0f} |" for length in self.lengths),
            "",
            "Where the time of CLCR's training step goes, by operator:",
            "",
            *_profile(self.operators),
            "",
            "Where the time of StiefelProjector and the whitening losses goes:",
            "",
            *_profile(self.operators_of_losses),
            "",
            "Operators of a training step that launch a kernel on a GPU (python -m benchmarks.launches):",
            "",
            launches.table(self.launches),
            "Tokens with alpha > 0 in a budget before training: "
            + ", ".join(f"{100 * fraction:.0f} % at gamma {gamma}" for gamma, fraction in self.taking_part.items())
            + ".",
            "",
            f"Importing IntraCED adds {self.import_seconds:.2f} s to `import torch` (limit {IMPORT_LIMIT} s).",
        ]
        return "\n".join(lines) + "\n"


def _profile(operators: Sequence[Operator]) -> list[str]:
    rows = (f"| `{operator.name}` | {100 * operator.share:.1f} % | {operator.calls:.0f} |" for operator in operators)
    return ["| operator | share | calls |", "|---|---|---|", *rows]


def regressions(before: dict[str, Any], now: Report) -> list[str]:
    """Returns a line for each ratio, or number of launches, that has grown by over 20 % since an earlier report."""
    ratios = {(entry["what"], entry["peer"]): entry["ratio"] for entry in before["comparisons"]}
    totals = {entry["what"]: entry["total"] for entry in before.get("launches", [])}
    lines = [
        f"launches of {row.what}: {row.total}, was {totals[row.what]}"
        for row in now.launches
        if row.total > TOLERATED * totals.get(row.what, math.inf)
    ]
    for comparison in now.comparisons:
        old = ratios.get((comparison.what, comparison.peer))
        if old is not None and comparison.ratio > TOLERATED * old:
            lines.append(
                f"{comparison.what} against {comparison.peer}: ratio {comparison.ratio:.3g}, was {old:.3g} "
                f"({100 * (comparison.ratio / old - 1):.0f} % slower)"
            )
    return lines


def measured(seconds: float) -> Report:
    """Runs all benchmarks, and prints each figure as soon as it is known."""
    comparisons = []
    groups = (op_speed, kernels_speed, frames_speed, step_speed, queries_speed)
    for comparison in chain.from_iterable(group.compare(seconds) for group in groups):
        print(_row(comparison), flush=True)
        comparisons.append(comparison)
    return Report(
        _machine(),
        comparisons,
        list(_printed(length_speed.measure(torch.get_num_threads()))),
        step_profile.measure(step_speed.training_step()),
        step_profile.measure(step_speed.projector_and_losses()),
        launches.measure(),
        {str(gamma): queries_speed.taking_part(gamma) for gamma in GAMMAS},
        import_speed.added_seconds(),
    )


def _printed(lengths: Iterator[Length]) -> Iterator[Length]:
    for length in lengths:
        print(f"IntraCED at T = {length.tokens}: {length.seconds:.3f} s, {length.mebibytes:.0f} MiB", flush=True)
        yield length


def _row(c: Comparison) -> str:
    target = "" if c.target is None else f"<= {c.target:.3g}{' MISSED' if c.is_missed else ''}"
    return f"| {c.what} | {_span(c.ours)} | {c.peer} | {_span(c.theirs)} | {c.ratio:.3g} | {target} |"


def _span(timing: Timing) -> str:
    scale, unit = (1e3, "ms") if timing.median >= 1e-3 else (1e6, "us")
    return f"{timing.median * scale:.3g} {unit} ({timing.low * scale:.3g} to {timing.high * scale:.3g})"


def _machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "multifuse": multifuse.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the existing figures and write nothing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="approximate duration of each group of measurements")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.threads < 1 or not args.seconds > 0:
        parser.error(f"--threads must be >= 1 and --seconds > 0, got {args.threads} and {args.seconds}")
    torch.set_num_threads(args.threads)
    report = measured(args.seconds)
    path = report_path(args.results, f"{report.machine['processor']} {report.machine['threads']} threads")
    regressed = regressions(json.loads(path.read_text()), report) if path.exists() else []
    for line in regressed:
        print(f"REGRESSION: {line}", file=sys.stderr)
    if args.check:
        sys.exit(1 if regressed else 0)
    write_report(path, report.as_json(), report.as_table())


if __name__ == "__main__":
    main()
