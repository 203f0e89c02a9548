"""CLCRConfig: the sizes and switches of a CLCR model, with the reference configuration as defaults."""

import sys
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from multifuse._internal import checks
from multifuse._internal.plain import make_fields_plain, plain
from multifuse.models.decoders import decoder_config
from multifuse.models.modality_entry import check_entry, plain_entry
from multifuse.models.task_loss import PROBLEM_TYPES, REGRESSION_LOSSES

# ResNet-18 as transformers' ResNetConfig has it: two basic blocks in each of four stages.
RESNET_18 = {
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
}
RESNET_SMALL = {**RESNET_18, "embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1]}
SCRATCH = {"resnet-18": RESNET_18, "resnet-small": RESNET_SMALL}
"""Networks that are known by name and start with fresh weights. The small one is ours, for small inputs."""
_COUNTS = (
    *("hidden_size", "shared_rank", "private_rank", "num_heads", "num_levels", "max_positions", "num_segments"),
    "num_labels",
)
_MOST_LABELS = 1 << 20
_TRANSFORMERS_FIELDS = {
    *("num_labels", "torch_dtype", "name_or_path", "attn_implementation", "experts_implementation"),
    *("output_attentions", "per_layer_config", "transformers_version", "model_type", "quantization_config", "auto_map"),
    "custom_pipelines",
}
"""What transformers itself passes to a config, or writes into its file, beside the fields."""
_CHOICES = {
    "init_exchange": ("identity", "xavier"),
    "positions": ("learned", "sinusoidal"),
    "parametrization": ("cholesky", "geotorch"),
    "regression_loss": tuple(REGRESSION_LOSSES),
    "problem_type": (None, *PROBLEM_TYPES),
}


class EncoderAttention(NamedTuple):
    """The attention implementation that was asked for in an encoder."""

    implementation: str
    must_fit: bool
    """Whether it was asked for by the modality's name, and not for all encoders that support it."""


@strict
class CLCRConfig(PreTrainedConfig):
    """Configures `CLCRModel`.

    Args:
        modalities: by name, in the order of the columns of the outputs, a dict with ``encoder`` and what it needs:
            ``{"encoder": "temporal_conv", "input_size": 5}`` for feature sequences (``"dropout"`` overrides);
            ``{"encoder": "text", "config": {...}}`` with a transformers config, or the dict of one, which is what is
            kept (see `text_modality`); or ``"image"`` (frames, optical flow) or ``"audio"`` with such a config (see
            `backbone_modality`) and optionally ``"grid"``, ``"mean"``, ``"std"`` (see `BackboneLevels`) and
            ``"dropout"``.
        modality_order: the order of ``modalities``, which JSON does not keep; by default that of the dict.
        hidden_size: d, called ``dim`` in the layers, as everywhere in transformers.
        shared_rank, private_rank: r_s and r_p.
        num_heads: divides r_s.
        num_levels: L.
        dropout: of encoders, exchange and head.
        gamma, init_participation: of `TokenBudget`.
        init_exchange: the ``init`` of every `IntraCED`; by default nothing is exchanged before training.
        lambda_intra, lambda_inter: weights of the regularisers; 0 turns one off.
        eps, debias: of the regularisers, see `IntraLevelLoss`.
        level_temperature, level_floor, modality_temperature, modality_floor: of `InterCAD`, off by default.
        init_last_level: the weight of the last level before training; ``None``: all levels alike.
        positions, max_positions: of the semantic-hierarchy encoder.
        parametrization: ``"cholesky"`` or ``"geotorch"``, see `StiefelProjector`.
        use_hierarchy: False = the last level only.
        use_intra_ced: False = alpha is 0 everywhere.
        use_inter_cad: False = uniform level and modality weights, gates of 1.
        shuffle_levels: True = full mix, modality number j reads level (l + j) mod L.
        num_segments: S, of `CLCRForSegmentPrediction`.
        modality_dropout: the rate at which a sample loses a modality in training, one rate or a dict by modality.
        debug: True = features that are not finite raise an error that names them, at the cost of checking each.
        regression_loss: ``"l1"``, ``"mse"`` or ``"smooth_l1"``, with problem_type ``"regression"``.
        decoder: the dict of a transformers config, of `CLCRForConditionalGeneration` only, see `decoder_config`.
        pad_token_id: that of the decoder, for transformers, which looks for it here.
        problem_type, num_labels: as everywhere in transformers. By default one label and a regression; with several
            labels the problem type is inferred from the dtype of the first ones, see `inferred_problem_type`.

    Raises:
        ValueError: a modality or a size that does not fit, or a field that does not exist, by name.

    Example:
        >>> config = CLCRConfig(modalities={"audio": {"encoder": "temporal_conv", "input_size": 5}}, gamma=0.5)
        >>> config.hidden_size, config.shared_rank, config.gamma
        (128, 48, 0.5)
    """

    model_type = "clcr"
    keys_to_ignore_at_inference = [
        "terms",
        "activations",
        "hidden_states",
        "past_key_values",
        "cache",
        "encoder_last_hidden_state",
    ]

    modalities: dict[str, Any] | None = None
    modality_order: list[str] | None = None
    hidden_size: int = 128
    shared_rank: int = 48
    private_rank: int = 32
    num_heads: int = 4
    num_levels: int = 3
    dropout: float | int = 0.1
    gamma: float | int = 1.0
    init_participation: float = 0.68
    init_exchange: str = "identity"
    lambda_intra: float | int = 0.1
    lambda_inter: float | int = 0.1
    eps: float = 1e-3
    debias: bool = True
    level_temperature: float | int = 1.0
    level_floor: float | int = 0.0
    modality_temperature: float | int = 1.0
    modality_floor: float | int = 0.0
    init_last_level: float | None = None
    positions: str = "learned"
    max_positions: int = 1024
    parametrization: str = "cholesky"
    use_hierarchy: bool = True
    use_intra_ced: bool = True
    use_inter_cad: bool = True
    shuffle_levels: bool = False
    num_segments: int = 10
    modality_dropout: float | int | dict[str, float | int] = 0.0
    debug: bool = False
    regression_loss: str = "l1"
    decoder: dict[str, Any] | PreTrainedConfig | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self._check_fields(kwargs)
        if self.problem_type in (None, "regression") and kwargs.get("num_labels") is None and self.id2label is None:
            kwargs["num_labels"] = 1
        if kwargs.get("num_labels") is not None:
            labels = kwargs["num_labels"] = checks.positive_integer("num_labels", kwargs["num_labels"])
            if labels > _MOST_LABELS:  # transformers makes a name for each of them
                raise ValueError(f"num_labels must be at most {_MOST_LABELS}, got {labels}")
        make_fields_plain(self)
        if isinstance(self.modalities, dict):
            self.modalities = {name: plain_entry(entry) for name, entry in self.modalities.items()}
        if self.decoder is not None:
            self._set_decoder(self.decoder)
        super().__post_init__(**kwargs)
        if self.modalities:
            self._order()
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Returns a config as transformers does, with fields of ``kwargs`` in place of those of the dict.

        transformers would set them on the finished config, where nothing checks them.

        Raises:
            ValueError: as the constructor.
        """
        names = {field.name for field in fields(cls)} - {"dtype"}  # which may be "auto", of from_pretrained
        given = {name: kwargs.pop(name) for name in names.intersection(kwargs)}
        return super().from_dict(_updated(config_dict, given, kwargs.get("num_labels")), **kwargs)

    def check(self) -> None:
        """Checks all fields, as the constructor and every model do: a field may have been set since.

        Raises:
            ValueError: a field that does not fit, by name.
        """
        if not self.modalities:  # the default instance, which transformers makes to write the difference from it
            return
        checks.modality_names(self.modalities)
        if self.modality_order != list(self.modalities):
            raise ValueError(
                f"modality_order must be that of modalities, {list(self.modalities)}, got {self.modality_order}"
            )
        _check_no_kernel("attn_implementation", self._asked_attention)
        _check_no_kernel("modalities", self.modalities)
        for name, entry in self.modalities.items():
            check_entry(name, entry, is_from_file=self.transformers_version is not None)
        self._check_sizes()
        self._check_rates()
        for name, choices in _CHOICES.items():
            checks.choice(name, getattr(self, name), choices)

    def inferred_problem_type(self, labels: torch.Tensor) -> str:
        """Returns ``problem_type``, inferred as transformers does where it is ``None``.

        One label is a regression; several are a single label where ``labels`` are integers, else multiple labels.
        """
        if self.problem_type is not None:
            return str(self.problem_type)
        if self.num_labels == 1:
            return "regression"
        is_class = not labels.is_floating_point() and labels.dtype != torch.bool
        return "single_label_classification" if is_class else "multi_label_classification"

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns what a saved config holds: the fields that differ from the defaults, and always the labels.

        transformers leaves out two labels of default names, which are its own default; ours is a single label.
        """
        differences: dict[str, Any] = super().to_diff_dict()
        return differences | {"id2label": self.id2label, "label2id": self.label2id}

    @property
    def _attn_implementation(self) -> str | None:
        return self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | dict[str, str] | None) -> None:
        """Sets what transformers passes as ``attn_implementation``: one name for all, or a dict by modality."""
        by_name = value if isinstance(value, dict) else {}
        self._attn_implementation_internal = by_name.get("") if isinstance(value, dict) else value
        self._asked_attention = value

    @property
    def encoder_attention(self) -> dict[str, EncoderAttention]:
        """The attention implementations that were asked for, by modality; they are not saved."""
        names = self.modalities or {}
        asked = self._asked_attention
        if isinstance(asked, dict):
            checks.known_modalities("attn_implementation", [name for name in asked if name], tuple(names))
            return {name: EncoderAttention(asked[name], True) for name in names if asked.get(name) is not None}
        return {} if asked is None else dict.fromkeys(names, EncoderAttention(asked, False))

    def set_vocab_size(self, modality: str, size: int) -> None:
        """Sets the number of token ids of a text modality."""
        assert self.modalities is not None
        spec = self.modalities[modality]
        self.modalities = {**self.modalities, modality: {**spec, "config": {**spec["config"], "vocab_size": size}}}

    def _remove_keys_not_serialized(self, d: dict[str, Any]) -> None:
        d.pop("_asked_attention", None)
        super()._remove_keys_not_serialized(d)

    @property
    def active_levels(self) -> int:
        """The number of levels that are computed: all of them, or only the last without the hierarchy."""
        return self.num_levels if self.use_hierarchy else 1

    def _check_fields(self, others: Mapping[str, Any]) -> None:
        """Refuses fields that are neither ours nor those of any transformers config, with the nearest one.

        A file may hold fields that a framework has set on the config, as Trainer does: there, only a name that is
        nearly one of ours is refused.
        """
        known = sorted({field.name for field in fields(self)} | _TRANSFORMERS_FIELDS)
        is_from_file = self.transformers_version is not None
        for name in others:
            if name in _TRANSFORMERS_FIELDS or name.startswith("_"):
                continue
            nearest = get_close_matches(name, known, n=1, cutoff=0.8 if is_from_file else 0.6)
            if nearest or not is_from_file:
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise ValueError(f"CLCRConfig has no field {name!r}, got {name}={others[name]!r}{hint}")

    def _set_decoder(self, given: Any) -> None:
        fields = given.to_dict() if isinstance(given, PreTrainedConfig) else given
        if not isinstance(fields, dict) or "model_type" not in fields:
            raise ValueError(f"decoder must be a transformers config's dict with 'model_type', got {given!r}")
        _check_no_kernel("decoder", fields)
        _check_no_kernel("decoder.attn_implementation", getattr(given, "_attn_implementation", None))
        decoder = decoder_config(plain(fields))
        self.decoder, self.is_encoder_decoder, self.pad_token_id = decoder, True, decoder.pad_token_id

    def _order(self) -> None:
        assert self.modalities is not None
        if self.modality_order is None:
            self.modality_order = list(self.modalities)
        if sorted(self.modality_order) != sorted(self.modalities):
            raise ValueError(f"modality_order must name {sorted(self.modalities)}, got {self.modality_order}")
        self.modalities = {name: self.modalities[name] for name in self.modality_order}

    def _check_sizes(self) -> None:
        for name in _COUNTS:
            checks.positive_integer(name, getattr(self, name))
        checks.subspace_ranks(self.hidden_size, self.shared_rank, self.private_rank, width="hidden_size")
        if self.shared_rank % self.num_heads:
            raise ValueError(f"num_heads must divide shared_rank={self.shared_rank}, got {self.num_heads}")

    def _check_rates(self) -> None:
        for name in ("dropout", "level_floor", "modality_floor"):
            checks.in_range(name, getattr(self, name), 0.0, 1.0)
        for name in ("lambda_intra", "lambda_inter", "gamma"):
            checks.in_range(name, getattr(self, name), 0.0, sys.float_info.max)
        for name in ("eps", "level_temperature", "modality_temperature"):
            checks.in_range(name, getattr(self, name), sys.float_info.min, sys.float_info.max)
        checks.rates("modality_dropout", self.modality_dropout, tuple(self.modalities or ()))
        if self.init_last_level is not None:
            checks.in_range("init_last_level", self.init_last_level, 1e-6, 1 - 1e-6)
        checks.in_range("init_participation", self.init_participation, 1e-6, 1 - 1e-6)

    @staticmethod
    def text_modality(name_or_folder: str) -> dict[str, Any]:
        """Returns the ``modalities`` entry of a pretrained text encoder, by its name on the hub or its local folder.

        The entry describes the architecture only: a new model draws its weights, and `load_text_encoder` of the model
        replaces them by the pretrained ones.
        """
        return {
            "encoder": "text",
            "config": AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False).to_dict(),
        }

    @staticmethod
    def decoder_config(name_or_folder: str) -> dict[str, Any]:
        """Returns the ``decoder`` of a pretrained model, by its name on the hub or its local folder."""
        fields: dict[str, Any] = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False).to_dict()
        return fields

    @staticmethod
    def backbone_modality(
        encoder: Literal["image", "audio"], channels: int = 3, name_or_folder: str = "resnet-18", **options: Any
    ) -> dict[str, Any]:
        """Returns the ``modalities`` entry of a vision or audio backbone, by its name on the hub or its local folder.

        ``"resnet-18"``, the default and the method's network, and ``"resnet-small"`` start from scratch and need no
        files. ``channels``: 3 for frames, 2 for optical flow, 1 for a spectrogram. Options: ``grid``, ``mean``,
        ``std``, ``dropout``. The entry describes the architecture only: `load_backbone` of the model loads weights.
        """
        if name_or_folder in SCRATCH:
            config = {"model_type": "resnet", **SCRATCH[name_or_folder]}
        else:
            config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False).to_dict()
        if "num_channels" in config:
            config["num_channels"] = channels
        return {"encoder": encoder, "config": config, **options}


def _updated(saved: dict[str, Any], given: dict[str, Any], num_labels: int | None) -> dict[str, Any]:
    """Returns saved fields with others in their place, without those that the others make void."""
    void = {"label2id"} if "id2label" in given else set()
    if num_labels is not None and len(saved.get("id2label") or ()) != num_labels:
        void |= {"id2label", "label2id"}
    if "modalities" in given and sorted(given["modalities"] or ()) != sorted(saved.get("modalities") or ()):
        void.add("modality_order")
    if isinstance(given.get("decoder"), dict) and isinstance(saved.get("decoder"), dict):
        given = {**given, "decoder": {**saved["decoder"], **given["decoder"]}}
    return {**{name: value for name, value in saved.items() if name not in void}, **given}


def _check_no_kernel(name: str, value: Any) -> None:
    """Refuses, at any depth, an attention that is a kernel on the Hub: it would be downloaded and run."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_no_kernel(f"{name}[{key!r}]", item)
    elif "attn_implementation" in name and isinstance(value, str) and "/" in value:
        raise ValueError(f"{name} must be an implementation of transformers, not code from the Hub, got {value!r}")
