"""The sentiment job: from an MMSA feature file to a trained model, its measures and a figure."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, EvalPrediction, PreTrainedModel, TrainingArguments, set_seed

import multifuse
from multifuse.data.mmsa import SPLITS, MMSAData, MMSAFileError, read_mmsa, standardised
from multifuse.data.planted import write_planted
from multifuse.data.utterances import Collator, UtteranceDataset, datasets
from multifuse.files import whole
from multifuse.layers.text_levels import TextLevels
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.models.pretrained import load_pretrained
from multifuse.models.text_baseline import TextBaselineForPrediction
from multifuse.ops import backend
from multifuse.training import figure, progress, resumption
from multifuse.training.recipes import PAPER, Recipe, fine_tuning_or_features
from multifuse.training.sentiment import SentimentMeasures, sentiment_measures
from multifuse.training.trainer import RecipeTrainer

PLANTED_NOTE = (
    "No --data given: this is the embedded default, a small SYNTHETIC data set with planted cues. "
    "Its numbers say that the code works, nothing about sentiment."
)


class JobError(ValueError):
    """A job that cannot start; the message is one line that names the argument and the offending value."""


@dataclass(frozen=True)
class SentimentJob:
    """What is trained, on what, and where the results go. ``None`` leaves a number to the recipe."""

    output: Path
    data: Path | None = None
    text_encoder: str | None = None
    """A Hugging Face name or folder; ``None`` reads the stored text features."""
    model: Literal["clcr", "text"] = "clcr"
    """``"text"``: the same text encoder alone, mean-pooled, with a linear head."""
    recipe: Literal["default", "paper"] | Recipe = "default"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 1111
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bf16: bool | None = None
    resume: bool = False
    config: dict[str, Any] | None = None
    """Fields of `CLCRConfig` that differ from the reference configuration."""


@dataclass(frozen=True)
class SentimentResult:
    """What a job ends with; ``predictions`` are the test split's."""

    valid: SentimentMeasures
    test: SentimentMeasures
    best_epoch: float
    seconds: float
    predictions: np.ndarray[Any, np.dtype[np.float32]]


def run(job: SentimentJob) -> SentimentResult:
    """Runs a job; on the ranks of a distributed run, all of them together.

    Raises:
        JobError: an argument, or an output folder that holds another run's results.
        MMSAFileError: a feature file that cannot be used. Nothing has been written then.
    """
    _check(job)
    start = time.perf_counter()
    progress.quieten_loading()
    use_cpu = job.device == "cpu" or (job.device == "auto" and not torch.cuda.is_available())
    chosen = _recipe(job)
    record = _record(job, chosen)
    if job.resume and (found := resumption.differences(job.output, record)):
        raise JobError(f"--resume: the run in {job.output} was begun with {'; '.join(found)}")
    data = read_mmsa(job.data) if job.data is not None else None
    arguments = _arguments(job, chosen, use_cpu)
    if data is None:
        with arguments.main_process_first():
            planted = job.output / "planted.pkl"
            if arguments.process_index == 0 and not planted.exists():
                write_planted(planted)
            data = read_mmsa(planted)
    data = standardised(data)
    main = arguments.process_index == 0
    if main:
        progress.announce(job.data, data, PLANTED_NOTE)
    set_seed(job.seed)
    model, splits, collator = _model_and_data(job, chosen, data)
    trainer = RecipeTrainer(
        model=model,
        args=arguments,
        recipe=chosen,
        train_dataset=splits["train"],
        eval_dataset=splits["valid"],
        data_collator=collator,
        compute_metrics=_Metrics(tuple(model.config.modalities)),
    )
    progress.quieten(trainer)
    if main:
        resumption.record(job.output, record)
    checkpoint = resumption.newest_checkpoint(job.output) if job.resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    valid, test = (trainer.predict(splits[name], metric_key_prefix=name) for name in ("valid", "test"))
    result = SentimentResult(
        sentiment_measures(_logits(valid.predictions), valid.label_ids),
        sentiment_measures(_logits(test.predictions), test.label_ids),
        _best_epoch(trainer),
        time.perf_counter() - start,
        _logits(test.predictions),
    )
    if trainer.is_world_process_zero():
        _write(job, chosen, data, trainer, result)
    return result


def _check(job: SentimentJob) -> None:
    for name in ("epochs", "batch_size"):
        value = getattr(job, name)
        if value is not None and value < 1:
            raise JobError(f"--{name.replace('_', '-')} must be >= 1, got {value}")
    if job.lr is not None and not 0 < job.lr < float("inf"):
        raise JobError(f"--lr must be finite and > 0, got {job.lr}")
    if not 0 <= job.seed < 2**32:
        raise JobError(f"--seed must lie in [0, 2**32), got {job.seed}")
    if job.device == "cuda" and not torch.cuda.is_available():
        raise JobError("--device cuda: this torch sees no CUDA device")
    if job.model == "text" and job.text_encoder is None:
        raise JobError("--model text needs --text-encoder, got none")
    if job.output.exists() and not job.output.is_dir():
        raise JobError(f"--output {job.output} is not a folder")
    if (job.output / "metrics.json").exists():
        raise JobError(f"--output {job.output} already holds a finished run's metrics.json; choose another folder")
    if not job.resume and (job.output / resumption.CHECKPOINTS).exists():
        raise JobError(
            f"--output {job.output} already holds a run's checkpoints; use --resume, or choose another folder"
        )


def default_recipe(text_encoder: str | None) -> Recipe:
    """The default recipe for a text encoder's name or folder, ``None`` for stored features.

    Raises:
        JobError: an encoder whose config cannot be loaded.
    """
    return fine_tuning_or_features(None if text_encoder is None else _encoder_width(text_encoder))


def _recipe(job: SentimentJob) -> Recipe:
    if isinstance(job.recipe, Recipe):
        chosen = job.recipe
    else:
        chosen = PAPER if job.recipe == "paper" else default_recipe(job.text_encoder)
    given = {"epochs": job.epochs, "batch_size": job.batch_size, "lr": job.lr}
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _record(job: SentimentJob, chosen: Recipe) -> dict[str, Any]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {
        "data": None if job.data is None else job.data.name,
        "text_encoder": None if job.text_encoder is None else Path(job.text_encoder).name,
        "model": job.model,
        "seed": job.seed,
        "config": job.config or {},
        **asdict(chosen),
    }


def _encoder_width(name_or_folder: str) -> int:
    with naming_text_encoder(name_or_folder):
        return int(AutoConfig.from_pretrained(name_or_folder).hidden_size)


@contextmanager
def naming_text_encoder(text_encoder: str) -> Iterator[None]:
    """What cannot be loaded of a text encoder ends in one line that names it."""
    try:
        yield
    except (OSError, ValueError, AttributeError) as error:
        raise JobError(f"--text-encoder {text_encoder}: {' '.join(str(error).split())}") from None


def _arguments(job: SentimentJob, chosen: Recipe, use_cpu: bool) -> TrainingArguments:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if chosen.batch_size % ranks:
        raise JobError(f"--batch-size must be a multiple of the {ranks} processes, got {chosen.batch_size}")
    return TrainingArguments(
        output_dir=str(job.output / resumption.CHECKPOINTS),
        num_train_epochs=chosen.epochs,
        per_device_train_batch_size=chosen.batch_size // ranks,
        per_device_eval_batch_size=64,
        learning_rate=chosen.lr,
        max_grad_norm=chosen.max_grad_norm,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="mae",
        greater_is_better=False,
        seed=job.seed,
        data_seed=job.seed,
        bf16=_bf16(job, use_cpu),
        use_cpu=use_cpu,
        ddp_backend="gloo" if use_cpu and ranks > 1 else None,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        dataloader_pin_memory=not use_cpu,
    )


def _bf16(job: SentimentJob, use_cpu: bool) -> bool:
    """By default bfloat16 where a text encoder is tuned and the hardware multiplies in it."""
    if job.bf16 is not None or job.text_encoder is None:
        return bool(job.bf16)
    if not use_cpu:
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any("bf16" in name and present for name, present in capabilities.items())


def _model_and_data(
    job: SentimentJob, chosen: Recipe, data: MMSAData
) -> tuple[PreTrainedModel, dict[str, UtteranceDataset], Collator]:
    modalities = {
        name: {"encoder": "temporal_conv", "input_size": width, "dropout": chosen.feature_dropout}
        for name, width in data.widths.items()
        if job.model == "clcr" and (name != "text" or job.text_encoder is None)
    }
    tokenizer = None
    if job.text_encoder is not None:
        with naming_text_encoder(job.text_encoder):
            tokenizer = AutoTokenizer.from_pretrained(job.text_encoder)
            modalities = {"text": CLCRConfig.text_modality(job.text_encoder), **modalities}
    if not modalities:
        raise JobError("--text-encoder none, but the data file stores no features of any modality")
    try:
        splits, collator = datasets(data, tuple(modalities), tokenizer)
    except MMSAFileError as error:
        raise MMSAFileError(f"{job.data or 'the embedded default'}: {error}") from None
    fields = {"regression_loss": chosen.regression_loss, "initial_last_level": chosen.initial_last_level}
    config = CLCRConfig(modalities=modalities, **{**fields, **(job.config or {})})
    model: PreTrainedModel
    if job.model == "text":
        model = TextBaselineForPrediction(config)
        levels = model.encoder
    else:
        model = CLCRForPrediction(config)
        levels = model.clcr.hierarchy.encoder("text") if "text" in modalities else None
    if job.text_encoder is not None:
        assert isinstance(levels, TextLevels)
        load_pretrained(levels, job.text_encoder)
    return model, splits, collator


@dataclass(frozen=True)
class _Metrics:
    """What Trainer logs of an evaluation: the measures, and the mean level and modality weights."""

    modalities: tuple[str, ...]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        if not np.isfinite(_logits(prediction.predictions)).all():
            raise JobError("the model's predictions are no longer finite: training has diverged, try a lower --lr")
        metrics: dict[str, float] = asdict(sentiment_measures(_logits(prediction.predictions), prediction.label_ids))
        if isinstance(prediction.predictions, tuple):
            _, level_weights, modality_weights = prediction.predictions
            for level, weight in enumerate(level_weights.mean(0), start=1):
                metrics[f"level_weight_{level}"] = float(weight)
            for name, weight in zip(self.modalities, modality_weights.mean(0), strict=True):
                metrics[f"modality_weight_{name}"] = float(weight)
        return metrics


def _logits(predictions: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    return np.asarray(logits, np.float32).reshape(len(logits), -1)[:, 0]


def _best_epoch(trainer: RecipeTrainer) -> float:
    logged = [entry for entry in trainer.state.log_history if "eval_mae" in entry]
    return float(min(logged, key=lambda entry: entry["eval_mae"])["epoch"])


def _write(job: SentimentJob, chosen: Recipe, data: MMSAData, trainer: RecipeTrainer, result: SentimentResult) -> None:
    """Writes the model, the figure and, last, metrics.json, each whole or not at all."""
    with whole(job.output / "model") as folder:
        trainer.model.save_pretrained(folder)
    figure.draw(trainer.state.log_history, job.output / "training.png")
    metrics = {
        "valid": result.valid.as_dict(),
        "test": result.test.as_dict(),
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 1),
        "synthetic": job.data is None,
        "data": "embedded default" if job.data is None else job.data.name,
        "samples": {name: len(getattr(data, name).labels) for name in SPLITS},
        "replaced_non_finite": data.replaced,
        "modalities": list(trainer.model.config.modalities),
        "text_encoder": None if job.text_encoder is None else Path(job.text_encoder).name,
        "model": job.model,
        "recipe": {"name": job.recipe if isinstance(job.recipe, str) else "own", **asdict(chosen)},
        "seed": job.seed,
        "bf16": trainer.args.bf16,
        "versions": {
            "multifuse": multifuse.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "op_backend": backend(trainer.args.device),
        "threads": torch.get_num_threads(),
    }
    with whole(job.output / "metrics.json") as partial:
        partial.write_text(json.dumps(metrics, indent=2) + "\n")
    progress.report(result.valid, result.test, result.best_epoch, job.output)
