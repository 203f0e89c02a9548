"""TextLevels: semantic levels of a text, as groups of a pretrained encoder's layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from multifuse._internal import checks


class TextLevels(nn.Module):
    """Averages the hidden layers of a Hugging Face encoder in L groups, from the first to the last layers.

    Args:
        model: any transformers encoder that returns ``hidden_states``; its config has ``hidden_size`` and
            ``num_hidden_layers``.
        num_levels: L, at most the number of hidden layers.

    Shape:
        ``forward(inputs, mask=None)``: token ids (B, T), or a mapping with ``input_ids`` and whatever else the encoder
        takes; mask (B, T), by default the mapping's ``attention_mask`` -> list of L tensors (B, T, hidden_size).

    Raises:
        ValueError: more levels than hidden layers, a mapping without ``input_ids``; ids that are no integers, or, where
            looking costs nothing (on a CPU, outside of compilation), that the vocabulary lacks.

    Source: CLCR (arXiv 2602.19605), semantic-hierarchy encoder: early, middle and late layers of BERT.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(vocab_size=100, hidden_size=32, num_hidden_layers=6, num_attention_heads=2)
        >>> levels = TextLevels(BertModel(BertConfig(intermediate_size=64, **sizes)), num_levels=3)
        >>> [tuple(level.shape) for level in levels(torch.randint(100, (4, 7)))]
        [(4, 7, 32), (4, 7, 32), (4, 7, 32)]
    """

    def __init__(self, model: nn.Module, num_levels: int = 3) -> None:
        super().__init__()
        config: Any = getattr(model, "config", None)
        self.num_levels = checks.positive_integer("num_levels", num_levels)
        if not hasattr(config, "hidden_size") or not hasattr(config, "num_hidden_layers"):
            raise ValueError(
                "model must have config.hidden_size and config.num_hidden_layers, as encoders of transformers do, "
                f"got a {type(model).__name__}"
            )
        layers = int(config.num_hidden_layers)
        if num_levels > layers:
            raise ValueError(f"num_levels must not exceed the encoder's {layers} hidden layers, got {num_levels}")
        self.model = model
        self.output_dim = int(config.hidden_size)
        self.group_sizes = [len(group) for group in torch.arange(layers).tensor_split(num_levels)]

    def extra_repr(self) -> str:
        return f"num_levels={self.num_levels}, group_sizes={self.group_sizes}"

    def forward(self, inputs: Tensor | Mapping[str, Tensor], mask: Tensor | None = None) -> list[Tensor]:
        hidden = self._hidden_layers(inputs, mask)
        groups, start = [], 0
        for size in self.group_sizes:
            groups.append(torch.stack(hidden[start : start + size]).mean(dim=0))
            start += size
        return groups

    def last_layer(self, inputs: Tensor | Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """Returns the last hidden layer (B, T, hidden_size)."""
        return self._hidden_layers(inputs, mask)[-1]

    def _hidden_layers(self, inputs: Tensor | Mapping[str, Tensor], mask: Tensor | None) -> tuple[Tensor, ...]:
        arguments = {"input_ids": inputs} if isinstance(inputs, Tensor) else dict(inputs)
        if "input_ids" not in arguments:
            raise ValueError(f"inputs must hold 'input_ids', got {sorted(arguments)}")
        mask = arguments.pop("attention_mask", None) if mask is None else mask
        arguments.pop("attention_mask", None)
        ids = checks.token_ids("input_ids", arguments["input_ids"], self.model)
        if mask is not None:
            mask = checks.token_mask("mask", mask, *ids.shape)
            # A sample without text still needs one key to attend to; the caller masks the output.
            empty = ~mask.any(dim=1)
            mask = mask | (empty.unsqueeze(-1) & (torch.arange(mask.shape[1], device=mask.device) == 0))
            mask = mask.long()
        hidden: tuple[Tensor, ...] = self.model(
            **arguments, attention_mask=mask, output_hidden_states=True
        ).hidden_states
        return hidden[1:]
