"""Compares how robust CLCR, late fusion and cross-attention are to corrupted inputs.

    python -m benchmarks.corruption --output FOLDER                # does the missing runs on the planted data set
    python -m benchmarks.corruption --data FILE --text-encoder NAME_OR_FOLDER --output FOLDER     # or on real data
    python -m benchmarks.corruption --output FOLDER --summary       # prints the tables and draws the figure

The three models have the same encoders, data, recipe and seeds; the epoch of each is chosen on the validation split.
With --text-encoder, the text features are that encoder's frozen last layer. Every run writes one JSON file; a folder
holds those of one data set and encoder.
"""

import argparse
import json
import math
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer

from benchmarks import fingerprints
from benchmarks.machine import machine
from multifuse.processing import TextInput
from multifuse.processing.collator import MultimodalCollator, padded
from multifuse.recipes.corruption.corrupted import KINDS, CorruptionScores, LevelScores, curves, deviations, evaluated
from multifuse.recipes.data.features.mmsa import SPLITS, MMSASplit, read_mmsa, standardised
from multifuse.recipes.data.features.planted import write_planted
from multifuse.recipes.data.features.planted_settings import SETTINGS
from multifuse.recipes.data.features.text import token_ids
from multifuse.recipes.data.features.utterances import datasets
from multifuse.recipes.files import whole
from multifuse.recipes.jobs.models import model_class
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob

FUSIONS = ("clcr", "late-fusion", "cross-attention")
DRAWS = 3
FIGURE = "corruption.png"


def measure(data: Path, fusion: str, seed: int, output: Path, made_with: Mapping[str, Any]) -> None:
    """Trains and scores one model, unless its result file exists, which says what it was ``made_with``."""
    path = output / f"{fusion}.{seed}.json"
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        job = SentimentJob(output=Path(folder) / "run", data=data, model=fusion, seed=seed)
        run(job)
        metrics = json.loads((job.output / "metrics.json").read_text())
        model = model_class(fusion).from_pretrained(job.output / "model")
    content = standardised(read_mmsa(data))
    test = datasets(content, tuple(model.config.modalities))["test"]
    batches: DataLoader[Any] = DataLoader(test, batch_size=64, collate_fn=MultimodalCollator())
    scores = evaluated(model, batches, deviations(content.train), draws=DRAWS)
    metrics["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    metrics["machine"] = machine()
    metrics["corruption"] = scores.report()
    fingerprints.write_result(path, metrics | made_with)


def with_frozen_text(data: Path, encoder: str, path: Path) -> None:
    """Copies a feature file, with the last layer of a text encoder as its text features."""
    content = read_mmsa(data)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    splits = {}
    for name in SPLITS:
        split: MMSASplit = getattr(content, name)
        fields: dict[str, Any] = {"id": list(split.ids), "regression_labels": split.labels}
        for modality, sequence in split.features.items():
            fields |= {modality: sequence.values, f"{modality}_lengths": sequence.lengths.tolist()}
        ids = token_ids(split, tokenizer, TextInput())
        fields["text"] = np.zeros((len(ids), max(map(len, ids)), model.config.hidden_size), np.float32)
        fields["text_lengths"] = [len(row) for row in ids]
        for start in range(0, len(ids), 64):
            rows = [torch.tensor(row, dtype=torch.long) for row in ids[start : start + 64]]
            tokens, real = padded(rows, tokenizer.pad_token_id)
            with torch.no_grad():
                last = model(input_ids=tokens, attention_mask=real.long()).last_hidden_state
            fields["text"][start : start + 64, : last.shape[1]] = last * real.unsqueeze(-1)
        splits[name] = fields
    with whole(path) as partial:
        partial.write_bytes(pickle.dumps(splits, protocol=4))


def summary(output: Path) -> str:
    """Returns the tables in Markdown, and draws the figure.

    Raises:
        ResultsError: there are no results, or they were made with different data or encoders.
    """
    paths = fingerprints.result_files(output)
    fingerprints.check_same(paths, ["fingerprint", "encoder_fingerprint"], str(output))
    scores: dict[str, list[CorruptionScores]] = {}
    lines = ["| model | parameters | seeds | valid MAE | test MAE | Corr | Acc-2 non0 |", "|---" * 7 + "|"]
    for fusion in FUSIONS:
        runs = [json.loads(path.read_text()) for path in sorted(output.glob(f"{fusion}.*.json"))]
        if not runs:
            continue
        scores[fusion] = [_scores(run["corruption"]) for run in runs]
        measures = [
            _cell([run["valid"]["mae"] for run in runs]),
            _cell([run["test"]["mae"] for run in runs]),
            _cell([run["test"]["corr"] for run in runs]),
            _cell([100 * run["test"]["acc2_non0"] for run in runs], 1),
        ]
        seeds = ", ".join(str(run["seed"]) for run in runs)
        lines.append(f"| {fusion} | {runs[0]['parameters']:,} | {seeds} | {' | '.join(measures)} |")
    if not scores:
        raise fingerprints.ResultsError(f"{output} holds no results of {', '.join(FUSIONS)}")
    for kind, label in KINDS.items():
        levels = [at_level.level for at_level in next(iter(scores.values()))[0].of(kind)]
        if not levels:
            continue
        lines += ["", f"Test MAE by {label}:", ""]
        lines.append(f"| model | {' | '.join(f'{level:g}' for level in levels)} | rise at {levels[-1]:g} |")
        lines.append("|---" * (len(levels) + 2) + "|")
        for name, runs_scores in scores.items():
            maes = np.array([[at_level.mae for at_level in run_scores.of(kind)] for run_scores in runs_scores])
            cells = [_cell(column) for column in maes.T] + [_cell(maes[:, -1] - maes[:, 0])]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    with whole(output / FIGURE) as partial:
        curves(scores).savefig(partial, format="png", dpi=80)
    return "\n".join(lines)


def _scores(report: dict[str, Any]) -> CorruptionScores:
    """Returns the scores that `CorruptionScores.report` wrote."""
    entries: list[dict[str, Any]] = [
        {name: math.nan if value is None else value for name, value in entry.items()} for entry in report["corrupted"]
    ]
    return CorruptionScores(tuple(LevelScores(**entry) for entry in entries), tuple(report["late"]))


def _cell(values: Any, digits: int = 3) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MMSA feature file; default: the planted data set")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder; default: the file's stored text features")
    parser.add_argument("--models", nargs="+", choices=FUSIONS, default=list(FUSIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1111, 1112, 1113])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--summary", action="store_true", help="only print the tables and draw the figure")
    args = parser.parse_args()
    if args.text_encoder is not None and args.data is None:
        parser.error("--text-encoder needs --data: the planted data set has no words")
    try:
        if args.data is not None or not args.summary:
            made_with = identified(args.data, args.text_encoder)
            fingerprints.check(sorted(args.output.glob("*.json")), made_with)
        if not args.summary:
            measure_all(args, made_with)
        print(summary(args.output))
    except fingerprints.ResultsError as error:
        parser.error(str(error))


def identified(data: Path | None, encoder: str | None) -> dict[str, Any]:
    """Returns the fields of a result file that identify the data, by default the planted set, and the encoder."""
    if data is None:
        return {"fingerprint": fingerprints.of_text(repr(SETTINGS["cues"])), "encoder_fingerprint": None}
    return fingerprints.of_features(data, encoder)


def measure_all(args: argparse.Namespace, made_with: Mapping[str, Any]) -> None:
    """Does the runs that are missing."""
    with tempfile.TemporaryDirectory() as folder:
        data = args.data
        if data is None:
            data = Path(folder) / "planted.pkl"
            write_planted(data, SETTINGS["cues"])
        elif args.text_encoder is not None:
            data = Path(folder) / f"{args.data.stem}.{Path(args.text_encoder).name}.pkl"
            with_frozen_text(args.data, args.text_encoder, data)
        for seed in args.seeds:
            for fusion in args.models:
                measure(data, fusion, seed, args.output, made_with)


if __name__ == "__main__":
    main()
