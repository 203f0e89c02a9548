"""``python -m multifuse.evaluate --missing``: a trained model's measures when modalities are missing."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multifuse.training.missing import Absence, Subset


class EvaluationError(ValueError):
    """An evaluation that cannot start; the message is one line that names the argument and the offending value."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m multifuse.evaluate", description=__doc__)
    parser.add_argument("--missing", action="store_true", required=True, help="score with modalities missing")
    parser.add_argument("--model", type=Path, required=True, help="a run's output folder, or a saved model's")
    parser.add_argument("--data", type=Path, help="MMSA feature file; default: the run's embedded one")
    parser.add_argument("--text-encoder", help="Hugging Face name or folder whose tokenizer the model's text needs")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test")
    parser.add_argument("--output", type=Path, required=True, help="folder for missing.json and missing.png")
    parser.add_argument("--draws", type=int, default=5, help="of random absence, at each rate")
    parser.add_argument("--seed", type=int, default=1111)
    return parser.parse_args(given)


def run(given: argparse.Namespace) -> None:
    """Scores, prints the tables, and writes missing.json and missing.png."""
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer

    from multifuse.data.mmsa import read_mmsa, standardised
    from multifuse.data.utterances import datasets
    from multifuse.files import check_writable, whole
    from multifuse.training import missing, progress
    from multifuse.training.sentiment_job import naming_text_encoder

    if given.draws < 1:
        raise EvaluationError(f"--draws must be >= 1, got {given.draws}")
    check_writable(given.output)
    for name in ("missing.json", "missing.png"):
        if (given.output / name).exists():
            raise EvaluationError(f"--output {given.output} already holds {name}; choose another folder")
    progress.quieten_loading()
    model = _model(given.model)
    path = given.data or given.model / "planted.pkl"
    data = standardised(read_mmsa(path))
    names = tuple(model.config.modalities)
    reads_text = model.config.modalities.get("text", {}).get("encoder") == "text"
    if reads_text and given.text_encoder is None:
        raise EvaluationError("--text-encoder is needed: the model reads token ids")
    tokenizer = None
    if reads_text:
        with naming_text_encoder(given.text_encoder):
            tokenizer = AutoTokenizer.from_pretrained(given.text_encoder)
    for name in names:
        width = model.config.modalities[name].get("input_size")
        if width is not None and data.widths.get(name) != width:
            raise EvaluationError(f"--data {path}: {name} must be {width} wide, is {data.widths.get(name)}")
    splits, collator = datasets(data, names, tokenizer)
    batches: DataLoader[Any] = DataLoader(splits[given.split], batch_size=64, collate_fn=collator)
    subsets = list(missing.on_subsets(model, batches))
    absences = list(missing.at_random(model, batches, draws=given.draws, seed=given.seed))
    given.output.mkdir(parents=True, exist_ok=True)
    _draw(subsets, absences, given.output / "missing.png")
    report = {
        "data": path.name,
        "split": given.split,
        "draws": given.draws,
        "seed": given.seed,
        "subsets": [{"modalities": own.modalities, **own.measures.as_dict()} for own in subsets],
        "absences": [asdict(own) for own in absences],
    }
    with whole(given.output / "missing.json") as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")
    _print(subsets, absences)


def _model(folder: Path) -> Any:
    from multifuse.models import CLCRForPrediction

    own = folder / "model" if (folder / "model").is_dir() else folder
    if not (own / "config.json").is_file():
        raise EvaluationError(f"--model {folder} holds no saved model: no config.json")
    try:
        return CLCRForPrediction.from_pretrained(own).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise EvaluationError(f"--model {folder} cannot be loaded: {' '.join(str(error).split())}") from None


def _print(subsets: "Sequence[Subset]", absences: "Sequence[Absence]") -> None:
    from rich.console import Console
    from rich.table import Table

    by_subset = Table("modalities", "MAE", "Corr", "Acc-2 non0", title="With these modalities alone")
    for own in subsets:
        scores = own.measures
        by_subset.add_row(
            " + ".join(own.modalities), f"{scores.mae:.4f}", f"{scores.corr:.4f}", f"{100 * scores.acc2_non0:.2f} %"
        )
    by_rate = Table("absent", "MAE", "Corr", "Acc-2 non0", title="Each modality of each sample absent at random")
    for rate in absences:
        by_rate.add_row(
            f"{100 * rate.rate:.0f} %",
            f"{rate.mae:.4f} +- {rate.mae_deviation:.4f}",
            f"{rate.corr:.4f}",
            f"{100 * rate.acc2_non0:.2f} %",
        )
    console = Console()
    console.print(by_subset)
    console.print(by_rate)


def _draw(subsets: "Sequence[Subset]", absences: "Sequence[Absence]", path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from multifuse.files import whole

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    bars, curve = figure.subplots(1, 2)
    bars.barh([" + ".join(own.modalities) for own in subsets], [own.measures.mae for own in subsets])
    bars.invert_yaxis()
    bars.set_xlabel("MAE")
    bars.set_title("with these modalities alone")
    curve.errorbar(
        [own.rate for own in absences],
        [own.mae for own in absences],
        yerr=[own.mae_deviation for own in absences],
        marker=".",
        capsize=3,
    )
    curve.set_xlabel("rate at which a sample lacks a modality")
    curve.set_ylabel("MAE")
    curve.set_title("absent at random")
    FigureCanvasAgg(figure)
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def main() -> int:
    given = arguments()
    from multifuse.data.mmsa import MMSAFileError
    from multifuse.training.sentiment_job import JobError

    try:
        run(given)
    except (EvaluationError, JobError, MMSAFileError, OSError) as error:
        print(f"multifuse.evaluate: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
