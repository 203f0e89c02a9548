"""The job that all benchmarks have in common: what is trained, how, and where the results are written."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from multifuse.processing.processor import CLCRProcessor
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.measures.measures import Choice, Measures

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
    new_output: bool = False
    """Whether the output must be a new folder: a number is added to its name if there is one already."""
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
    def data_digest(self, data: Data) -> str:
        """Returns a SHA-256 of the data that were read, or of what tells them from others of the same name."""

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
