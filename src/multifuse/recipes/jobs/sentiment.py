"""The sentiment job: from an MMSA feature file to a trained model, its measures and a figure."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from multifuse.layers.text_levels import TextLevels
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.encoders import load_pretrained
from multifuse.processing import TextInput
from multifuse.processing.processor import CLCRProcessor, ModalityInput
from multifuse.recipes.data.features.mmsa import FEATURES, SPLITS, MMSAData, MMSAFileError, read_mmsa, standardised
from multifuse.recipes.data.features.padding import Padding
from multifuse.recipes.data.features.planted import write_planted
from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS
from multifuse.recipes.data.features.utterances import datasets
from multifuse.recipes.files import digest
from multifuse.recipes.jobs import progress, resumption
from multifuse.recipes.jobs.digests import encoder_digest
from multifuse.recipes.jobs.job import Job, JobError, Learning, check_model, naming_encoder
from multifuse.recipes.jobs.models import MODELS, model_class
from multifuse.recipes.jobs.recipe import PAPER, Recipe, fine_tuning_or_features
from multifuse.recipes.measures.sentiment import CHOICE, SentimentMeasures, sentiment_measures

PLANTED_NOTE = (
    "--data is not given: this is the built-in default, a small SYNTHETIC data set (--planted {}). "
    "Its numbers show that the code works; they say nothing about sentiment."
)


@dataclass(frozen=True)
class SentimentJob(Job[MMSAData, SentimentMeasures]):
    """Trains a model on CMU-MOSI or CMU-MOSEI."""

    data: Path | None = None
    planted: str | None = None
    """The name of the planted set's setting where there is no ``data``; ``None`` takes the built-in one."""
    text_encoder: str | None = None
    """A Hugging Face name or folder; ``None`` uses the stored text features."""
    model: str = "clcr"
    """One of ``MODELS``; all but ``"clcr"`` are baselines: another fusion of the same encoders, or only the text's."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use, out of text, vision and audio; ``None`` uses all that the data file has."""
    padding: Padding | None = None
    """What to believe where lengths and values contradict each other; ``None`` refuses such a file."""

    choice = CHOICE

    @property
    def tunes_pretrained(self) -> bool:
        return self.text_encoder is not None

    @property
    def _setting(self) -> str | None:
        """The setting of the planted set, ``None`` if the data are given."""
        return (self.planted or EMBEDDED) if self.data is None else None

    def check(self) -> None:
        if self.planted is not None and self.data is not None:
            raise JobError(f"--planted {self.planted} is a setting of the built-in default, got --data {self.data} too")
        if self.planted is not None and self.planted not in SETTINGS:
            raise JobError(f"--planted must be one of {', '.join(SETTINGS)}, got {self.planted!r}")
        check_model(self.model, tuple(MODELS))
        given = self.modalities
        if given is not None and (not given or not set(given) <= set(FEATURES)):
            raise JobError(f"--modalities must be some of {FEATURES}, got {list(given)}")
        if self.model == "text" and self.text_encoder is None:
            raise JobError("--model text needs --text-encoder, got none")
        if self.model == "text" and given is not None and set(given) != {"text"}:
            raise JobError(f"--model text reads only the text, got --modalities {' '.join(given)}")
        if self.text_encoder is not None and "text" not in self._chosen:
            raise JobError(
                f"--text-encoder {self.text_encoder} needs text among --modalities, got {list(self._chosen)}"
            )

    @property
    def _chosen(self) -> tuple[str, ...]:
        """The modalities that may be used, in the order of ``FEATURES``."""
        return tuple(name for name in FEATURES if self.modalities is None or name in self.modalities)

    def named_recipe(self, name: str) -> Recipe:
        return PAPER if name == "paper" else default_recipe(self.text_encoder)

    def record(self) -> dict[str, Any]:
        return {
            "data": None if self.data is None else self.data.name,
            "planted": self._setting,
            "text_encoder": None if self.text_encoder is None else Path(self.text_encoder).name,
            "text_encoder_sha256": None
            if self.text_encoder is None
            else encoder_digest("text-encoder", self.text_encoder),
            "model": self.model,
            "modalities": None if self.modalities is None else list(self._chosen),
            "padding": self.padding,
        }

    @property
    def stored_features(self) -> tuple[str, ...]:
        """The modalities whose stored features the model reads, if the file has them."""
        if self.model == "text":
            return ()
        return tuple(name for name in self._chosen if name != "text" or self.text_encoder is None)

    def read_given(self) -> MMSAData | None:
        if self.data is None:
            return None
        data = read_mmsa(self.data, self.padding, self.stored_features)
        absent = [name for name in self.stored_features if name not in data.widths]
        if self.modalities is not None and absent:
            raise JobError(f"--modalities {' '.join(absent)}: {self.data} stores no features of that name")
        return standardised(data)

    def make(self, writes: bool) -> MMSAData:
        planted = self.output / "planted.pkl"
        # Only a record, which has been compared, says that a file is of this job's setting.
        if writes and not (planted.exists() and resumption.has_record(self.output)):
            write_planted(planted, SETTINGS[self.planted or EMBEDDED])
        return standardised(read_mmsa(planted, self.padding, self.stored_features))

    def data_digest(self, data: MMSAData) -> str:
        return digest(self.data or self.output / "planted.pkl")

    def announce(self, data: MMSAData) -> None:
        progress.announce_features(self.data, data, PLANTED_NOTE.format(self._setting))

    def learning(self, recipe: Recipe, data: MMSAData) -> Learning:
        modalities = {
            name: {"encoder": "temporal_conv", "input_size": width, "dropout": recipe.feature_dropout}
            for name, width in data.widths.items()
        }
        tokenizer = None
        if self.text_encoder is not None:
            with naming_encoder("text-encoder", self.text_encoder):
                tokenizer = AutoTokenizer.from_pretrained(self.text_encoder, trust_remote_code=False)
                modalities = {"text": CLCRConfig.text_modality(self.text_encoder), **modalities}
        if not modalities:
            raise JobError("--text-encoder is none, but the data file stores no features of any modality")
        inputs: dict[str, ModalityInput] = {**({} if tokenizer is None else {"text": TextInput()}), **data.statistics}
        processor = CLCRProcessor(inputs, tokenizer)
        try:
            splits = datasets(data, tuple(modalities), processor)
        except MMSAFileError as error:
            raise MMSAFileError(f"{self.data or 'the built-in default'}: {error}") from None
        return Learning(self._model(recipe, modalities, self._max_positions(data)), splits, processor)

    def _max_positions(self, data: MMSAData) -> int:
        """Returns the number of positions to learn: the default, or that of the longest sample if it has more tokens.

        Raises:
            JobError: if the config sets a number that is too small.
        """
        longest = max((data.longest(name) for name in data.widths), default=1)
        positions = int(self.fields.get("max_positions", CLCRConfig.max_positions))
        if longest <= positions or self.fields.get("positions", "learned") != "learned":
            return positions
        if "max_positions" in self.fields:
            raise JobError(f"config: max_positions must be >= {longest}, as the longest sample, got {positions}")
        return longest

    def _model(self, recipe: Recipe, modalities: dict[str, Any], max_positions: int) -> PreTrainedModel:
        names = ("regression_loss", "init_last_level", "level_floor", "modality_floor")
        fields = {**{name: getattr(recipe, name) for name in names}, "max_positions": max_positions}
        config = CLCRConfig(modalities=modalities, **{**fields, **self.fields})
        model = model_class(self.model)(config)
        if self.text_encoder is not None:
            (levels,) = (module for module in model.modules() if isinstance(module, TextLevels))
            load_pretrained(levels, self.text_encoder)
        return model

    def predictions(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits.reshape(len(logits), -1)[:, 0]

    def measure(self, predictions: NDArray[Any], labels: NDArray[Any]) -> SentimentMeasures:
        return sentiment_measures(predictions, labels)

    def description(self, data: MMSAData) -> dict[str, Any]:
        return {
            "synthetic": self.data is None,
            "data": "built-in" if self.data is None else self.data.name,
            "planted": self._setting,
            "samples": {name: len(getattr(data, name).labels) for name in SPLITS},
            "replaced_non_finite": data.replaced,
            "padding": {
                split: {modality: asdict(counts) for modality, counts in modalities.items()}
                for split, modalities in data.padding.items()
            },
            "believed_padding": self.padding,
            "not_read": list(data.ignored),
            "max_positions": self._max_positions(data),
            "text_encoder": None if self.text_encoder is None else Path(self.text_encoder).name,
            "model": self.model,
        }


def default_recipe(text_encoder: str | None) -> Recipe:
    """Returns the default recipe for a text encoder, given by name or folder, or for stored features if it is ``None``.

    Raises:
        JobError: if the encoder's config cannot be loaded.
    """
    return fine_tuning_or_features(None if text_encoder is None else _encoder_width(text_encoder))


def _encoder_width(name_or_folder: str) -> int:
    with naming_encoder("text-encoder", name_or_folder):
        return int(AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False).hidden_size)
