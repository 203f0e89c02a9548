"""Compares recipes and configurations on folds of MOSI's training and validation videos; the test split is never read.

    python -m benchmarks.mosi_folds --data FILE --text-encoder FOLDER --results FOLDER --name lr5 --set lr=5e-4
    python -m benchmarks.mosi_folds --results FOLDER --summary

A choice made on the 229 utterances of `valid` is a guess: the same settings with another order of random numbers move
by as much as the settings do. Here every utterance of both splits is predicted once, by a model that saw no utterance
of its video. The epoch is chosen on the same fold, so the scores are too good, for every variant alike.
"""

import argparse
import json
import pickle
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import mean_and_interval
from multifuse.recipes.data.features import safe_pickle
from multifuse.recipes.data.features.mmsa import FEATURES
from multifuse.recipes.files import whole
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.jobs.sentiment import SentimentJob, default_recipe, run

FOLDS = 5


def folds(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """The fold (N,) of every utterance, by its video, drawn with a fixed seed."""
    videos = np.array([name.split("$_$")[0] for name in ids])
    names = np.random.default_rng(0).permutation(np.unique(videos))
    of_video = {name: index % FOLDS for index, name in enumerate(names)}
    return np.array([of_video[name] for name in videos])


def rows(split: dict[str, Any], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """A split's fields with the chosen utterances alone."""
    return {name: np.asarray(values)[chosen] for name, values in split.items()}


def write_fold(content: dict[str, Any], fold: int, without: list[str], path: Path) -> None:
    """Writes a feature file whose valid and test are one fold, and whose train is the others."""
    keep = [name for name in content["train"] if name.removesuffix("_lengths") not in without]
    both = {name: np.concatenate([np.asarray(content[s][name]) for s in ("train", "valid")]) for name in keep}
    held_out = folds(both["id"]) == fold
    parts = {"train": rows(both, ~held_out), "valid": rows(both, held_out), "test": rows(both, held_out)}
    path.write_bytes(pickle.dumps(parts))


def measure(given: argparse.Namespace) -> None:
    """Runs one variant on the folds that have no result yet."""
    content: Any = safe_pickle.load(given.data)
    chosen, config = variant(given.text_encoder, given.set)
    for fold in given.folds:
        path = given.results / f"{given.name}.{given.model}.{fold}.json"
        if path.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "fold.pkl"
            write_fold(content, fold, given.without, data)
            job = SentimentJob(
                output=Path(folder) / "run",
                data=data,
                text_encoder=given.text_encoder,
                model=given.model,
                recipe=chosen,
                config=config,
                seed=given.seed + fold,
            )
            result = run(job)
            split: Any = safe_pickle.load(data)
        found = {
            "name": f"{given.name}.{given.model}",
            "fold": fold,
            "set": given.set,
            "without": given.without,
            "best_epoch": result.best_epoch,
            "seconds": round(result.seconds),
            "predictions": [round(float(value), 4) for value in result.predictions],
            "labels": [round(float(value), 4) for value in split["test"]["regression_labels"]],
        }
        given.results.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            partial.write_text(json.dumps(found) + "\n")


def variant(text_encoder: str, changes: list[str]) -> tuple[Recipe, dict[str, Any]]:
    """The default recipe and configuration with the changes ``name=JSON`` to either."""
    given = {name: json.loads(value) for name, _, value in (change.partition("=") for change in changes)}
    of_recipe = {field.name for field in fields(Recipe)}
    recipe_changes = {name: value for name, value in given.items() if name in of_recipe}
    config = {name: value for name, value in given.items() if name not in of_recipe}
    return replace(default_recipe(text_encoder), **recipe_changes), config


def summary(results: Path) -> str:
    """One row a variant, in Markdown; differences are to the first of them, on the folds that both have."""
    variants: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(results.glob("*.json"), key=lambda path: path.stat().st_mtime):
        found = json.loads(path.read_text())
        variants.setdefault(found["name"], {})[found["fold"]] = found
    lines = ["| variant | folds | mae | corr | acc2_non0 | mae against the first | minutes |", "|---" * 7 + "|"]
    first: dict[int, dict[str, Any]] = next(iter(variants.values()), {})
    for name, runs in variants.items():
        labels, predictions = (_joined(runs, sorted(runs), key) for key in ("labels", "predictions"))
        nonzero = labels != 0
        shared = sorted(set(runs) & set(first))
        errors = [np.abs(_joined(r, shared, "predictions") - _joined(r, shared, "labels")) for r in (runs, first)]
        gain, low, high = mean_and_interval(errors[0] - errors[1])
        lines.append(
            f"| {name} | {len(runs)} | {np.abs(predictions - labels).mean():.4f} "
            f"| {np.corrcoef(predictions, labels)[0, 1]:.4f} "
            f"| {100 * ((predictions > 0) == (labels > 0))[nonzero].mean():.2f} "
            f"| {gain:+.4f} ({low:+.4f} to {high:+.4f}) "
            f"| {max(run['seconds'] for run in runs.values()) / 60:.1f} |"
        )
    return "\n".join(lines)


def _joined(runs: dict[int, dict[str, Any]], of: list[int], key: str) -> NDArray[np.float64]:
    return np.concatenate([np.array(runs[fold][key]) for fold in of])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MMSA feature file")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder")
    parser.add_argument("--model", choices=("clcr", "text"), default="clcr")
    parser.add_argument("--name", default="default", help="of the variant")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="fields of the recipe or the config")
    parser.add_argument("--without", nargs="*", default=[], choices=FEATURES, help="stored features to leave out")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)), choices=range(FOLDS))
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--summary", action="store_true", help="run nothing")
    given = parser.parse_args()
    if not given.summary:
        if given.data is None or given.text_encoder is None:
            parser.error("--data and --text-encoder are needed, or --summary")
        measure(given)
    print(summary(given.results))


if __name__ == "__main__":
    main()
