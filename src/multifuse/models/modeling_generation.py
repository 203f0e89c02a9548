"""CLCRForConditionalGeneration: text from the exchanged tokens, by any decoder of transformers with cross-attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, Cache, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.encoder_decoder.modeling_encoder_decoder import shift_tokens_right

from multifuse._internal import checks
from multifuse._internal.precision import at_least_float32
from multifuse.losses.moments import mean_over_ranks
from multifuse.models.configuration_clcr import CLCRConfig
from multifuse.models.decoders import decoded, fresh_decoder, load_pretrained_decoder
from multifuse.models.modeling_base import CLCRPreTrainedModel
from multifuse.models.modeling_clcr import CLCRModel
from multifuse.models.outputs import CACHE, CLCRGenerationOutput, CLCRModelOutput
from multifuse.models.regularised import Regularised
from multifuse.models.task_loss import IGNORED, class_indices


class CLCRForConditionalGeneration(Regularised, CLCRPreTrainedModel, GenerationMixin):
    """Generates text from what `CLCRModel` computes (ours: the paper stops at classification and regression).

    The memory that a decoder attends to is ``z_sh`` and ``u_pr`` after a LayerNorm, as two tokens, then the exchanged
    tokens of all levels, weighted by omega and beta (``output_tokens`` of `CLCRModel`); all are mapped to the width of
    the decoder if it is another one. The loss is ``L_task + lambda_intra L_intra + lambda_inter L_inter``, its first
    term the mean cross-entropy of the tokens of the labels; the regularisers are computed in training only.

    Shape:
        ``forward(inputs, mask=None, labels=None)``: inputs and masks as in `CLCRModel`; labels (B, S) token ids, -100
        ignored -> `CLCRGenerationOutput` with logits (B, S, vocabulary). ``decoder_input_ids`` are the labels, one
        later, where they are not given. The decoder's cache is ``past_key_values``, which transformers 5.24 renamed to
        ``cache``. `generate` takes the same inputs and mask, and the options of transformers.

    Raises:
        ValueError: a config without a decoder; inputs, masks or labels that do not fit.

    Example:
        >>> modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("vision", "audio")}
        >>> decoder = {"model_type": "gpt2", "vocab_size": 50, "n_embd": 32, "n_layer": 1, "n_head": 2}
        >>> decoder |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        >>> sizes = {"hidden_size": 64, "shared_rank": 24, "private_rank": 16}
        >>> model = CLCRForConditionalGeneration(CLCRConfig(modalities=modalities, decoder=decoder, **sizes)).eval()
        >>> inputs = {"vision": torch.randn(4, 20, 5), "audio": torch.randn(4, 30, 5)}
        >>> model(inputs, labels=torch.randint(50, (4, 7))).logits.shape
        torch.Size([4, 7, 50])
        >>> model.generate(inputs, num_beams=2, min_new_tokens=5, max_new_tokens=5).shape
        torch.Size([4, 6])
    """

    accepts_loss_kwargs = False

    def __init__(self, config: CLCRConfig) -> None:
        if config.decoder is None:
            raise ValueError("config.decoder must be the config of a decoder, got None; see CLCRConfig.decoder_config")
        super().__init__(config)
        self.clcr = CLCRModel(config)
        self.decoder = fresh_decoder(self.config.decoder)
        width = self.decoder.config.hidden_size
        self.summary_norm = nn.LayerNorm(config.hidden_size)
        self.projection = nn.Identity() if width == config.hidden_size else nn.Linear(config.hidden_size, width)
        self._add_regularisers(self.clcr.hierarchy.modalities)
        self.post_init()

    def load_decoder(self, name_or_folder: str) -> None:
        """Loads the weights of a pretrained decoder, from the Hugging Face hub or a local folder."""
        load_pretrained_decoder(self.decoder, name_or_folder)

    def encode(self, inputs: Mapping[str, Any], mask: Mapping[str, Tensor | None] | None = None) -> dict[str, Any]:
        """Returns the memory of a batch as `forward` and `generate` take it, ``encoder_outputs`` and its mask."""
        return self._memory(self._encoded(inputs, mask))

    def forward(
        self,
        inputs: Mapping[str, Any] | None = None,
        mask: Mapping[str, Tensor | None] | None = None,
        labels: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CLCRGenerationOutput | tuple[Any, ...]:
        encoded: CLCRModelOutput | None = None
        if encoder_outputs is None:
            encoded = self._encoded(inputs, mask)
            encoder_outputs, attention_mask = self._memory(encoded).values()
        if labels is None and encoded is not None:
            self._warn_of_missing_labels()
        if labels is not None:
            labels = self._checked_labels(labels, len(encoder_outputs[0]), decoder_input_ids)
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("labels or decoder_input_ids must be given, got neither")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            decoder_attention_mask = nn.functional.pad(labels[:, :-1] != IGNORED, (1, 0), value=True)
        else:
            checks.token_ids("decoder_input_ids", decoder_input_ids, self.decoder)
        output = decoded(
            self.decoder,
            encoder_outputs[0],
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **{CACHE: past_key_values if cache is None else cache},
        )
        terms = None if labels is None else {"task": self._token_loss(output.logits, labels)}
        if terms is not None and encoded is not None:
            terms.update(self._regularisers(encoded))
        if terms is not None and self.config.debug:
            checks.finite_terms(terms)
        aggregate = None if encoded is None else encoded.aggregate
        result = CLCRGenerationOutput(
            loss=None if terms is None else self._total(terms),
            logits=output.logits,
            decoder_hidden_states=getattr(output, "decoder_hidden_states", getattr(output, "hidden_states", None)),
            decoder_attentions=getattr(output, "decoder_attentions", getattr(output, "attentions", None)),
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs[0],
            level_weights=None if aggregate is None else aggregate.level_weights,
            modality_weights=None if aggregate is None else aggregate.modality_weights,
            private_gates=None if aggregate is None else aggregate.private_gates,
            terms=terms,
            **{CACHE: output.get(CACHE)},
        )
        wanted = self.config.return_dict if return_dict is None else return_dict
        return result if wanted else result.to_tuple()

    @torch.no_grad()
    def generate(
        self,
        inputs: Mapping[str, Any] | None = None,
        mask: Mapping[str, Tensor | None] | None = None,
        *,
        encoder_outputs: BaseModelOutput | None = None,
        **options: Any,
    ) -> Any:
        """Generates token ids (B, S) for inputs and masks as in `forward`, or for what `encode` has returned.

        All other arguments are those of transformers' ``generate``: ``num_beams``, ``do_sample`` and so on. The inputs
        are encoded once, whatever the number of beams.

        Raises:
            ValueError: inputs or a mask beside ``encoder_outputs``, or an ``attention_mask`` without them.
        """
        if encoder_outputs is None:
            if options.get("attention_mask") is not None:
                raise ValueError("attention_mask is that of encoder_outputs, which are not given; use mask for inputs")
            options.update(self._memory(self._encoded(inputs, mask)))
        else:
            if inputs is not None or mask is not None:
                raise ValueError("inputs and mask must not be given beside encoder_outputs, which were made of them")
            # A copy, because for several beams transformers repeats the memory in place.
            options["encoder_outputs"] = BaseModelOutput(last_hidden_state=encoder_outputs[0])
        memory = options["encoder_outputs"][0]
        # transformers reads the number of samples and the device, which is not that of an offloaded model.
        unread = torch.full(memory.shape[:2], IGNORED, device=memory.device)
        return super().generate(unread, **options)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Returns what the decoder reads to predict the labels (B, S): these, one later, after the start token."""
        start, pad = self.generation_config.decoder_start_token_id, self.generation_config.pad_token_id
        start = self.generation_config.bos_token_id if start is None else start
        if start is None:
            raise ValueError("config.decoder must have a decoder_start_token_id or a bos_token_id, got neither")
        # The decoder reads a token in the place of what is ignored, and no loss is computed there.
        shifted: Tensor = shift_tokens_right(labels, start if pad is None else pad, start)
        return shifted

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self.clcr

    def get_decoder(self) -> nn.Module:
        decoder: nn.Module = self.decoder
        return decoder

    def get_output_embeddings(self) -> nn.Module | None:
        head: nn.Module | None = self.decoder.get_output_embeddings()
        return head

    def resize_token_embeddings(self, *arguments: Any, **options: Any) -> nn.Embedding:
        raise NotImplementedError("resize_token_embeddings is not supported: set vocab_size in CLCRConfig.decoder")

    def _encoded(self, inputs: Mapping[str, Any] | None, mask: Mapping[str, Tensor | None] | None) -> CLCRModelOutput:
        if inputs is None:
            raise ValueError("inputs or encoder_outputs must be given, got neither")
        encoded: CLCRModelOutput = self.clcr(inputs, mask, output_tokens=True, return_dict=True)
        return encoded

    def _memory(self, encoded: CLCRModelOutput) -> dict[str, Any]:
        assert encoded.fused is not None
        assert encoded.last_hidden_state is not None
        assert encoded.attention_mask is not None
        summaries = self.summary_norm(encoded.fused.unflatten(-1, (2, -1)))
        tokens = torch.cat([summaries, encoded.last_hidden_state], dim=1)
        mask = torch.cat([encoded.attention_mask.new_ones(len(tokens), 2), encoded.attention_mask], dim=1)
        # Zeroed again, because the projection has a bias.
        memory = self.projection(tokens).masked_fill(~mask.unsqueeze(-1), 0.0)
        return {"encoder_outputs": BaseModelOutput(last_hidden_state=memory), "attention_mask": mask}

    def _checked_labels(self, labels: Tensor, batch: int, decoder_input_ids: Tensor | None) -> Tensor:
        length = checks.tensor("labels", labels).shape[-1] if labels.ndim else 0
        shape = (batch, length) if decoder_input_ids is None else tuple(decoder_input_ids.shape)
        if not length:
            raise ValueError(f"labels must have shape (batch, tokens) with tokens, got {tuple(labels.shape)}")
        return class_indices(labels, shape, self.decoder.config.vocab_size)

    def _token_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        flat = labels.flatten()
        per_token = nn.functional.cross_entropy(
            at_least_float32(logits).flatten(0, 1), flat, reduction="none", ignore_index=IGNORED
        )
        return mean_over_ranks(per_token, flat != IGNORED, self.training)


AutoModelForSeq2SeqLM.register(CLCRConfig, CLCRForConditionalGeneration)
