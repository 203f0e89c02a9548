"""CLCRProcessor: turns texts, feature sequences and media files into the inputs of a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.feature_extraction_utils import BatchFeature

from multifuse._internal import checks
from multifuse.media.spectrogram import SpectrogramOptions
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.processing.collator import MultimodalCollator, Sample
from multifuse.processing.feature_input import FeatureInput
from multifuse.processing.frame_input import FrameInput
from multifuse.processing.sound_input import SoundInput
from multifuse.processing.text_input import TextInput

ModalityInput: TypeAlias = TextInput | FeatureInput | SoundInput | FrameInput
_KINDS: dict[str, type[ModalityInput]] = {kind.kind: kind for kind in (TextInput, FeatureInput, SoundInput, FrameInput)}


class MultimodalBatch(BatchFeature):
    """``inputs`` and ``mask``, dicts by modality, which ``to`` moves to a device or converts to a dtype."""

    def to(self, *args: Any, **kwargs: Any) -> "MultimodalBatch":
        """Moves every tensor, as `torch.Tensor.to`; a dtype converts floating-point tensors only, as in transformers.

        Token ids, masks and the bytes of frames, which a model scales, keep their dtype.
        """
        moved = {
            key: {name: _moved(value, args, kwargs) for name, value in by_modality.items()}
            for key, by_modality in self.data.items()
        }
        return MultimodalBatch(moved)


def _moved(value: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    if value.is_floating_point():
        return value.to(*args, **kwargs)

    def keeping_dtype(option: Any) -> Any:
        if isinstance(option, Tensor):  # whose device and dtype are asked for
            return option.new_empty(0, dtype=value.dtype)
        return value.dtype if isinstance(option, torch.dtype) else option

    return value.to(*map(keeping_dtype, args), **{name: keeping_dtype(option) for name, option in kwargs.items()})


class CLCRProcessor(ProcessorMixin):
    """Computes a model's inputs from raw data: texts, features, and audio, video and image files.

    ``multifuse train`` saves it beside every model, with the tokenizer, the statistics of the training features and the
    settings of spectrograms and frames, so that new data are treated as the training data were.

    Args:
        modalities: by name, how each is read: `TextInput`, `FeatureInput`, `SoundInput` or `FrameInput`.
        tokenizer: of the modalities that are a `TextInput`.

    Shape:
        ``processor(text=..., audio=..., vision=...)``: keywords are the model's modalities, one or more of them. A list
        has one entry per sample, ``None`` where a sample lacks the modality; anything else is a single sample's ->
        ``{"inputs", "mask"}``, the arguments of the model. A sample also lacks a modality of which nothing can be read:
        a text or features without a token, or the flow of a single frame.

    Raises:
        ValueError: an unknown modality, lists of different lengths, a value that cannot be read, by modality and
            sample, or a sample of which nothing can be read.

    Example:
        >>> processor = CLCRProcessor({"audio": FeatureInput(mean=(0.0, 1.0), deviation=(1.0, 2.0))})
        >>> batch = processor(audio=[torch.ones(3, 2), torch.ones(1, 2)])
        >>> batch["inputs"]["audio"].shape, batch["mask"]["audio"].tolist()
        (torch.Size([2, 3, 2]), [[True, True, True], [True, False, False]])
    """

    def __init__(self, modalities: Mapping[str, ModalityInput], tokenizer: Any = None) -> None:
        super().__init__()
        checks.modality_names(modalities)
        self.modalities = dict(modalities)
        self.tokenizer = tokenizer
        for name, kind in self.modalities.items():
            if not isinstance(kind, tuple(_KINDS.values())):
                raise TypeError(f"modalities[{name!r}] must be one of {_kind_names()}, got {type(kind).__name__}")
            if isinstance(kind, TextInput) and tokenizer is None:
                raise ValueError(f"tokenizer must be given, because modality {name!r} is a text, got none")

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Returns no parts: the tokenizer is one only where there is a text."""
        return []

    @property
    def model_input_names(self) -> list[str]:
        """The arguments of a model that a batch holds."""
        return ["inputs", "mask"]

    @property
    def collator(self) -> MultimodalCollator:
        """The collator that pads token ids with those of the tokenizer."""
        # A tokenizer may have no padding token; any id does, because padding is masked.
        pad = 0 if self.tokenizer is None else self.tokenizer.pad_token_id or 0
        return MultimodalCollator({name: pad for name, kind in self.modalities.items() if isinstance(kind, TextInput)})

    def __call__(self, **inputs: Any) -> MultimodalBatch:  # type: ignore[override]
        given = {name: values for name, values in inputs.items() if values is not None}
        if not given:
            raise ValueError(f"one or more of {list(self.modalities)} must be given, got none")
        for name in given:
            if name not in self.modalities:
                raise ValueError(f"modality must be one of {list(self.modalities)}, got {name!r}")
        columns = {
            name: list(values) if isinstance(values, list | tuple) else [values] for name, values in given.items()
        }
        counts = {name: len(values) for name, values in columns.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise ValueError(f"every modality must have the same number of samples, at least one, got {counts}")
        samples: list[dict[str, Tensor]] = [{} for _ in range(next(iter(counts.values())))]
        for name in self.modalities:
            for index, value in enumerate(columns.get(name, ())):
                if value is not None and len(values := self._read(name, index, value)):
                    samples[index][name] = values
        _check_each_has_one(samples, columns)
        return MultimodalBatch(self.collator([Sample(sample) for sample in samples]))

    def _read(self, name: str, index: int, value: Any) -> Tensor:
        kind = self.modalities[name]
        try:
            return kind(value, self.tokenizer) if isinstance(kind, TextInput) else kind(value)
        except (TypeError, ValueError) as error:
            what = f" {value}" if isinstance(value, str | Path) and not isinstance(kind, TextInput) else ""
            raise ValueError(f"modality {name!r} of sample {index}:{what} {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``processor_config.json`` holds."""
        modalities = {name: {"kind": kind.kind, **asdict(kind)} for name, kind in self.modalities.items()}
        return {"processor_class": type(self).__name__, "modalities": modalities}

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Saves ``processor_config.json``, and the tokenizer if there is one."""
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        files: list[str] = super().save_pretrained(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "CLCRProcessor":  # type: ignore[override]
        """Loads a processor from the folder of a saved model, or from the Hugging Face hub.

        Raises:
            OSError: there is no ``processor_config.json``, as for models that were saved before there were processors.
            ValueError: what it holds is not that of a processor.
        """
        kwargs.pop("trust_remote_code", None)  # no code is ever loaded
        settings, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if not settings:
            raise OSError(
                f"{pretrained_model_name_or_path} has no processor_config.json, which says how inputs are computed; "
                "a model that was saved without one must be trained again"
            )
        try:
            modalities = _modalities(settings.get("modalities"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{pretrained_model_name_or_path}: processor_config.json: {error}") from None
        tokenizer = None
        if any(isinstance(kind, TextInput) for kind in modalities.values()):
            tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, trust_remote_code=False, **kwargs)
        return cls(modalities, tokenizer)


def _modalities(settings: Any) -> dict[str, ModalityInput]:
    if not isinstance(settings, dict) or not settings:
        raise ValueError(f"modalities must be a dict by modality, got {settings!r}")
    return {name: _modality(name, entry) for name, entry in settings.items()}


def _modality(name: str, entry: Any) -> ModalityInput:
    if not isinstance(entry, dict) or entry.get("kind") not in _KINDS:
        kinds = list(_KINDS)
        raise ValueError(f"modalities[{name!r}] must be a dict whose 'kind' is one of {kinds}, got {entry!r:.80}")
    kind = _KINDS[entry["kind"]]
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(entry) - known - {"kind"})
    if unknown:
        raise ValueError(f"modalities[{name!r}] has no field {unknown[0]!r}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if key in known
    }
    if kind is SoundInput and isinstance(values.get("options"), dict):
        values["options"] = SpectrogramOptions(**values["options"])
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"modalities[{name!r}]: {error}") from None


def _check_each_has_one(samples: list[dict[str, Tensor]], columns: Mapping[str, list[Any]]) -> None:
    empty = next((index for index, sample in enumerate(samples) if not sample), None)
    if empty is not None:
        without = [name for name, values in columns.items() if values[empty] is not None]
        reason = f": nothing can be read of {', '.join(without)}" if without else ""
        raise ValueError(f"every sample must have at least one modality, sample {empty} has none{reason}")


def _kind_names() -> list[str]:
    return [kind.__name__ for kind in _KINDS.values()]


AutoProcessor.register(CLCRConfig, CLCRProcessor)
