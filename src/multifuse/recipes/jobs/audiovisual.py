"""The audio-visual job: from prepared or raw media of a benchmark to a trained model, its measures and a figure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.models.configuration_clcr import SCRATCH, CLCRConfig
from multifuse.models.encoders import load_pretrained
from multifuse.models.modeling_segments import CLCRForSegmentPrediction
from multifuse.processing.processor import CLCRProcessor
from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AudioVisualSet
from multifuse.recipes.data.media.clip_dataset import MODALITIES, ClipDataset, spectrogram_statistics
from multifuse.recipes.data.media.clip_inputs import clip_input
from multifuse.recipes.data.media.preparation_record import prepared_record
from multifuse.recipes.data.split_lists.clips import SPLITS, PreparationError
from multifuse.recipes.jobs import progress
from multifuse.recipes.jobs.digests import encoder_digest, prepared_digest
from multifuse.recipes.jobs.job import Job, JobError, Learning, check_model, naming_encoder
from multifuse.recipes.jobs.models import CLIP_MODELS, model_class
from multifuse.recipes.jobs.recipe import CLIPS, CLIPS_PAPER, Recipe
from multifuse.recipes.measures.classification import CHOICE, ClassificationMeasures, classification_measures

SYNTHETIC_NOTE = (
    "Neither --data nor --media is given: this is the built-in default, a few SYNTHETIC clips, encoded here and then "
    "decoded like real ones. Its numbers show that the code works; they say nothing about {title}."
)
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_FLOW = {"mean": [0.5, 0.5], "std": [0.25, 0.25]}


@dataclass(frozen=True)
class PreparedClips:
    """A prepared data set: its folder, the record of its preparation, and its splits."""

    folder: Path
    record: dict[str, Any]
    splits: dict[str, Any]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of its clips."""
        columns = self.splits["train"].column_names
        present = {
            "audio": "spectrogram" in columns or "waveform" in columns,
            "vision": "frames" in columns,
            "flow": "flow" in columns,
        }
        return tuple(name for name in MODALITIES if present[name])


@dataclass(frozen=True)
class AudioVisualJob(Job[PreparedClips, ClassificationMeasures]):
    """Trains a model on an audio-visual benchmark."""

    data_set: AudioVisualSet = field(kw_only=True)
    data: Path | None = None
    """A folder written by ``multifuse prepare``; ``None`` calls ``prepare`` to make one."""
    prepare: Callable[[Path, bool], Path] | None = None
    """Called with the output folder and a flag: prepares the data set if the flag is true, and returns its folder."""
    synthetic: bool = False
    target: Literal["label", "segments"] = "label"
    """What is classified: each clip, or each of its segments."""
    model: str = "clcr"
    """One of ``CLIP_MODELS``; all but ``"clcr"`` are baselines, which classify clips only."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use, out of audio, vision and flow; ``None`` uses all that the data set has."""
    audio_backbone: str = "resnet-18"
    """A Hugging Face name or folder, loaded with its weights, or the name of a network trained from scratch."""
    vision_backbone: str = "resnet-18"
    default_recipe: Recipe = CLIPS
    grid: dict[str, list[int | None]] | None = None
    """Per modality, the rows and columns that feature maps are averaged to; by default the whole map is averaged."""

    choice = CHOICE

    @property
    def tunes_pretrained(self) -> bool:
        return self.audio_backbone not in SCRATCH or self.vision_backbone not in SCRATCH

    def check(self) -> None:
        check_model(self.model, CLIP_MODELS)
        if self.target == "segments" and self.model != "clcr":
            raise JobError(f"--localise needs --model clcr, got {self.model}")
        unknown = [name for name in self.modalities or () if name not in MODALITIES]
        if unknown or self.modalities == ():
            raise JobError(f"--modalities must be some of {MODALITIES}, got {list(self.modalities or ())}")
        if self.data is None and self.prepare is None:
            raise JobError("either --data or --media and --splits must be given, got neither")

    def named_recipe(self, name: str) -> Recipe:
        return CLIPS_PAPER if name == "paper" else self.default_recipe

    def record(self) -> dict[str, Any]:
        return {
            "benchmark": self.data_set.name,
            "data": None if self.data is None else self.data.name,
            "target": self.target,
            "model": self.model,
            "modalities": None if self.modalities is None else list(self.modalities),
            "audio_backbone": Path(self.audio_backbone).name,
            "audio_backbone_sha256": self._backbone_digest("audio"),
            "vision_backbone": Path(self.vision_backbone).name,
            "vision_backbone_sha256": self._backbone_digest("vision"),
            "grid": self.grid,
        }

    def read_given(self) -> PreparedClips | None:
        return None if self.data is None else self._read(self.data)

    def make(self, writes: bool) -> PreparedClips:
        assert self.prepare is not None
        return self._read(self.prepare(self.output, writes))

    def _read(self, folder: Path) -> PreparedClips:
        record = prepared_record(folder, self.data_set.name)
        data = PreparedClips(folder, record, {split: shards.read_split(folder, split) for split in SPLITS})
        empty = [split for split in SPLITS if len(data.splits[split]) == 0]
        if empty:
            raise PreparationError(f"{folder}: the splits {empty} hold no clips")
        absent = [name for name in self.modalities or () if name not in data.modalities]
        if absent:
            raise JobError(f"--modalities {' '.join(absent)}: {folder} holds only {list(data.modalities)}")
        if self.target == "segments" and "segments" not in data.splits["train"].column_names:
            raise JobError(f"{folder}: the clips have no segment labels")
        return data

    def data_digest(self, data: PreparedClips) -> str:
        return prepared_digest(data.folder, data.record)

    def announce(self, data: PreparedClips) -> None:
        note = SYNTHETIC_NOTE.format(title=self.data_set.title) if self.synthetic else None
        counts = {split: len(data.splits[split]) for split in SPLITS}
        progress.announce_clips(data.folder, counts, self._names(data), note)

    def _names(self, data: PreparedClips) -> tuple[str, ...]:
        return data.modalities if self.modalities is None else tuple(dict.fromkeys(self.modalities))

    def learning(self, recipe: Recipe, data: PreparedClips) -> Learning:
        names = self._names(data)
        splits = {
            split: ClipDataset(
                data.splits[split], names, self.target, recipe.augmentation if split == "train" else None
            )
            for split in SPLITS
        }
        shapes = {name: tuple(values.shape) for name, values in splits["train"][0].inputs.items()}
        modalities = {name: self._modality(name, data, shapes[name], recipe) for name in names}
        classes = shards.class_names(data.splits["train"], self.target)
        config = CLCRConfig(
            modalities=modalities,
            problem_type="single_label_classification",
            id2label=dict(enumerate(classes)),
            label2id={name: index for index, name in enumerate(classes)},
            **{
                "num_segments": self._segments(splits["train"]),
                "level_floor": recipe.level_floor,
                "modality_floor": recipe.modality_floor,
                "init_last_level": recipe.init_last_level,
                **self.fields,
            },
        )
        model = (model_class(self.model) if self.target == "label" else CLCRForSegmentPrediction)(config)
        (encoders,) = (module for module in model.modules() if isinstance(module, SemanticHierarchyEncoder))
        for name in names:
            backbone, levels = self._backbone(name), encoders.encoder(name)
            if backbone not in SCRATCH:
                assert isinstance(levels, BackboneLevels)
                with naming_encoder(_flag(name), backbone):
                    load_pretrained(levels, backbone)
        segments = "segments" in data.splits["train"].column_names
        return Learning(model, splits, CLCRProcessor({name: clip_input(name, data.record, segments) for name in names}))

    def _backbone(self, name: str) -> str:
        """Returns the backbone of a modality; frames and optical flow have the same."""
        return self.audio_backbone if name == "audio" else self.vision_backbone

    def _backbone_digest(self, name: str) -> str | None:
        return None if self._backbone(name) in SCRATCH else encoder_digest(_flag(name), self._backbone(name))

    def _modality(self, name: str, data: PreparedClips, shape: tuple[int, ...], recipe: Recipe) -> dict[str, Any]:
        """Returns the modality's config entry: its backbone, set to the inputs' sizes, and the scaling of inputs."""
        backbone = self._backbone(name)
        kind: Literal["image", "audio"] = "audio" if name == "audio" else "image"
        channels, scaling = {"audio": (1, {}), "vision": (3, _IMAGENET), "flow": (2, _FLOW)}[name]
        options: dict[str, Any] = {"dropout": recipe.feature_dropout, **scaling}
        sizes = {"image_size": data.record["frame_size"]} if kind == "image" else {}
        if kind == "audio" and len(shape) == 3:
            mean, std = spectrogram_statistics(data.splits["train"])
            options |= {"mean": [mean], "std": [std]}
            sizes = {"num_mel_bins": shape[1], "max_length": shape[2]}
        if self.grid and name in self.grid:
            options["grid"] = self.grid[name]
        with naming_encoder(_flag(name), backbone):
            entry = CLCRConfig.backbone_modality(kind, channels, backbone, **options)
        entry["config"] |= {key: value for key, value in sizes.items() if key in entry["config"]}
        return entry

    def _segments(self, train: ClipDataset) -> int:
        label = train[0].label
        return len(label) if isinstance(label, list) else 1

    def predictions(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.asarray(logits.argmax(-1), np.int64)

    def measure(self, predictions: NDArray[Any], labels: NDArray[Any]) -> ClassificationMeasures:
        return classification_measures(predictions, labels)

    def description(self, data: PreparedClips) -> dict[str, Any]:
        return {
            "benchmark": self.data_set.name,
            "synthetic": self.synthetic,
            "data": "built-in" if self.synthetic else data.folder.name,
            "samples": {split: len(data.splits[split]) for split in SPLITS},
            "target": self.target,
            "model": self.model,
            "classes": len(shards.class_names(data.splits["train"], self.target)),
            "preparation": data.record,
            "audio_backbone": Path(self.audio_backbone).name,
            "vision_backbone": Path(self.vision_backbone).name,
        }


def _flag(name: str) -> str:
    """Returns the command-line option that names the backbone of a modality."""
    return "audio-backbone" if name == "audio" else "vision-backbone"
