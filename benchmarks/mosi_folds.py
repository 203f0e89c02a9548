"""Compares recipes and configurations on folds of MOSI's training and validation videos; the test split is never used.

    python -m benchmarks.mosi_folds --data FILE --text-encoder FOLDER --results FOLDER --name lr5 --set lr=5e-4
    python -m benchmarks.mosi_folds --results FOLDER --summary

A choice made on the 229 utterances of `valid` is a guess: a change of seed moves the scores by as much as a change of
settings. Here every utterance of both splits is predicted once, by a model that saw no utterance of its video. The
epoch is chosen on the same fold, so the scores are too good, but equally so for every variant. Results of other data,
or of the same name with other settings, are refused.
"""

import argparse
import glob
import json
import pickle
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import fingerprints
from benchmarks.intervals import mean_and_interval
from multifuse.recipes.data.features import safe_pickle
from multifuse.recipes.data.features.mmsa import FEATURES
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob, default_recipe

FOLDS = 5


def folds(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Returns the fold (N,) of every utterance, which its video determines, drawn with a fixed seed."""
    videos = np.array([name.split("$_$")[0] for name in ids])
    names = np.random.default_rng(0).permutation(np.unique(videos))
    fold_of_video = {name: index % FOLDS for index, name in enumerate(names)}
    return np.array([fold_of_video[name] for name in videos])


def rows(split: dict[str, Any], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Returns a split's fields with only the chosen utterances."""
    return {name: np.asarray(values)[chosen] for name, values in split.items()}


def write_fold(content: dict[str, Any], fold: int, without: list[str], path: Path) -> None:
    """Writes a feature file in which one fold is valid and test, and the other folds are train."""
    keep = [name for name in content["train"] if name.removesuffix("_lengths") not in without]
    joined = {name: np.concatenate([np.asarray(content[s][name]) for s in ("train", "valid")]) for name in keep}
    held_out = folds(joined["id"]) == fold
    splits = {"train": rows(joined, ~held_out), "valid": rows(joined, held_out), "test": rows(joined, held_out)}
    path.write_bytes(pickle.dumps(splits))


def measure(args: argparse.Namespace) -> None:
    """Runs one variant on the folds that have no result yet."""
    made_with = checked(args)
    content: Any = safe_pickle.load(args.data)
    recipe, config = variant(args.text_encoder, args.set)
    for fold in args.folds:
        path = args.results / f"{args.name}.{args.model}.{fold}.json"
        if path.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "fold.pkl"
            write_fold(content, fold, args.without, data)
            job = SentimentJob(
                output=Path(folder) / "run",
                data=data,
                text_encoder=args.text_encoder,
                model=args.model,
                recipe=recipe,
                config=config,
                seed=args.seed + fold,
            )
            result = run(job)
            split: Any = safe_pickle.load(data)
        entry = made_with | {
            "name": f"{args.name}.{args.model}",
            "fold": fold,
            "set": args.set,
            "without": args.without,
            "best_epoch": result.best_epoch,
            "seconds": round(result.seconds),
            "predictions": [round(float(value), 4) for value in result.predictions],
            "labels": [round(float(value), 4) for value in split["test"]["regression_labels"]],
        }
        fingerprints.write_result(path, entry)


def checked(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of a result file that identify data, encoder and settings of a variant.

    Raises:
        ResultsError: results of other data, or of the variant's name with another encoder or other settings.
    """
    settings = {"set": changes(args.set), "without": sorted(args.without), "seed": args.seed}
    made_with = {**fingerprints.of_features(args.data, args.text_encoder), "settings": settings}
    fingerprints.check(sorted(args.results.glob("*.json")), {"fingerprint": made_with["fingerprint"]})
    pattern = glob.escape(f"{args.name}.{args.model}.") + "[0-9].json"
    fingerprints.check(sorted(args.results.glob(pattern)), made_with)
    return made_with


def changes(given: list[str]) -> dict[str, Any]:
    """Returns the values of changes ``name=JSON`` by their names."""
    return {name: json.loads(value) for name, _, value in (change.partition("=") for change in given)}


def variant(text_encoder: str, given: list[str]) -> tuple[Recipe, dict[str, Any]]:
    """Returns the default recipe and configuration with the changes ``name=JSON`` applied to either."""
    values = changes(given)
    recipe_fields = {field.name for field in fields(Recipe)}
    recipe_changes = {name: value for name, value in values.items() if name in recipe_fields}
    config = {name: value for name, value in values.items() if name not in recipe_fields}
    return replace(default_recipe(text_encoder), **recipe_changes), config


def summary(results: Path) -> str:
    """Returns a table in Markdown with one row per variant, compared with the first variant on the folds of both.

    Raises:
        ResultsError: there are no results, they were made with different data, or those of a variant otherwise differ.
    """
    variants: dict[str, dict[int, dict[str, Any]]] = {}
    files: dict[str, list[Path]] = {}
    paths = sorted(fingerprints.result_files(results), key=lambda path: path.stat().st_mtime)
    fingerprints.check_same(paths, ["fingerprint"], str(results))
    for path in paths:
        entry = json.loads(path.read_text())
        variants.setdefault(entry["name"], {})[entry["fold"]] = entry
        files.setdefault(entry["name"], []).append(path)
    for name, of_variant in files.items():
        fingerprints.check_same(of_variant, ["encoder_fingerprint", "settings"], name)
    lines = ["| variant | folds | mae | corr | acc2_non0 | mae against the first | minutes |", "|---" * 7 + "|"]
    reference: dict[int, dict[str, Any]] = next(iter(variants.values()), {})
    for name, runs in variants.items():
        labels, predictions = (_joined(runs, sorted(runs), key) for key in ("labels", "predictions"))
        nonzero = labels != 0
        lines.append(
            f"| {name} | {len(runs)} | {np.abs(predictions - labels).mean():.4f} "
            f"| {np.corrcoef(predictions, labels)[0, 1]:.4f} "
            f"| {100 * ((predictions > 0) == (labels > 0))[nonzero].mean():.2f} "
            f"| {_against(runs, reference)} "
            f"| {max(run['seconds'] for run in runs.values()) / 60:.1f} |"
        )
    return "\n".join(lines)


def _against(runs: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]]) -> str:
    """Returns by how much the error is larger than that of the reference, with an interval, on the folds of both."""
    common = sorted(set(runs) & set(reference))
    if not common:
        return "no fold in common"
    errors, reference_errors = (
        np.abs(_joined(entries, common, "predictions") - _joined(entries, common, "labels"))
        for entries in (runs, reference)
    )
    difference, low, high = mean_and_interval(errors - reference_errors)
    return f"{difference:+.4f} ({low:+.4f} to {high:+.4f})"


def _joined(runs: dict[int, dict[str, Any]], folds: list[int], key: str) -> NDArray[np.float64]:
    return np.concatenate([np.array(runs[fold][key]) for fold in folds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MMSA feature file")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder")
    parser.add_argument("--model", choices=("clcr", "text"), default="clcr")
    parser.add_argument("--name", default="default", help="name of the variant")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=JSON", help="fields of the recipe or the configuration to change"
    )
    parser.add_argument("--without", nargs="*", default=[], choices=FEATURES, help="stored features to leave out")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)), choices=range(FOLDS))
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--summary", action="store_true", help="only print the table")
    args = parser.parse_args()
    given = [args.data is not None, args.text_encoder is not None]
    if not all(given) and (any(given) or not args.summary):
        parser.error("--data and --text-encoder must be given together, and are required without --summary")
    if not all(given) and (args.set or args.without):
        parser.error("--set and --without need --data and --text-encoder")
    try:
        if not args.summary:
            measure(args)
        elif args.data is not None:
            checked(args)
        print(summary(args.results))
    except fingerprints.ResultsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
