"""CLCR: semantic-hierarchy encoder, IntraCED at every level, InterCAD across levels, and a prediction head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from multifuse._internal import checks
from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.exchange_levels import can_exchange_together, exchange_levels
from multifuse.layers.hierarchy import SemanticHierarchyEncoder
from multifuse.layers.inter_cad import InterCAD
from multifuse.layers.intra_ced import IntraCED, IntraCEDOutput, LevelCodes
from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.layers.text_levels import TextLevels
from multifuse.losses.moments import mean_over_ranks
from multifuse.models import offload, saved
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.encoders import hierarchy, load_pretrained, modules_outside
from multifuse.models.exchanged_tokens import exchanged_tokens, token_memory
from multifuse.models.flat_inputs import takes_flat_inputs
from multifuse.models.outputs import CLCRModelOutput, CLCRPredictionOutput
from multifuse.models.regularised import Regularised
from multifuse.models.task_loss import loss_per_sample
from multifuse.models.token_masks import token_masks


class CLCRPreTrainedModel(PreTrainedModel):
    config_class = CLCRConfig
    base_model_prefix = "clcr"
    supports_gradient_checkpointing = True
    # Those of the encoders, each of which takes what it supports; the exchange has its own attention.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    main_input_name = "none"  # the inputs are a dict by modality: Trainer must not look for a tensor to count tokens of
    # Without the exchanges: as units of their own they would be called one by one, which is slower than all together.
    _no_split_modules = ["SemanticHierarchyEncoder", "InterCAD"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads as transformers does, from safetensors only; a local folder is checked before memory is allocated.

        Raises:
            SavedModelError: files that are damaged, hostile, or not those of a CLCR model.
            OSError: missing files.
        """
        if not kwargs.pop("use_safetensors", True):
            raise ValueError("use_safetensors must not be False: weights in a pickle could run code")
        with saved.loading(pretrained_model_name_or_path):
            if pretrained_model_name_or_path is not None:
                folder = Path(pretrained_model_name_or_path) / (kwargs.get("subfolder") or "")
                if folder.is_dir():
                    saved.check_folder(cls, folder)
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, use_safetensors=True, **kwargs)
            offload.load_parts_together(loaded[0] if isinstance(loaded, tuple) else loaded)
            return loaded

    def _init_weights(self, module: nn.Module) -> None:
        """Draws the weights that a checkpoint lacks, by torch's defaults; our layers draw their own."""
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()

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
        (encoders,) = (part for part in self.modules() if isinstance(part, SemanticHierarchyEncoder))
        levels = {name: encoders.encoder(name) for name in modalities}
        for name, encoder in levels.items():
            if not isinstance(encoder, TextLevels | BackboneLevels):
                raise ValueError(f"modality {name!r} has a {type(encoder).__name__}, not a model of transformers")
        return modules_outside(self, [encoder.model for encoder in levels.values()])  # type: ignore[misc]

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
        if self.config.problem_type is None:
            self.config.problem_type = problem_type
        is_ignored = None if ignored is None else labels == ignored
        if is_ignored is not None and problem_type != "single_label_classification":
            labels = labels.masked_fill(is_ignored, 0)
        per_sample, counted = loss_per_sample(logits, labels, problem_type, self.config.regression_loss)
        if is_ignored is not None:
            counted = counted & ~is_ignored.view(len(labels), -1).any(dim=1)
        return mean_over_ranks(per_sample, counted, self.training)


class CLCRModel(CLCRPreTrainedModel):
    """Computes the fused representation ``z_sh (+) u_pr`` of a batch.

    Shape:
        ``forward(inputs, mask=None)``: inputs by modality: features (B, T, input_size); for a text encoder token ids
        (B, T), or a mapping with ``input_ids`` and more; for a backbone frames (B, F, C, H, W) or sounds (B, 1,
        frequency, time), see `BackboneLevels`. Masks by modality, True or 1 = real token: (B, T), (B, F) of frames,
        (B, 1) of sounds; the ``attention_mask`` of a text mapping is used where there is none. Modalities may be left
        out, or be ``None``. ``segments`` is passed to `InterCAD`: ``fused`` is then (B, S, 2d). With
        ``output_tokens``, the exchanged tokens of all levels are returned too (ours), see `CLCRModelOutput`. ``labels``
        are accepted and ignored, because the model without a head has no loss.

    Raises:
        ValueError: inputs or masks that do not fit, by modality.

    Source: CLCR (arXiv 2602.19605), section 3.

    Example:
        >>> modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("vision", "audio")}
        >>> model = CLCRModel(CLCRConfig(modalities=modalities, hidden_size=64, shared_rank=24, private_rank=16))
        >>> model({"vision": torch.randn(4, 20, 5), "audio": torch.randn(4, 30, 5)}).fused.shape
        torch.Size([4, 128])
    """

    def __init__(self, config: CLCRConfig) -> None:
        super().__init__(config)
        self.hierarchy = hierarchy(config)
        names = self.hierarchy.modalities
        self.modality_dropout = ModalityDropout(names, config.modality_dropout)
        self.exchanges = nn.ModuleList(
            IntraCED(
                config.hidden_size,
                names,
                shared_rank=config.shared_rank,
                private_rank=config.private_rank,
                num_heads=config.num_heads,
                gamma=config.gamma if config.use_intra_ced else 0.0,
                dropout=config.dropout,
                init_participation=config.init_participation,
                parametrization=config.parametrization,  # type: ignore[arg-type]
            )
            for _ in range(config.active_levels)
        )
        self.aggregation = InterCAD(
            config.hidden_size,
            names,
            num_levels=config.active_levels,
            adaptive=config.use_inter_cad,
            level_temperature=config.level_temperature,
            level_floor=config.level_floor,
            modality_temperature=config.modality_temperature,
            modality_floor=config.modality_floor,
            init_last_level=config.init_last_level,
        )
        self.post_init()

    def load_backbone(self, modality: str, name_or_folder: str) -> None:
        """Loads the weights of a pretrained vision or audio model, from the Hugging Face hub or a local folder."""
        levels = self.hierarchy.encoder(modality)
        if not isinstance(levels, BackboneLevels):
            raise ValueError(f"modality {modality!r} has a {type(levels).__name__}, not a backbone")
        load_pretrained(levels, name_or_folder)

    def load_text_encoder(self, modality: str, name_or_folder: str) -> None:
        """Loads the weights of a pretrained text encoder, from the Hugging Face hub or a local folder."""
        levels = self.hierarchy.encoder(modality)
        if not isinstance(levels, TextLevels):
            raise ValueError(f"modality {modality!r} has a {type(levels).__name__}, not a text encoder")
        load_pretrained(levels, name_or_folder)

    @takes_flat_inputs
    def forward(
        self,
        inputs: Mapping[str, Any],
        mask: Mapping[str, Tensor | None] | None = None,
        labels: Tensor | None = None,
        segments: int | None = None,
        output_hidden_states: bool | None = None,
        output_tokens: bool = False,
    ) -> CLCRModelOutput:
        if output_tokens and segments is not None:
            raise ValueError(f"output_tokens must be False with segments, got segments={segments}")
        checks.by_modality("inputs", inputs, self.hierarchy.modalities)
        masks = token_masks(inputs, mask, self.hierarchy.modalities)
        if self.config.debug:
            checks.finite_tokens("inputs", inputs, masks)
        levels = self._arranged(self.hierarchy(inputs, masks))
        masks = self.hierarchy.token_masks(levels, masks)
        checks.token_shapes("tokens", levels[0], masks, self.hierarchy.modalities, self.config.hidden_size)
        masks = self.modality_dropout(levels[0], masks)
        exchanges = list(self.exchanges)
        exchanged: LevelCodes | tuple[IntraCEDOutput, ...]
        if can_exchange_together(exchanges):
            exchanged = exchange_levels(exchanges, levels, masks)
            outputs = exchanged.outputs()
        else:
            pairs = zip(exchanges, levels, strict=True)
            exchanged = outputs = tuple(exchange(tokens, masks) for exchange, tokens in pairs)
        aggregate = self.aggregation(exchanged, masks, segments=segments)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden_states = tuple(levels) if wanted else None
        output = CLCRModelOutput(
            fused=aggregate.fused, levels=outputs, aggregate=aggregate, mask=masks, hidden_states=hidden_states
        )
        if output_tokens:
            output["last_hidden_state"], output["attention_mask"] = token_memory(
                exchanged_tokens(levels, exchanged), masks, aggregate, self.hierarchy.modalities
            )
        return output

    def _arranged(self, levels: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Applies the ablations of the hierarchy: only the last level, or levels shuffled by modality (full mix)."""
        if not self.config.use_hierarchy:
            return levels[-1:]
        if self.config.shuffle_levels:
            names = self.hierarchy.modalities
            return [
                {name: levels[(level + names.index(name)) % len(levels)][name] for name in levels[level]}
                for level in range(len(levels))
            ]
        return levels


class CLCRForPrediction(Regularised, CLCRPreTrainedModel):
    """Predicts ``y = f(z_sh (+) u_pr)``, f a LayerNorm and a two-layer head.

    The loss is ``L_task + lambda_intra L_intra + lambda_inter L_inter``; the regularisers are computed in training
    only.

    Shape:
        ``forward(inputs, mask=None, labels=None)``: inputs and masks as in `CLCRModel`; labels (B,) or (B, num_labels)
        for a regression, (B,) class indices, -100 ignored, or (B, num_labels) of 0 and 1 for several labels ->
        `CLCRPredictionOutput`.

    Raises:
        ValueError: inputs, masks or labels that do not fit.

    Source: CLCR (arXiv 2602.19605), section 3; the form of the head is ours.

    Example:
        >>> modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("vision", "audio")}
        >>> config = CLCRConfig(modalities=modalities, hidden_size=64, shared_rank=24, private_rank=16)
        >>> inputs = {"vision": torch.randn(4, 20, 5), "audio": torch.randn(4, 30, 5)}
        >>> output = CLCRForPrediction(config)(inputs, labels=torch.randn(4))
        >>> output.logits.shape, output.loss.shape
        (torch.Size([4, 1]), torch.Size([]))
    """

    accepts_loss_kwargs = False  # the loss is a mean: Trainer divides it by the accumulation steps

    def __init__(self, config: CLCRConfig) -> None:
        super().__init__(config)
        self.clcr = CLCRModel(config)
        self.head = nn.Sequential(
            # Mixing shrinks summaries of a fixed norm: without this, weights collapse because that enlarges the logits.
            nn.LayerNorm(2 * config.hidden_size),
            nn.Linear(2 * config.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.num_labels),
        )
        self._add_regularisers(self.clcr.hierarchy.modalities)
        self.post_init()

    @takes_flat_inputs
    def forward(
        self,
        inputs: Mapping[str, Any],
        mask: Mapping[str, Tensor | None] | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> CLCRPredictionOutput:
        encoded = self.clcr(
            inputs, mask, segments=self.segments, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = self.head(encoded.fused)
        if labels is None:
            self._warn_of_missing_labels()
        terms = None if labels is None else self._terms(encoded, logits, labels)
        if terms is not None and self.config.debug:
            checks.finite_terms(terms)
        return CLCRPredictionOutput(
            loss=None if terms is None else self._total(terms),
            logits=logits,
            level_weights=encoded.aggregate.level_weights,
            modality_weights=encoded.aggregate.modality_weights,
            private_gates=encoded.aggregate.private_gates,
            activations=tuple(level.activation for level in encoded.levels),
            terms=terms,
            hidden_states=encoded.hidden_states,
        )

    @property
    def segments(self) -> int | None:
        """The number of parts of a sample's time that have separate logits; ``None``: the sample as a whole."""
        return None

    def _task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.task_loss(logits, labels)

    def _terms(self, encoded: CLCRModelOutput, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Returns the task loss, and in training the regularisers that have a weight."""
        return {"task": self._task_loss(logits.float(), labels), **self._regularisers(encoded)}


AutoConfig.register("clcr", CLCRConfig)
AutoModel.register(CLCRConfig, CLCRModel)
AutoModelForSequenceClassification.register(CLCRConfig, CLCRForPrediction)
