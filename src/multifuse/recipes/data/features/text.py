"""Token ids for a pretrained text encoder: the file's own if they are in its vocabulary, else from the raw text."""

import hashlib
from typing import Any

from multifuse.processing import TextInput
from multifuse.recipes.data.features.mmsa import MMSAFileError, MMSASplit

# SHA-256 of bert-base-uncased's 30,522 word pieces, one per line in the order of their ids.
BERT_VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def has_bert_vocabulary(tokenizer: Any) -> bool:
    """Returns whether a tokenizer has the vocabulary of bert-base-uncased, to which MMSA's ``text_bert`` ids belong."""
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    digest = hashlib.sha256("".join(f"{piece}\n" for piece in pieces).encode()).hexdigest()
    return digest == BERT_VOCABULARY


def token_ids(split: MMSASplit, tokenizer: Any, text_input: TextInput) -> list[list[int]]:
    """Returns the token ids of every utterance, without padding.

    Raises:
        MMSAFileError: if the split has neither ``text_bert`` in the tokenizer's vocabulary nor ``raw_text``.
    """
    if split.text_bert is not None and has_bert_vocabulary(tokenizer):
        ids, mask = split.text_bert[:, 0], split.text_bert[:, 1] > 0
        if (ids < 0).any() or (ids >= len(tokenizer)).any():
            raise MMSAFileError(f"text_bert must contain ids in [0, {len(tokenizer)}), got {ids.min()} to {ids.max()}")
        return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
    if split.raw_text is None:
        raise MMSAFileError("raw_text is missing, and text_bert is not in the text encoder's vocabulary")
    return text_input.token_ids(split.raw_text, tokenizer)
