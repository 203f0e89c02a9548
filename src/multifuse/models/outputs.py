"""What CLCR models compute, as named fields."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import ModelOutput

from multifuse.layers.exchange import IntraCEDOutput
from multifuse.layers.inter_cad import InterCADOutput


@dataclass
class CLCRModelOutput(ModelOutput):
    """What `CLCRModel` computes."""

    fused: Tensor | None = None
    """(B, 2d), or (B, S, 2d) with S segments."""
    levels: tuple[IntraCEDOutput, ...] | None = None
    """Codes and activations; the streams of width d are computed only where an exchange has been wrapped."""
    aggregate: InterCADOutput | None = None
    mask: dict[str, Tensor | None] | None = None
    """The token masks that were used, including those from ``attention_mask``."""
    hidden_states: tuple[dict[str, Tensor], ...] | None = None
    """With ``output_hidden_states``: by level and modality, the tokens (B, T, d) that the exchange reads."""
    last_hidden_state: Tensor | None = None
    """With ``output_tokens``, (B, T, d): the exchanged tokens of all levels, weighted, 0 at padding; T is L times the
    tokens of all modalities."""
    attention_mask: Tensor | None = None
    """The mask of these, (B, T) bool, True = real token."""


@dataclass
class CLCRPredictionOutput(ModelOutput):
    """What `CLCRForPrediction` computes, for B samples, L levels and M modalities in the config's order.

    In `CLCRForSegmentPrediction`, logits, weights and gates have a dimension of S segments after B.
    """

    loss: Tensor | None = None
    """A scalar, with labels: task + lambda_intra * intra + lambda_inter * inter."""
    logits: Tensor | None = None
    """(B, num_labels)."""
    level_weights: Tensor | None = None
    """(B, L)."""
    modality_weights: Tensor | None = None
    """(B, M)."""
    private_gates: Tensor | None = None
    """(B, M)."""
    activations: tuple[dict[str, Tensor], ...] | None = None
    """By level and modality, (B, T): alpha."""
    terms: dict[str, Tensor] | None = None
    """The named terms of the loss, unweighted scalars: task, intra_*, inter_*."""
    hidden_states: tuple[dict[str, Tensor], ...] | None = None
    """With ``output_hidden_states``: those of `CLCRModelOutput`."""


CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"
"""What transformers calls a decoder's cache: ``past_key_values`` before 5.24."""


@dataclass
class CLCRGenerationOutput(Seq2SeqLMOutput):
    """What `CLCRForConditionalGeneration` computes: transformers' fields of a decoder, and those of CLCR.

    The latter are ``None`` where the memory was given, as in all steps of ``generate``.
    """

    level_weights: Tensor | None = None
    """(B, L)."""
    modality_weights: Tensor | None = None
    """(B, M)."""
    private_gates: Tensor | None = None
    """(B, M)."""
    terms: dict[str, Tensor] | None = None
    """The named terms of the loss, unweighted scalars: task, intra_*, inter_*."""
