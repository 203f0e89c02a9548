"""TextInput: how a text becomes the token ids that a model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from multifuse._internal import checks
from multifuse._internal.plain import make_fields_plain


@dataclass(frozen=True)
class TextInput:
    """Splits a text into the tokens of a tokenizer.

    A text that is all capitals, as CMU-MOSI's transcripts are, is converted to lower case first.

    Args:
        max_tokens: longer texts are cut.

    Shape:
        A string and a Hugging Face tokenizer -> ids (T,) in int64.

    Raises:
        TypeError: not a string.

    Example:
        >>> from transformers import BertTokenizer
        >>> tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4})
        >>> TextInput()("GOOD", tokenizer)
        tensor([2, 4, 3])
    """

    kind: ClassVar[str] = "text"

    max_tokens: int = 128

    def __post_init__(self) -> None:
        make_fields_plain(self)
        checks.positive_integer("max_tokens", self.max_tokens)

    def token_ids(self, texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
        """Returns the token ids of each text, without padding."""
        limit = int(np.clip(tokenizer.model_max_length, 1, self.max_tokens))
        encoded: list[list[int]] = tokenizer([lowered(text) for text in texts], truncation=True, max_length=limit)[
            "input_ids"
        ]
        return encoded

    def __call__(self, value: Any, tokenizer: Any) -> Tensor:
        if not isinstance(value, str):
            raise TypeError(f"must be a string, got {type(value).__name__}")
        return torch.tensor(self.token_ids([value], tokenizer)[0], dtype=torch.long)


def lowered(text: str) -> str:
    """Converts a text to lower case if it is all capitals; keeps any other unchanged."""
    return text.lower() if text == text.upper() else text
