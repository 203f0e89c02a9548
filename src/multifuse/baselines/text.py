"""The text baseline for fusion: only the text encoder, mean-pooled, with a linear head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.masks import masked_mean
from multifuse._internal.precision import at_least_float32
from multifuse.layers.text_levels import TextLevels
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.encoders import backbone
from multifuse.models.flat_inputs import takes_flat_inputs
from multifuse.models.modeling_base import CLCRPreTrainedModel
from multifuse.models.outputs import CLCRPredictionOutput
from multifuse.models.token_masks import token_masks


class TextBaselineForPrediction(CLCRPreTrainedModel):
    """Predicts from the mean of the text encoder's last layer; uses only the text of `CLCRForPrediction`'s inputs.

    Raises:
        ValueError: a config without a text encoder named ``text``; inputs without it, or that do not fit.
    """

    accepts_loss_kwargs = False

    def __init__(self, config: CLCRConfig) -> None:
        super().__init__(config)
        if not config.modalities or config.modalities.get("text", {}).get("encoder") != "text":
            raise ValueError(f"config.modalities must have 'text' with a text encoder, got {config.modalities}")
        self.encoder = TextLevels(
            backbone(config.modalities["text"]["config"], config.encoder_attention.get("text")), config.num_levels
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.encoder.output_dim, config.num_labels)
        self.post_init()

    def text_encoders(self) -> dict[str, TextLevels]:
        return {"text": self.encoder}

    @takes_flat_inputs
    def forward(
        self,
        inputs: Mapping[str, Any],
        mask: Mapping[str, Tensor | None] | None = None,
        labels: Tensor | None = None,
    ) -> CLCRPredictionOutput:
        real = token_masks(inputs, mask, tuple(self.config.modalities)).get("text")
        if inputs.get("text") is None:
            given = [name for name, values in inputs.items() if values is not None]
            raise ValueError(f"inputs must hold 'text', which this model reads, got {given}")
        try:
            last = self.encoder.last_layer(inputs["text"], real)
        except ValueError as error:
            raise checks.naming_modality("text", error) from error
        logits = self.head(self.dropout(masked_mean(last, real)))
        loss = None if labels is None else self.task_loss(at_least_float32(logits), labels)
        return CLCRPredictionOutput(loss=loss, logits=logits)
