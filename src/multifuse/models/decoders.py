"""The decoder of a model that generates text: any of transformers with cross-attention, fresh or pretrained."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput

_NOT_FIELDS = ("architectures", "transformers_version", "dtype", "torch_dtype")


def decoder_config(fields: Mapping[str, Any]) -> PreTrainedConfig:
    """Returns the transformers config of a decoder, with cross-attention where that is an option of the model.

    Raises:
        ValueError: a model type that has no decoder in transformers.
    """
    kind = fields.get("model_type")
    if kind not in CONFIG_MAPPING or kind == "clcr":  # itself in the table of sequence-to-sequence models
        raise ValueError(f"decoder must be a transformers model with a decoder, got {kind!r}")
    config = AutoConfig.for_model(**{name: value for name, value in fields.items() if name not in _NOT_FIELDS})
    if type(config) not in (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if config.is_encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        raise ValueError(f"decoder must be a transformers model with a decoder, got {kind!r}")
    if not config.is_encoder_decoder:
        config.is_decoder = config.add_cross_attention = True
    checked: PreTrainedConfig = config
    return checked


def fresh_decoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Builds a decoder with fresh weights; a sequence-to-sequence model leaves its encoder out.

    Raises:
        ValueError: a decoder without cross-attention.
    """
    options = {"trust_remote_code": False, "dtype": torch.get_default_dtype()}
    if config.is_encoder_decoder:
        return _without_encoder(AutoModelForSeq2SeqLM.from_config(config, **options))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options)
    if "encoder_hidden_states" not in inspect.signature(model.forward).parameters:
        raise ValueError(f"decoder must have cross-attention, {type(model).__name__} has none")
    return model


def load_pretrained_decoder(decoder: PreTrainedModel, name_or_folder: str) -> None:
    """Copies pretrained weights into a decoder of the same architecture, from safetensors only.

    Cross-attention that the pretrained model lacks, as GPT-2 does, starts with fresh weights.
    """
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    if decoder.config.is_encoder_decoder:
        pretrained = _without_encoder(AutoModelForSeq2SeqLM.from_pretrained(name_or_folder, **options))
    else:
        pretrained = AutoModelForCausalLM.from_pretrained(name_or_folder, config=decoder.config, **options)
    decoder.load_state_dict(pretrained.state_dict())


def decoded(
    decoder: PreTrainedModel,
    memory: Tensor,
    memory_mask: Tensor | None,
    token_ids: Tensor,
    token_mask: Tensor | None,
    **options: Any,
) -> Any:
    """Calls a decoder with its memory (B, T, width), as its kind of model is called."""
    if decoder.config.is_encoder_decoder:
        return decoder(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=memory_mask,
            decoder_input_ids=token_ids,
            decoder_attention_mask=token_mask,
            **options,
        )
    return decoder(
        input_ids=token_ids,
        attention_mask=token_mask,
        encoder_hidden_states=memory,
        encoder_attention_mask=memory_mask,
        **options,
    )


def _without_encoder(model: PreTrainedModel) -> PreTrainedModel:
    """Drops the encoder, which nothing calls where the memory is given, and what would tie its weights."""
    encoder = model.get_encoder()
    holders = [part for part in model.modules() if isinstance(part, PreTrainedModel) and part is not encoder]
    prefixes = {part: [name for name, module in part.named_modules() if module is encoder] for part in holders}
    model.set_encoder(None)
    for part, prefix in prefixes.items():
        if prefix:
            part._tied_weights_keys = _outside(prefix[0], part._tied_weights_keys)
            part.all_tied_weights_keys = _outside(prefix[0], part.all_tied_weights_keys)
    return model


def _outside(prefix: str, tied: Mapping[str, str] | None) -> dict[str, str]:
    return {name: source for name, source in (tied or {}).items() if not name.startswith(f"{prefix}.")}
