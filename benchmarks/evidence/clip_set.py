"""A prepared audio-visual set, and how models are trained and measured on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader

from benchmarks import fingerprints
from benchmarks.evidence.runs import Run
from benchmarks.evidence.streams import participation, streams
from benchmarks.evidence.trained import of_pooled, on_fewer_modalities, trained
from multifuse.models.modeling_clcr import CLCRForPrediction
from multifuse.processing import MultimodalCollator
from multifuse.recipes import pooled
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.clip_dataset import ClipDataset
from multifuse.recipes.data.media.media_index import MediaIndex
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.media.preparation_record import prepared_record
from multifuse.recipes.data.split_lists.clips import SPLITS
from multifuse.recipes.files import digest
from multifuse.recipes.jobs.audiovisual import AudioVisualJob, PreparedClips
from multifuse.recipes.jobs.recipe import AV_DIGITS
from multifuse.recipes.measures.classification import classification_measures
from multifuse.recipes.measures.scores import CLASSES
from multifuse.recipes.pooled import Splits

DIGITS = AUDIOVISUAL_SETS["av_digits"]
_NETWORK = "resnet-small"


@dataclass(frozen=True)
class DigitSet:
    """The spoken and written digits, in a folder that `prepared_digits` wrote."""

    prepared: Path
    fingerprint: str
    """Implements `EvidenceSet`: depends on the clips' files, the lists and the options of the preparation."""

    def measured(self, run: Run, folder: Path) -> dict[str, Any]:
        """Implements `EvidenceSet`."""
        job = AudioVisualJob(
            output=folder / "run",
            data_set=DIGITS,
            data=self.prepared,
            model=run.model if run.is_trained else "clcr",
            modalities=run.modalities,
            audio_backbone=_NETWORK,
            vision_backbone=_NETWORK,
            default_recipe=AV_DIGITS,
            epochs=run.epochs,
            lr=run.lr,
            seed=run.seed,
            config=dict(run.config),
            device="cpu",
        )
        clips = job.read_given()
        assert clips is not None
        if not run.is_trained:
            return _pooled(run, clips)
        result, model = trained(job, run.model)
        test = ClipDataset(clips.splits["test"], tuple(model.config.modalities))
        batches: DataLoader[Any] = DataLoader(test, batch_size=64, collate_fn=MultimodalCollator())
        result["subsets"] = on_fewer_modalities(model, batches, CLASSES)
        if isinstance(model, CLCRForPrediction):
            result["activation"] = participation(streams(model, batches))
        return result


def prepared_digits(data: Path, prepared: Path) -> DigitSet:
    """Returns the set, prepared in a folder of its own below ``prepared`` unless the same files have been before."""
    media = _fingerprint_of_media(data)
    folder = prepared / f"{DIGITS.name}.{media}"
    prepare(Preparation(DIGITS, data, data, folder, DIGITS.options))
    record = json.dumps({**prepared_record(folder), "media": media}, sort_keys=True)
    return DigitSet(folder, fingerprints.of_text(record))


def _fingerprint_of_media(data: Path) -> str:
    """Returns the fingerprint of the contents of all files that may be read for the listed clips."""
    clips = DIGITS.clips(data).clips
    index = MediaIndex(data, DIGITS.stills, DIGITS.preferred)
    # What may be read for the sound of a clip are all of its files: a film has both.
    contents = {clip.id: [digest(path) for path in index.find(clip.stems).sounds] for clip in clips}
    return fingerprints.of_text(repr(contents))


def _pooled(run: Run, clips: PreparedClips) -> dict[str, Any]:
    names = clips.modalities if run.modalities is None else run.modalities
    sets = [ClipDataset(clips.splits[split], names) for split in SPLITS]
    labels = Splits(*(torch.tensor(clips_of.labels).numpy() for clips_of in sets))
    features = Splits(*(torch.stack([flat(clip.inputs) for clip in _all(clips_of)]).numpy() for clips_of in sets))
    predictions = pooled.classification(features, labels, run.model)  # type: ignore[arg-type]
    return of_pooled(predictions, classification_measures, labels.valid, labels.test)


def _all(clips: ClipDataset) -> list[Any]:
    return [clips[index] for index in range(len(clips))]


def flat(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns a clip's features (D,): its spectrogram, and its mean grey frame at half its height and width."""
    parts = []
    for name, values in inputs.items():
        if name != "audio":
            values = avg_pool2d(values.float().mean(dim=(0, 1)).unsqueeze(0), 2)
        parts.append(values.float().flatten())
    return torch.cat(parts)
