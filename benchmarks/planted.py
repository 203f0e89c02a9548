"""Prints what can be reached on each setting of the planted set: the table of docs/data.md."""

import argparse

from multifuse.recipes.data.features.planted import planted
from multifuse.recipes.data.features.planted_oracle import reachable
from multifuse.recipes.data.features.planted_settings import SETTINGS


def table(seed: int) -> str:
    columns = (
        "setting",
        "constant",
        "without text",
        "without vision",
        "without audio",
        "additive",
        "one copy",
        "oracle",
    )
    lines = [f"| {' | '.join(columns)} | floor |", "|---" * (len(columns) + 1) + "|"]
    for name, settings in SETTINGS.items():
        found = reachable(planted(settings, seed))
        maes = (found.constant, *found.without.values(), found.additive, found.one_copy, found.oracle, found.floor)
        lines.append(f"| `{name}` | {' | '.join(f'{mae:.3f}' for mae in maes)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    print(table(parser.parse_args().seed))


if __name__ == "__main__":
    main()
