"""CLCR: semantic-hierarchy encoder, IntraCED at every level, InterCAD across levels, and a prediction head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from multifuse._internal import checks
from multifuse._internal.precision import at_least_float32
from multifuse.layers.exchange import IntraCEDOutput, LevelCodes
from multifuse.layers.exchange_levels import can_exchange_together, exchange_levels
from multifuse.layers.inter_cad import InterCAD
from multifuse.layers.intra_ced import IntraCED
from multifuse.layers.modality_dropout import ModalityDropout
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.encoders import encoded, hierarchy
from multifuse.models.exchanged_tokens import exchanged_tokens, token_memory
from multifuse.models.flat_inputs import takes_flat_inputs
from multifuse.models.modeling_base import CLCRPreTrainedModel
from multifuse.models.outputs import CLCRModelOutput, CLCRPredictionOutput
from multifuse.models.regularised import Regularised


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
                init=config.init_exchange,  # type: ignore[arg-type]
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
        levels, masks = encoded(self.hierarchy, self.modality_dropout, inputs, mask, self.config.debug)
        levels = self._arranged(levels)
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
        return {"task": self._task_loss(at_least_float32(logits), labels), **self._regularisers(encoded)}


AutoConfig.register("clcr", CLCRConfig)
AutoModel.register(CLCRConfig, CLCRModel)
AutoModelForSequenceClassification.register(CLCRConfig, CLCRForPrediction)
