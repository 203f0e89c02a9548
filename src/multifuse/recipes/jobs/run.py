"""Runs a job: reads the data, trains, measures, and writes the results."""

import os
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments, set_seed

from multifuse.recipes.jobs import progress, resumption
from multifuse.recipes.jobs.claim import claimed
from multifuse.recipes.jobs.epoch_metrics import EpochMetrics, best_epoch, logits_of
from multifuse.recipes.jobs.job import Data, Job, JobError, JobResult, Learning, Measured
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.jobs.results import write_results
from multifuse.recipes.jobs.run_checks import check, check_resumed, check_same
from multifuse.recipes.trainer.trainer import RecipeTrainer


def run(job: Job[Data, Measured]) -> JobResult[Measured]:
    """Runs a job; in a distributed run, all ranks call this.

    Raises:
        JobError: if an argument is wrong, or the output folder holds another run's results, or is in use by one.
        CheckpointError: if the checkpoint to resume from is not as it was written.
        OutputError: if the output cannot be written; the run can be resumed from its last checkpoint.
        ValueError: if the data cannot be used, as raised by the job's ``read_given`` and ``make``.
    """
    use_cpu = job.device == "cpu" or (job.device == "auto" and not torch.cuda.is_available())
    check(job, use_cpu)
    start = time.perf_counter()
    progress.quieten_loading()
    chosen = _recipe(job)
    record = {
        **job.record(),
        "seed": job.seed,
        "config": job.fields,
        **asdict(chosen),
        **_computation(job, chosen, use_cpu),
    }
    if job.resume:
        check_resumed(job.output, record)
    data = job.read_given()
    arguments = _arguments(job, chosen, use_cpu)
    main = arguments.process_index == 0
    with claimed(job) if main else nullcontext(job) as job:
        arguments.output_dir = str(job.output / resumption.CHECKPOINTS)
        if data is None:
            with arguments.main_process_first(local=False):  # the others of all machines wait for the one that writes
                data = job.make(writes=main)
        if main or job.resume:
            record["data_sha256"] = job.data_digest(data)
        if job.resume:
            check_same(job.output, record)
        if main:
            job.announce(data)
        set_seed(job.seed)
        learning = job.learning(chosen, data)
        trainer = _trainer(job, chosen, arguments, learning)
        if main:
            resumption.record(job.output, record)
            resumption.clear_remains(job.output)
        checkpoint = resumption.newest_checkpoint(job.output) if job.resume else None
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        result = _result(job, trainer, learning, start)
        if main:
            write_results(job, chosen, data, trainer, learning.processor, result)
    return result


def _trainer(job: Job[Any, Any], chosen: Recipe, arguments: TrainingArguments, learning: Learning) -> RecipeTrainer:
    arguments.dataloader_drop_last = _lone_sample(learning, chosen.batch_size, arguments.world_size)
    trainer = RecipeTrainer(
        model=learning.model,
        args=arguments,
        recipe=chosen,
        train_dataset=learning.splits["train"],
        eval_dataset=learning.splits["valid"],
        data_collator=learning.processor.collator,
        compute_metrics=EpochMetrics(job, tuple(learning.model.config.modalities)),
    )
    if job.compile:
        learning.model.compile(dynamic=True)
    progress.quieten(trainer, job.choice)
    return trainer


def _result(job: Job[Any, Measured], trainer: RecipeTrainer, learning: Learning, start: float) -> JobResult[Measured]:
    valid, test = (trainer.predict(learning.splits[name], metric_key_prefix=name) for name in ("valid", "test"))
    predicted = {
        name: job.predictions(logits_of(output.predictions)) for name, output in (("valid", valid), ("test", test))
    }
    return JobResult(
        job.measure(predicted["valid"], valid.label_ids),
        job.measure(predicted["test"], test.label_ids),
        best_epoch(trainer.state.log_history, job.choice),
        time.perf_counter() - start,
        predicted["test"],
    )


def _lone_sample(learning: Learning, batch_size: int, ranks: int) -> bool:
    """Returns whether an epoch would end with a single sample on a rank, which batch normalisation may not accept."""
    normalises = any(isinstance(module, nn.BatchNorm2d) for module in learning.model.modules())
    return normalises and 0 < len(learning.splits["train"]) % batch_size < 2 * ranks  # type: ignore[arg-type]


def _recipe(job: Job[Any, Any]) -> Recipe:
    chosen = job.recipe if isinstance(job.recipe, Recipe) else job.named_recipe(job.recipe)
    options = {"epochs": job.epochs, "batch_size": job.batch_size, "lr": job.lr, "feature_dropout": job.dropout}
    changes = {name: value for name, value in options.items() if value is not None}
    return replace(chosen, **changes)  # type: ignore[arg-type]


def _computation(job: Job[Any, Any], chosen: Recipe, use_cpu: bool) -> dict[str, Any]:
    """Returns how the run is computed, as far as the result depends on it: rounding, and what is drawn at random."""
    return {
        "bf16": _bf16(job, use_cpu),
        "compile": job.compile,
        "device": "cpu" if use_cpu else "cuda",
        "processes": _ranks(),
        # Each loading process draws its own augmentation; without any, batches do not depend on who loads them.
        "loader_workers": None if chosen.augmentation is None else job.loader_workers,
    }


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _arguments(job: Job[Any, Any], chosen: Recipe, use_cpu: bool) -> TrainingArguments:
    ranks = _ranks()
    if chosen.batch_size % ranks:
        raise JobError(f"--batch-size must be a multiple of the number of processes, {ranks}, got {chosen.batch_size}")
    return TrainingArguments(
        output_dir=str(job.output / resumption.CHECKPOINTS),
        num_train_epochs=chosen.epochs,
        per_device_train_batch_size=chosen.batch_size // ranks,
        per_device_eval_batch_size=64,
        learning_rate=chosen.lr,
        max_grad_norm=chosen.max_grad_norm,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch" if job.log_steps is None else "steps",
        logging_steps=job.log_steps or 500,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=job.choice.metric,
        greater_is_better=job.choice.greater_is_better,
        seed=job.seed,
        data_seed=job.seed,
        bf16=_bf16(job, use_cpu),
        use_cpu=use_cpu,
        ddp_backend="gloo" if use_cpu and ranks > 1 else None,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        dataloader_pin_memory=not use_cpu,
        dataloader_num_workers=job.loader_workers,
    )


def _bf16(job: Job[Any, Any], use_cpu: bool) -> bool:
    """Returns whether to train in bfloat16: by default, if an encoder is fine-tuned and the hardware supports it."""
    if job.bf16 is not None or not job.tunes_pretrained:
        return bool(job.bf16)
    if not use_cpu:
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any("bf16" in name and present for name, present in capabilities.items())
