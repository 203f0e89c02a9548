"""The files that a finished job leaves: the model with its card, the figure of its training, and metrics.json."""

import platform
from dataclasses import asdict
from typing import Any

import torch
import transformers

import multifuse
from multifuse.ops import backend
from multifuse.processing.processor import CLCRProcessor
from multifuse.recipes.files import whole, write_json
from multifuse.recipes.jobs import figure, progress
from multifuse.recipes.jobs.epoch_metrics import measured_epochs
from multifuse.recipes.jobs.job import Data, Job, JobResult
from multifuse.recipes.jobs.model_card import model_card
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.trainer.checkpoints import native_writes
from multifuse.recipes.trainer.trainer import RecipeTrainer


def write_results(
    job: Job[Data, Any],
    chosen: Recipe,
    data: Data,
    trainer: RecipeTrainer,
    processor: CLCRProcessor,
    result: JobResult[Any],
) -> None:
    """Writes the model with its processor and its card, the figure and, last, metrics.json, each atomically."""
    metrics = {
        "valid": result.valid.as_dict(),
        "test": result.test.as_dict(),
        "best_epoch": result.best_epoch,
        "epochs": measured_epochs(trainer.state.log_history, job.choice.metric),
        "seconds": round(result.seconds, 1),
        **job.description(data),
        "modalities": list(trainer.model.config.modalities),
        "recipe": {"name": job.recipe if isinstance(job.recipe, str) else "own", **asdict(chosen)},
        "config": job.fields,
        "seed": job.seed,
        "bf16": trainer.args.bf16,
        "versions": {
            "multifuse": multifuse.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "op_backend": backend(trainer.args.device),
        "threads": torch.get_num_threads(),
    }
    with whole(job.output / "model") as folder, native_writes(job.output / "model"):
        trainer.model.save_pretrained(folder)
        processor.save_pretrained(folder)
        card = model_card(metrics, trainer.model, processor, job.choice, job.command)
        (folder / "README.md").write_text(str(card), encoding="utf-8")
    figure.draw(trainer.state.log_history, job.output / "training.png", job.choice)
    write_json(job.output / "metrics.json", metrics)
    progress.report(job.choice, result.valid, result.test, result.best_epoch, job.output)
