"""The job that all benchmarks have in common: data, model, training, measures, and the files that are written."""

import os
import platform
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedModel, TrainingArguments, set_seed

import multifuse
from multifuse.ops import backend
from multifuse.processing.processor import CLCRProcessor
from multifuse.recipes.files import check_writable, whole, write_json
from multifuse.recipes.jobs import figure, progress, resumption
from multifuse.recipes.jobs.model_card import model_card
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.measures.entropy import normalised_entropy
from multifuse.recipes.measures.measures import Choice, Measures
from multifuse.recipes.trainer.checkpoints import native_writes
from multifuse.recipes.trainer.trainer import RecipeTrainer

Data = TypeVar("Data")
Measured = TypeVar("Measured", bound=Measures)


class JobError(ValueError):
    """Raised if a job cannot run; the message is one line that names the argument and the offending value."""


@dataclass(frozen=True)
class Learning:
    """What is trained, on which data, and how inputs are read: it also reads new data for the trained model."""

    model: PreTrainedModel
    splits: Mapping[str, Dataset[Any]]
    processor: CLCRProcessor


@dataclass(frozen=True)
class JobResult(Generic[Measured]):
    """The result of a job; ``predictions`` are those on the test split."""

    valid: Measured
    test: Measured
    best_epoch: float
    seconds: float
    predictions: NDArray[Any]


@dataclass(frozen=True)
class Job(ABC, Generic[Data, Measured]):
    """How a model is trained, and where the results are written; ``None`` takes the recipe's value.

    The jobs of the benchmarks add what is read, and implement the abstract methods.
    """

    output: Path
    recipe: Literal["default", "paper"] | Recipe = "default"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    dropout: float | None = None
    """Dropout of the fusion model, and of the encoders of stored features and of media."""
    seed: int = 1111
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bf16: bool | None = None
    compile: bool = False
    """Whether the model is compiled by ``torch.compile``, for all shapes of batches."""
    resume: bool = False
    loader_workers: int = 0
    """Number of processes that load batches in advance."""
    log_steps: int | None = None
    """Number of steps over which each logged training loss is averaged; ``None`` averages over an epoch."""
    command: str | None = None
    """The command that runs this job, for the model card."""
    config: dict[str, Any] | None = None
    """Fields of `CLCRConfig` that differ from the reference configuration."""

    choice: ClassVar[Choice]
    """The measures, and the one by which the best epoch is chosen."""

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of `CLCRConfig` that the job sets, which take precedence over the recipe."""
        return {**({} if self.dropout is None else {"dropout": self.dropout}), **(self.config or {})}

    @property
    @abstractmethod
    def tunes_pretrained(self) -> bool:
        """Whether a pretrained encoder is fine-tuned, in which case bfloat16 is the default."""

    @abstractmethod
    def check(self) -> None:
        """Checks the arguments that are specific to the benchmark.

        Raises:
            JobError: if an argument is wrong.
        """

    @abstractmethod
    def named_recipe(self, name: str) -> Recipe:
        """Returns the recipe ``"default"`` or ``"paper"`` of this benchmark."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Returns the settings that must not change when a run is resumed."""

    @abstractmethod
    def read_given(self) -> Data | None:
        """Reads and checks the data that the user named; returns ``None`` if `make` must make them."""

    @abstractmethod
    def make(self, writes: bool) -> Data:
        """Makes the data in ``output`` and reads them; one process ``writes`` before the others call this."""

    @abstractmethod
    def announce(self, data: Data) -> None:
        """Prints what was read."""

    @abstractmethod
    def learning(self, recipe: Recipe, data: Data) -> Learning:
        """Returns the model, the splits and the processor."""

    @abstractmethod
    def predictions(self, logits: NDArray[np.float32]) -> NDArray[Any]:
        """Returns the predictions that the model's logits stand for."""

    @abstractmethod
    def measure(self, predictions: NDArray[Any], labels: NDArray[Any]) -> Measured:
        """Computes the measures of a split."""

    @abstractmethod
    def description(self, data: Data) -> dict[str, Any]:
        """Returns what metrics.json says about the data and the encoders."""


def run(job: Job[Data, Measured]) -> JobResult[Measured]:
    """Runs a job; in a distributed run, all ranks call this.

    Raises:
        JobError: if an argument is wrong, or the output folder holds another run's results.
        CheckpointError: if the checkpoint to resume from is not as it was written.
        OutputError: if the output cannot be written; the run can be resumed from its last checkpoint.
        ValueError: if the data cannot be used, as raised by the job's ``read_given`` and ``make``.
    """
    use_cpu = job.device == "cpu" or (job.device == "auto" and not torch.cuda.is_available())
    _check(job, use_cpu)
    start = time.perf_counter()
    progress.quieten_loading()
    chosen = _recipe(job)
    record = {**job.record(), "seed": job.seed, "config": job.fields, **asdict(chosen)}
    if job.resume:
        _check_resumed(job.output, record)
    data = job.read_given()
    arguments = _arguments(job, chosen, use_cpu)
    main = arguments.process_index == 0
    if data is None:
        with arguments.main_process_first(local=False):  # the others of all machines wait for the one that writes
            data = job.make(writes=main)
    if main:
        job.announce(data)
    set_seed(job.seed)
    learning = job.learning(chosen, data)
    arguments.dataloader_drop_last = _lone_sample(learning, chosen.batch_size, arguments.world_size)
    trainer = RecipeTrainer(
        model=learning.model,
        args=arguments,
        recipe=chosen,
        train_dataset=learning.splits["train"],
        eval_dataset=learning.splits["valid"],
        data_collator=learning.processor.collator,
        compute_metrics=_Metrics(job, tuple(learning.model.config.modalities)),
    )
    if job.compile:
        learning.model.compile(dynamic=True)
    progress.quieten(trainer, job.choice)
    if main:
        resumption.record(job.output, record)
        resumption.clear_remains(job.output)
    checkpoint = resumption.newest_checkpoint(job.output) if job.resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    valid, test = (trainer.predict(learning.splits[name], metric_key_prefix=name) for name in ("valid", "test"))
    predicted = {
        name: job.predictions(_logits(output.predictions)) for name, output in (("valid", valid), ("test", test))
    }
    result = JobResult(
        job.measure(predicted["valid"], valid.label_ids),
        job.measure(predicted["test"], test.label_ids),
        _best_epoch(trainer, job.choice),
        time.perf_counter() - start,
        predicted["test"],
    )
    if trainer.is_world_process_zero():
        _write(job, chosen, data, trainer, learning.processor, result)
    return result


def _lone_sample(learning: Learning, batch_size: int, ranks: int) -> bool:
    """Returns whether an epoch would end with a single sample on a rank, which batch normalisation may not accept."""
    normalises = any(isinstance(module, nn.BatchNorm2d) for module in learning.model.modules())
    return normalises and 0 < len(learning.splits["train"]) % batch_size < 2 * ranks  # type: ignore[arg-type]


def _check(job: Job[Any, Any], use_cpu: bool) -> None:
    for name in ("epochs", "batch_size", "log_steps"):
        value = getattr(job, name)
        if value is not None and value < 1:
            raise JobError(f"--{name.replace('_', '-')} must be >= 1, got {value}")
    if job.lr is not None and not 0 < job.lr < float("inf"):
        raise JobError(f"--lr must be finite and > 0, got {job.lr}")
    if job.dropout is not None and not 0 <= job.dropout < 1:
        raise JobError(f"--dropout must be in [0, 1), got {job.dropout}")
    if not 0 <= job.seed < 2**32:
        raise JobError(f"--seed must be in [0, 2**32), got {job.seed}")
    if job.loader_workers < 0:
        raise JobError(f"--loader-workers must be >= 0, got {job.loader_workers}")
    if job.device == "cuda" and not torch.cuda.is_available():
        raise JobError("--device cuda: torch finds no CUDA device")
    compiler = os.environ.get("CXX", "g++")
    if job.compile and use_cpu and shutil.which(compiler) is None:
        raise JobError(f"--compile needs a C++ compiler on a CPU, found no {compiler}; set CXX to name another one")
    job.check()
    check_writable(job.output)
    if (job.output / "metrics.json").exists():
        raise JobError(f"--output {job.output} already holds a finished run's metrics.json; choose another folder")
    if not job.resume and (job.output / resumption.CHECKPOINTS).exists():
        raise JobError(
            f"--output {job.output} already holds a run's checkpoints; use --resume, or choose another folder"
        )
    results = [name for name in ("model", "training.png") if (job.output / name).exists()]
    if results and not (job.resume and resumption.has_record(job.output)):
        raise JobError(
            f"--output {job.output} already holds {' and '.join(results)} of another run; choose another folder"
        )


def _check_resumed(output: Path, record: dict[str, Any]) -> None:
    newest = resumption.newest_checkpoint(output)
    if newest is not None and not resumption.has_record(output):
        raise JobError(f"--resume: {output / resumption.RECORD}, which says how the run was started, cannot be read")
    if differences := resumption.differences(output, record):
        raise JobError(f"--resume: the run in {output} was started with {'; '.join(differences)}")
    if newest is not None:
        resumption.check_seal(newest)


def _recipe(job: Job[Any, Any]) -> Recipe:
    chosen = job.recipe if isinstance(job.recipe, Recipe) else job.named_recipe(job.recipe)
    options = {"epochs": job.epochs, "batch_size": job.batch_size, "lr": job.lr, "feature_dropout": job.dropout}
    changes = {name: value for name, value in options.items() if value is not None}
    return replace(chosen, **changes)  # type: ignore[arg-type]


def check_model(name: str, known: tuple[str, ...]) -> None:
    """Checks the name of a model.

    Raises:
        JobError: if it is not a known one.
    """
    if name not in known:
        raise JobError(f"--model must be one of {known}, got {name!r}")


@contextmanager
def naming_encoder(flag: str, name: str) -> Iterator[None]:
    """Turns errors while a pretrained encoder is loaded into a one-line `JobError` that names it."""
    try:
        yield
    except (OSError, ValueError, AttributeError, RuntimeError) as error:
        raise JobError(f"--{flag} {name}: {' '.join(str(error).split())}") from None


def _arguments(job: Job[Any, Any], chosen: Recipe, use_cpu: bool) -> TrainingArguments:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
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


@dataclass(frozen=True)
class _Metrics:
    """Computes what Trainer logs after an evaluation: the measures, and the means of CLCR's weights and gates."""

    job: Job[Any, Any]
    modalities: tuple[str, ...]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        logits = _logits(prediction.predictions)
        if not np.isfinite(logits).all():
            raise JobError("the model's predictions are not finite: training has diverged, try a lower --lr")
        measures = self.job.measure(self.job.predictions(logits), prediction.label_ids)
        metrics: dict[str, float] = asdict(measures)
        if isinstance(prediction.predictions, tuple):
            metrics |= self._weights(*prediction.predictions[1:])
        return metrics

    def _weights(
        self, level_weights: NDArray[Any], modality_weights: NDArray[Any], private_gates: NDArray[Any]
    ) -> dict[str, float]:
        """Returns the means over samples, and over segments where each has its own weights."""
        levels = tuple(str(level) for level in range(1, level_weights.shape[-1] + 1))
        named = {
            "level_weight": (levels, level_weights),
            "modality_weight": (self.modalities, modality_weights),
            "private_gate": (self.modalities, private_gates),
        }
        means = {
            f"{kind}_{name}": float(column.mean())
            for kind, (names, weights) in named.items()
            for name, column in zip(names, weights.reshape(-1, weights.shape[-1]).T, strict=True)
        }
        present = (modality_weights > 0) | (private_gates > 0)
        return {
            **means,
            "level_entropy": _entropy(level_weights, np.ones_like(level_weights, bool)),
            "modality_entropy": _entropy(modality_weights, present),
        }


def _entropy(weights: NDArray[Any], possible: NDArray[np.bool_]) -> float:
    width = weights.shape[-1]
    return normalised_entropy(weights.reshape(-1, width), possible.reshape(-1, width))


def _logits(predictions: Any) -> NDArray[np.float32]:
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions, np.float32)


def _best_epoch(trainer: RecipeTrainer, choice: Choice) -> float:
    name = f"eval_{choice.metric}"
    logged = [entry for entry in trainer.state.log_history if name in entry]
    sign = -1 if choice.greater_is_better else 1
    return float(min(logged, key=lambda entry: sign * entry[name])["epoch"])


def _epochs(history: Sequence[Mapping[str, float]], metric: str) -> list[dict[str, float | None]]:
    """Returns what was measured on ``valid`` after every epoch, without Trainer's prefix and its times."""
    times = {"runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time"}
    epochs: list[dict[str, float | None]] = []
    for entry in history:
        if f"eval_{metric}" in entry:
            named = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            # Sorted, as Trainer's state is when a run is resumed from it.
            measured = {name: None if named[name] != named[name] else named[name] for name in sorted(named)}
            epochs.append({"epoch": entry["epoch"], **{name: measured[name] for name in measured if name not in times}})
    return epochs


def _write(
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
        "epochs": _epochs(trainer.state.log_history, job.choice.metric),
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
