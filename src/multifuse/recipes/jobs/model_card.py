"""The model card of a trained model: what it was trained on and how, its measures, how to load it, and its limits."""

import json
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

import multifuse
from multifuse.processing.feature_input import FeatureInput
from multifuse.processing.processor import CLCRProcessor
from multifuse.recipes.measures.measures import Choice

_LICENSE = "apache-2.0"  # of the library
_EXAMPLES = {
    "text": '["a text"]',
    "features": "[np.zeros((4, {width}))]",
    "sound": '["film.mp4"]',
    "frames": '["film.mp4"]',
}
"""By kind of input, what the card's example gives to the processor: the input of one sample."""


def model_card(
    metrics: Mapping[str, Any], model: PreTrainedModel, processor: CLCRProcessor, choice: Choice, command: str | None
) -> ModelCard:
    """Returns the card of a model, given what ``metrics.json`` says of its run."""
    name = type(model).__name__
    sections = {
        "Measures": _measures(metrics, choice),
        "Data": _data(metrics),
        "Training": _training(metrics, choice, command),
        "Use": _use(model, processor),
        "Limits": _limits(metrics, choice),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    data = ModelCardData(
        library_name="multifuse",
        license=_LICENSE,
        tags=["multifuse", "multimodal", *metrics["modalities"]],
        model_name=name,
        eval_results=_results(metrics, model, choice),
    )
    heading = f"# {name}, trained on {_source(metrics)}"
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{heading}\n\n{body}\n")


def _results(metrics: Mapping[str, Any], model: PreTrainedModel, choice: Choice) -> list[EvalResult]:
    is_regression = model.config.problem_type in (None, "regression")
    return [
        EvalResult(
            task_type="regression" if is_regression else "classification",
            dataset_type=str(metrics["data"]),
            dataset_name=str(metrics["data"]),
            dataset_split=split,
            metric_type=shown.name,
            metric_name=shown.label,
            metric_value=metrics[split][shown.name],
        )
        for split in ("valid", "test")
        for shown in choice.shown
        if metrics[split][shown.name] is not None
    ]


def _measures(metrics: Mapping[str, Any], choice: Choice) -> str:
    rows = ["| measure | valid | test |", "|---|---|---|"]
    for shown in choice.shown:
        values = (metrics[split][shown.name] for split in ("valid", "test"))
        valid, test = ("undefined" if value is None else shown.text(value) for value in values)
        rows.append(f"| {shown.label} | {valid} | {test} |")
    return "\n".join(rows)


def _data(metrics: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} of {split}" for split, count in metrics["samples"].items())
    return f"Source: {_source(metrics)}. Modalities: {', '.join(metrics['modalities'])}. Samples: {counts}."


def _training(metrics: Mapping[str, Any], choice: Choice, command: str | None) -> str:
    ran = "" if command is None else f"```bash\n{command}\n```\n\n"
    versions = ", ".join(f"{library} {version}" for library, version in metrics["versions"].items())
    settings = json.dumps({"recipe": metrics["recipe"], "config": metrics["config"]}, indent=2)
    return (
        f"{ran}Seed {metrics['seed']}, {'bfloat16 autocast' if metrics['bf16'] else 'float32'}, {versions}. "
        f"Epoch {metrics['best_epoch']:g} was chosen by {choice.metric} on the validation split.\n\n"
        "The recipe, and the fields of the configuration that were set by hand (all of them are in `config.json`):\n\n"
        f"```json\n{settings}\n```"
    )


def _use(model: PreTrainedModel, processor: CLCRProcessor) -> str:
    name = type(model).__name__
    if hasattr(multifuse, name):
        imports = f"from multifuse import {', '.join(sorted((name, 'CLCRProcessor')))}"
    else:
        imports = f"from multifuse import CLCRProcessor\nfrom {type(model).__module__} import {name}"
    width = {key: len(kind.mean) for key, kind in processor.modalities.items() if isinstance(kind, FeatureInput)}
    given = {
        key: _EXAMPLES[kind.kind].format(width=width.get(key))
        for key, kind in processor.modalities.items()
        if key in model.config.modalities
    }
    numpy = "import numpy as np\n\n" if width else ""
    arguments = ", ".join(f"{key}={value}" for key, value in given.items())
    return (
        "With this folder, or the name of its repository on the Hub, as `folder`:\n\n"
        f"```python\n{numpy}{imports}\n\n"
        f"model = {name}.from_pretrained(folder).eval()\n"
        "processor = CLCRProcessor.from_pretrained(folder)\n"
        f"logits = model(**processor({arguments})).logits\n```"
    )


def _limits(metrics: Mapping[str, Any], choice: Choice) -> str:
    limits = [
        "One run with one seed: another seed gives other measures, and how far they spread is not said here.",
        f"Tested on {metrics['samples']['test']} samples from the source of the training samples, and no others.",
        "What is wrong or unfair in the data and in pretrained encoders is learnt. Nobody has tested a use of it.",
        "The license above is that of the library; the data and pretrained encoders have terms of their own.",
    ]
    if metrics["synthetic"]:
        limits.insert(0, "The data are synthetic: the measures show that the code works, and nothing else.")
    if not choice.greater_is_better:
        limits.append("The prediction is a number that nothing bounds: it may lie outside of the range of the labels.")
    return "\n".join(f"- {limit}" for limit in limits)


def _source(metrics: Mapping[str, Any]) -> str:
    return "a synthetic data set" if metrics["synthetic"] else f"`{metrics['data']}`"
