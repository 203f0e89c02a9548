"""Prepared clips on disk: one Arrow file of Hugging Face `datasets` per shard, each written atomically.

``datasets.load_from_disk`` reads the folder of a split as a `Dataset`, and the whole output as a `DatasetDict`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from multifuse.recipes.data.media.shard_log import ShardLog
from multifuse.recipes.files import whole, write_json

if TYPE_CHECKING:
    from datasets import Dataset, Features

Row = dict[str, Any]


def shard_path(output: Path, split: str, index: int, count: int) -> Path:
    """Returns the path of a shard's Arrow file, which has its log beside it."""
    return output / split / f"data-{index:05d}-of-{count:05d}.arrow"


def features(classes: Sequence[str], segment_classes: Sequence[str], columns: Sequence[str], bins: int) -> "Features":
    """Returns the schema of a row: ``id``, ``label`` and the requested columns.

    These are ``segments``, a label for each part of the clip; ``frames`` and ``flow``, encoded images; ``spectrogram``,
    (time, frequency); and ``waveform``, samples.
    """
    from datasets import Array2D, ClassLabel, Features, Image, List, Value

    known = {
        "segments": lambda: List(ClassLabel(names=list(segment_classes))),
        "frames": lambda: List(Image(decode=False)),
        "flow": lambda: List(Image(decode=False)),
        "spectrogram": lambda: Array2D(shape=(None, bins), dtype="float16"),
        "waveform": lambda: List(Value("int16")),
    }
    return Features(
        {
            "id": Value("string"),
            "label": ClassLabel(names=list(classes)),
            **{name: known[name]() for name in columns},
        }
    )


def write_shard(path: Path, rows: Sequence[Row], log: ShardLog, schema: "Features") -> None:
    """Writes a shard: first its log, then the rows, so that an Arrow file means a finished shard."""
    from datasets.arrow_writer import ArrowWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(log_path(path), asdict(log))
    with whole(path) as partial:
        writer = ArrowWriter(features=schema, path=str(partial))
        for row in rows:
            writer.write(schema.encode_example(row))
        if not rows:
            writer.write_batch({name: [] for name in schema})
        writer.finalize()


def log_path(path: Path) -> Path:
    """Returns the path of a shard's log."""
    return path.with_suffix(".log.json")


def read_log(path: Path) -> ShardLog:
    """Reads the log of a finished shard."""
    return ShardLog(**json.loads(log_path(path).read_text()))


def describe(output: Path, splits: Sequence[str], schema: "Features", fingerprint: str) -> None:
    """Writes the files that ``datasets.load_from_disk`` needs, once all shards are finished."""
    for split in splits:
        folder = output / split
        names = [{"filename": path.name} for path in sorted(folder.glob("data-*.arrow"))]
        state: dict[str, Any] = {
            "_data_files": names,
            "_fingerprint": fingerprint,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split,
        }
        write_json(folder / "dataset_info.json", {"features": schema.to_dict()})
        write_json(folder / "state.json", state)
    write_json(output / "dataset_dict.json", {"splits": list(splits)})


def read_split(output: Path, split: str) -> "Dataset":
    """Opens the prepared clips of a split, memory-mapped.

    Raises:
        FileNotFoundError: if there is no such prepared split.
    """
    from datasets import Dataset, load_from_disk

    rows = load_from_disk(str(output / split))
    assert isinstance(rows, Dataset)
    return rows


def class_names(rows: "Dataset", target: Literal["label", "segments"]) -> list[str]:
    """Returns the classes of a split's clips, or of their segments, in the order of the labels."""
    feature = rows.features[target]
    return list((feature if target == "label" else feature.feature).names)
