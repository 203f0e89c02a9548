"""A trained model and the data that it is tested on, as the commands that name both read them."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from multifuse.recipes.commands.training_options import add_padding_option

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel

    from multifuse.processing.processor import CLCRProcessor
    from multifuse.recipes.jobs.model_identity import ModelIdentity


class ArgumentError(ValueError):
    """Raised when a command cannot start; the message is one line that names the argument and its value."""


@dataclass(frozen=True)
class Source:
    """The split that a model is tested on."""

    name: str
    """The name of the file or folder."""
    batches: "DataLoader[Any]"
    ids: tuple[str, ...]
    synthetic: bool = False
    """Whether it is the set that a run without data of its own made."""
    spread: "Mapping[str, Tensor]" = field(default_factory=dict)
    """The standard deviation of each stored feature, (D,) per modality."""
    sentences: tuple[str, ...] | None = None
    """What is said in each sample, where the file has it."""
    tokens: Callable[[int], tuple[str, ...]] | None = None
    """Returns the text tokens of a sample by its index, for a model that reads token ids."""


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what a model is tested on."""
    parser.add_argument(
        "--data", type=Path, help="MMSA feature file or folder of prepared clips (default: those in the run's folder)"
    )
    add_padding_option(parser)
    parser.add_argument(
        "--split", choices=("train", "valid", "test"), default="test", help="split to test on (default: test)"
    )


def load_model(argument: str, folder: Path, classes: "Iterable[type[PreTrainedModel]]") -> Any:
    """Loads a model of one of these classes from the output folder of a run, or the folder of a saved model."""
    from multifuse.models import CLCRConfig

    model_folder = _model_folder(folder)
    if not (model_folder / "config.json").is_file():
        raise ArgumentError(f"{argument} {folder} contains no saved model: it has no config.json")
    try:
        name = (CLCRConfig.from_pretrained(model_folder).architectures or ["CLCRForPrediction"])[0]
        by_name: dict[str, Any] = {cls.__name__: cls for cls in classes}
        if name not in by_name:
            raise ValueError(f"it is a {name}, not one of {list(by_name)}")
        return by_name[name].from_pretrained(model_folder).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{argument} {folder} cannot be loaded: {' '.join(str(error).split())}") from None


def load_any_model(argument: str, folder: Path) -> Any:
    """Loads a model that `multifuse train` can train, as `load_model` does."""
    from multifuse.models import CLCRForSegmentPrediction
    from multifuse.recipes.jobs.models import MODELS, model_class

    return load_model(argument, folder, (*map(model_class, MODELS), CLCRForSegmentPrediction))


def load_processor(argument: str, folder: Path) -> "CLCRProcessor":
    """Loads the processor that was saved with a model."""
    from multifuse.processing.processor import CLCRProcessor

    try:
        return CLCRProcessor.from_pretrained(_model_folder(folder))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{argument} {' '.join(str(error).split())}") from None


def identity(folder: Path) -> "ModelIdentity":
    """Returns which model is in the folder, as reports name it."""
    from multifuse.recipes.jobs.model_identity import ModelIdentity

    return ModelIdentity.of(folder.resolve().name, _model_folder(folder))


def reads_clips(model: Any) -> bool:
    """Returns whether a model was trained on prepared clips, not on a feature file."""
    return bool(model.config.problem_type == "single_label_classification")


def read_source(argument: str, folder: Path, model: Any, args: argparse.Namespace) -> Source:
    """Reads the data that `add_data_options` name, for a model that was loaded from ``folder``.

    Raises:
        ArgumentError: if the data do not fit the model.
        MMSAFileError, PreparationError, JobError, OSError: if the data, or the tokenizer, cannot be read.
    """
    if not reads_clips(model):
        return _utterances(argument, folder, model, args)
    if args.padding is not None:
        raise ArgumentError(f"--padding is only for feature files, but {argument} {folder} reads clips")
    return _clips(argument, folder, model, args)


def status(command: str, work: Callable[[], None]) -> int:
    """Does a command's work and returns its exit status; bad arguments or data end it with one line on stderr."""
    from multifuse.recipes.data.features.mmsa import MMSAFileError
    from multifuse.recipes.data.split_lists.clips import PreparationError
    from multifuse.recipes.jobs.job import JobError

    try:
        work()
    except (ArgumentError, JobError, MMSAFileError, PreparationError, OSError) as error:
        print(f"multifuse {command}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _model_folder(folder: Path) -> Path:
    return folder / "model" if (folder / "model").is_dir() else folder


def _utterances(argument: str, folder: Path, model: Any, args: argparse.Namespace) -> Source:
    from torch.utils.data import DataLoader

    from multifuse.processing import FeatureInput
    from multifuse.recipes.corruption.corrupted import deviations
    from multifuse.recipes.data.features.mmsa import read_mmsa, standardised
    from multifuse.recipes.data.features.utterances import datasets

    path = args.data or folder / "planted.pkl"
    if args.data is None and not path.exists():
        raise ArgumentError("--data is required: the run folder contains no planted set")
    processor = load_processor(argument, folder)
    modalities = tuple(model.config.modalities)
    statistics = {name: kind for name, kind in processor.modalities.items() if isinstance(kind, FeatureInput)}
    data = read_mmsa(path, args.padding, tuple(statistics))
    for modality, kind in statistics.items():
        width = len(kind.mean)
        if data.widths.get(modality) != width:
            raise ArgumentError(f"--data {path}: {modality} must have width {width}, got {data.widths.get(modality)}")
    data = standardised(data, statistics)
    tokenizer = processor.tokenizer
    split = getattr(data, args.split)
    positions = model.config.max_positions
    for modality, sequence in split.features.items():
        if model.config.positions == "learned" and (longest := int(sequence.lengths.max())) > positions:
            raise ArgumentError(
                f"--data {path}: {modality} has a sample of {longest} tokens; the model has {positions} positions"
            )
    splits = datasets(data, modalities, processor)
    batches: DataLoader[Any] = DataLoader(splits[args.split], batch_size=64, collate_fn=processor.collator)
    ids = splits[args.split].token_ids

    def tokens(index: int) -> tuple[str, ...]:
        assert ids is not None
        assert tokenizer is not None
        return tuple(tokenizer.decode([token]) for token in ids[index])

    return Source(
        path.name,
        batches,
        split.ids,
        synthetic=args.data is None,
        spread=deviations(data.train),
        sentences=split.raw_text,
        tokens=None if ids is None else tokens,
    )


def _clips(argument: str, folder: Path, model: Any, args: argparse.Namespace) -> Source:
    from torch.utils.data import DataLoader

    from multifuse.models import CLCRForSegmentPrediction
    from multifuse.processing import MultimodalCollator
    from multifuse.recipes.data.media import shards
    from multifuse.recipes.data.media.clip_dataset import ClipDataset
    from multifuse.recipes.data.media.preparation_record import prepared_record

    path = args.data or folder / "prepared"
    if args.data is None and not path.exists():
        raise ArgumentError("--data is required: the run folder contains no prepared set")
    trained_on = _preparation_of_run(folder)
    record = prepared_record(path, trained_on.get("benchmark"))
    target: Literal["label", "segments"] = "segments" if isinstance(model, CLCRForSegmentPrediction) else "label"
    rows = shards.read_split(path, args.split)
    try:
        clips = ClipDataset(rows, tuple(model.config.modalities), target)
    except ValueError as error:
        raise ArgumentError(f"--data {path}: {error}") from None
    _check_classes(path, model, shards.class_names(rows, target))
    _check_inputs(argument, path, folder, model, record, "segments" in rows.column_names)
    batches: DataLoader[Any] = DataLoader(clips, batch_size=16, collate_fn=MultimodalCollator())
    ids = tuple(map(str, rows.with_format(None)["id"]))
    return Source(path.name, batches, ids, synthetic=_is_synthetic(folder) and trained_on == record)


def _check_classes(path: Path, model: Any, classes: list[str]) -> None:
    """Checks that a prepared set has the classes of a model, in the same order."""
    known = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    if len(classes) != len(known):
        raise ArgumentError(f"--data {path}: the set has {len(classes)} classes, but the model {len(known)}")
    unnamed = all(name == f"LABEL_{index}" for index, name in enumerate(known))
    for index, (name, expected) in enumerate(zip(classes, known, strict=True)):
        if name != expected and not unnamed:
            raise ArgumentError(f"--data {path}: class {index} of the set is {name!r}, but of the model {expected!r}")


def _check_inputs(
    argument: str, path: Path, folder: Path, model: Any, record: Mapping[str, Any], segments: bool
) -> None:
    """Checks that a set was prepared as the media that a model was trained on, if its processor was saved with it."""
    from multifuse.recipes.data.media.clip_inputs import clip_input, input_differences

    if not (_model_folder(folder) / "processor_config.json").is_file():
        return
    kinds = load_processor(argument, folder).modalities
    differences = {
        name: input_differences(clip_input(name, record, segments), kinds[name])
        for name in model.config.modalities
        if name in kinds
    }
    described = [f"{name} with {', '.join(options)}" for name, options in differences.items() if options]
    if described:
        raise ArgumentError(
            f"--data {path} was prepared otherwise than the model's training set: {'; '.join(described)}"
        )


def _preparation_of_run(folder: Path) -> dict[str, Any]:
    """Returns the record of the set that a run was trained on; that of the folder of a saved model alone is empty."""
    record = _metrics(folder).get("preparation")
    return record if isinstance(record, dict) else {}


def _is_synthetic(folder: Path) -> bool:
    """Returns whether the run in this folder made its data itself."""
    return _metrics(folder).get("synthetic") is True


def _metrics(folder: Path) -> dict[str, Any]:
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) else {}
