"""CLCRPreTrainedModel: what all models have in common, their loading, text encoders and task loss."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from multifuse._internal import checks
from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.layers.text_levels import TextLevels
from multifuse.losses.moments import mean_over_ranks
from multifuse.models import offload, saved
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.encoders import encoder_of_kind, load_pretrained, modules_outside
from multifuse.models.task_loss import loss_per_sample


class CLCRPreTrainedModel(PreTrainedModel):
    """What all models here have, also those of `multifuse.baselines`, on top of `PreTrainedModel`."""

    config_class = CLCRConfig
    base_model_prefix = "clcr"
    supports_gradient_checkpointing = True
    # Those of the encoders, each of which takes what it supports; the exchange has its own attention.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    main_input_name = "none"  # the inputs are a dict by modality: Trainer must not look for a tensor to count tokens of
    # Without the exchanges: as units of their own they would be called one by one, which is slower than all together.
    _no_split_modules = ["SemanticHierarchyEncoder", "InterCAD"]

    def __init__(self, config: CLCRConfig) -> None:
        # A copy, because a model notes its problem type there, which is not that of another model of the same config.
        super().__init__(deepcopy(config))
        self.config.check()

    def post_init(self) -> None:
        """Gives a model within this one the same config, and does what transformers does."""
        for part in self.modules():
            if isinstance(part, CLCRPreTrainedModel):
                part.config = self.config
        super().post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads as transformers does, from safetensors only; a local folder is checked before memory is allocated.

        Raises:
            SavedModelError: files that are damaged, hostile, or not those of a CLCR model of this class; modalities in
                another order than that of the saved model.
            OSError: missing files.
        """
        if not kwargs.pop("use_safetensors", True):
            raise ValueError("use_safetensors must not be False: weights in a pickle could run code")
        with saved.loading(pretrained_model_name_or_path):
            if pretrained_model_name_or_path is not None:
                folder = Path(pretrained_model_name_or_path) / (kwargs.get("subfolder") or "")
                if folder.is_dir():
                    saved.check_folder(cls, folder)
            stored = saved.stored_config(cls, pretrained_model_name_or_path, kwargs)
            wants_info = kwargs.pop("output_loading_info", False)
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, use_safetensors=True, output_loading_info=True, **kwargs
            )
            saved.check_class(model, stored, info)
            saved.check_order(model, stored)
            offload.load_parts_together(model)
            return (model, info) if wants_info else model

    def _init_weights(self, module: nn.Module) -> None:
        """Draws the weights that a checkpoint lacks, by torch's defaults; our layers draw their own."""
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

    def load_backbone(self, modality: str, name_or_folder: str) -> None:
        """Loads the weights of a pretrained vision or audio model, from the Hugging Face hub or a local folder.

        Raises:
            ValueError: an unknown modality, or one whose encoder is not a backbone.
        """
        load_pretrained(self._encoder(modality, BackboneLevels, "a backbone"), name_or_folder)

    def load_text_encoder(self, modality: str, name_or_folder: str) -> None:
        """Loads the weights of a pretrained text encoder, from the Hugging Face hub or a local folder.

        Raises:
            ValueError: an unknown modality, or one whose encoder is not a text encoder.
        """
        load_pretrained(self._encoder(modality, TextLevels, "a text encoder"), name_or_folder)

    def modules_outside(self, *modalities: str) -> list[str]:
        """Returns the names of the modules that hold all weights but those of the pretrained models of modalities.

        With an adapter on these models, they are the ``modules_to_save`` of peft: any that is not named there would
        keep the weights that it was drawn with, untrained.

        Raises:
            ValueError: an unknown modality, or one whose encoder is not a model of transformers.

        Example:
            >>> modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("vision", "audio")}
            >>> model = CLCRForPrediction(CLCRConfig(modalities=modalities, num_levels=1))
            >>> model.modules_outside()[-3:]  # without a modality, every weight
            ['clcr.exchanges.0', 'clcr.aggregation', 'head']
        """
        kind = TextLevels | BackboneLevels
        levels = [self._encoder(name, kind, "a model of transformers") for name in modalities]
        return modules_outside(self, [encoder.model for encoder in levels])

    def _encoder(self, modality: str, kind: Any, called: str) -> Any:
        (encoders,) = (part for part in self.modules() if isinstance(part, SemanticHierarchyEncoder))
        return encoder_of_kind(encoders, modality, kind, called)

    def text_encoders(self) -> dict[str, TextLevels]:
        """Returns the text encoders by modality."""
        hierarchies = (module for module in self.modules() if isinstance(module, SemanticHierarchyEncoder))
        encoders = {name: found.encoder(name) for found in hierarchies for name in found.modalities}
        return {name: encoder for name, encoder in encoders.items() if isinstance(encoder, TextLevels)}

    def get_input_embeddings(self) -> nn.Module | None:  # type: ignore[override, unused-ignore]
        """Returns the embedding of the token ids of a model with one text encoder, else ``None``.

        Also ``None`` where the embedding is sharded with its encoder: accelerate's FSDP2 would shard it again.
        """
        encoders = list(self.text_encoders().values())
        if len(encoders) != 1:
            return None
        embedding: Any = encoders[0].model.get_input_embeddings()  # type: ignore[operator]
        return None if hasattr(embedding.weight, "full_tensor") else embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the embedding of the token ids of a model with one text encoder."""
        (encoder,) = self.text_encoders().values()
        encoder.model.set_input_embeddings(value)  # type: ignore[operator]

    def resize_token_embeddings(  # type: ignore[override, unused-ignore]
        self, new_num_tokens: int | None = None, *args: Any, modality: str | None = None, **kwargs: Any
    ) -> nn.Embedding:
        """Gives a text encoder another number of token ids, as transformers does; the config follows.

        ``modality`` names the encoder where there are several.

        Raises:
            ValueError: no text encoder of that name, or several and no name.
        """
        encoders = self.text_encoders()
        if modality is None and len(encoders) == 1:
            (modality,) = encoders
        if modality not in encoders:
            raise ValueError(f"modality must be one of the text encoders {list(encoders)}, got {modality!r}")
        encoder: Any = encoders[modality].model
        embedding: nn.Embedding = encoder.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.config.set_vocab_size(modality, encoder.config.get_text_config().vocab_size)
        return embedding

    def task_loss(self, logits: Tensor, labels: Tensor, ignored: int | None = None) -> Tensor:
        """Returns the mean over samples, in training over those of all ranks.

        Samples with the label ``ignored`` do not count, nor do class indices of -100.
        """
        checks.tensor("labels", labels)
        problem_type = self.config.inferred_problem_type(labels)
        is_ignored = None if ignored is None else labels == ignored
        if is_ignored is not None and problem_type != "single_label_classification":
            labels = labels.masked_fill(is_ignored, 0)
        per_sample, counted = loss_per_sample(logits, labels, problem_type, self.config.regression_loss)
        if self.config.problem_type is None:  # only now, when the labels have been accepted
            self.config.problem_type = problem_type
        if is_ignored is not None:
            counted = counted & ~is_ignored.view(len(labels), -1).any(dim=1)
        return mean_over_ranks(per_sample, counted, self.training)
