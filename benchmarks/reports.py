"""Where the figures of a machine are kept: a JSON file, and a table in Markdown beside it."""

import re
from collections.abc import Sequence
from pathlib import Path

from multifuse.recipes.files import whole

RESULTS = Path(__file__).parent / "results"


def report_path(results: Path, machine: str) -> Path:
    """Returns the JSON file of a machine, by its name; the table is beside it."""
    return results / f"{re.sub(r'[^a-z0-9]+', '-', machine.lower())}.json"


def write_report(path: Path, figures: str, table: str) -> None:
    """Writes the figures to a JSON file and the table beside it, each wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, text in ((path, figures), (path.with_suffix(".md"), table)):
        with whole(target) as partial:
            partial.write_text(text)
    print(f"Written: {path} and {path.with_suffix('.md').name}")


def markdown_table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a table, given the cells of its rows; nothing if there are none."""
    if not body:
        return ""
    lines = [heads, ["---"] * len(heads), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
