"""MMSA feature files and a text encoder, written by the tests."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BertConfig, BertModel, BertTokenizer

from multifuse import CLCRProcessor, FeatureInput

Splits = dict[str, dict[str, Any]]


def mmsa_splits(aligned: bool = False, seed: int = 0, count: int = 6) -> Splits:
    """Returns three small splits with every field of the layout; each has one -inf in audio."""
    random = np.random.default_rng(seed)
    splits: Splits = {}
    for name in ("train", "valid", "test"):
        num_tokens = {"text": 8, "audio": 8 if aligned else 11, "vision": 8 if aligned else 9}
        text_bert = np.zeros((count, 3, 8), np.float32)
        for row in range(count):
            num_real = int(random.integers(3, 9))
            text_bert[row, 0, :num_real] = [101, *random.integers(1000, 2000, num_real - 2), 102]
            text_bert[row, 1, :num_real] = 1
        split: dict[str, Any] = {
            "raw_text": np.array([f"THE FILM {row} WAS GOOD" for row in range(count)]),
            "text_bert": text_bert,
            "id": np.array([f"video{row}$_${row}" for row in range(count)]),
            "regression_labels": random.uniform(-3, 3, count).astype(np.float32),
            "classification_labels": np.zeros(count),
            "annotations": np.array(["Neutral"] * count),
        }
        for modality, width in (("text", 7), ("audio", 5), ("vision", 4)):
            values = random.normal(3, 2, (count, num_tokens[modality], width)).astype(np.float32)
            split[modality] = values
            lengths = text_bert[:, 1].sum(1)
            if not aligned and modality != "text":
                lengths = random.integers(1, num_tokens[modality] + 1, count)
                split[f"{modality}_lengths"] = lengths.tolist()
            values *= (np.arange(num_tokens[modality]) < lengths[:, None])[..., None]
        split["audio"][0, 0, 0] = -np.inf
        splits[name] = split
    return splits


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file in a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bert(folder: Path) -> Path:
    """Saves a small BERT and its tokenizer to a folder."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", *"0123456789"]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(folder)
    return folder


def save_unscaled(folder: Path, widths: Mapping[str, int]) -> None:
    """Saves the processor of a model of feature sequences, which leaves them as they are."""
    CLCRProcessor(
        {name: FeatureInput((0.0,) * width, (1.0,) * width) for name, width in widths.items()}
    ).save_pretrained(folder)
