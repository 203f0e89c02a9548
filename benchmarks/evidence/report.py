"""The report of the evidence: all tables of every data set, with what they show."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.evidence import tables
from benchmarks.evidence.plan import CLCR, FULL, MODELS, Section, grid, rows


def report(sections: Sequence[Section], results: Path) -> str:
    """Returns all tables of the runs that have been done, in Markdown."""
    return "\n".join(part for section in sections for part in _parts(section, results))


def _parts(section: Section, results: Path) -> Iterator[str]:
    titled = [(title, table) for title, table in _tables(section, results) if table]
    if titled:
        yield f"## {section.data}\n"
    for title, table in titled:
        yield f"{title}\n\n{table}"


def _tables(section: Section, results: Path) -> Iterator[tuple[str, str]]:
    choice = section.choice
    score = tables.score_name(choice)
    models = rows(section, MODELS, results)
    title = "Models, mean ± half the 95 % interval over the seeds."
    yield f"{title} {tables.direction(choice, CLCR)}", tables.score_table(models, CLCR, choice, results)
    chosen_by = ", ".join(map(str, section.seeds[: section.choosing_seeds]))
    title = f"Learning rates by valid {score}, seed {chosen_by}:"
    yield title, tables.grid_table(grid(section, results), choice, results)
    ours = [row for row in models if row.label == CLCR]
    for row in ours:
        yield "Weights of CLCR after each epoch, on valid:", tables.weights_table(row, choice, results)
    change = "Fall" if choice.greater_is_better else "Rise"
    title = f"{change} of the test {score} with corrupted input and with modalities missing:"
    yield title, tables.corruption_table(models, choice, results)
    for row in ours:
        yield "Linear probes of CLCR's streams, R^2 on test:", tables.probe_table(row, results)
    for name in section.tables[1:]:
        of_table = rows(section, name, results)
        title = f"{name.capitalize()}. {tables.direction(choice, FULL)}"
        yield title, tables.score_table(of_table, FULL, choice, results)
        if name == "budget":
            yield "Tokens that are active on test:", tables.budget_table(of_table, choice, results)
