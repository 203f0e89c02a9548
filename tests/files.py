"""MMSA feature files and a text encoder that the tests write themselves."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BertConfig, BertModel, BertTokenizer

Splits = dict[str, dict[str, Any]]


def mmsa_splits(aligned: bool = False, seed: int = 0, count: int = 6) -> Splits:
    """Three small splits with every field of the layout; audio holds one -inf in each."""
    random = np.random.default_rng(seed)
    splits: Splits = {}
    for name in ("train", "valid", "test"):
        total = {"text": 8, "audio": 8 if aligned else 11, "vision": 8 if aligned else 9}
        text_bert = np.zeros((count, 3, 8), np.float32)
        for row in range(count):
            real = int(random.integers(3, 9))
            text_bert[row, 0, :real] = [101, *random.integers(1000, 2000, real - 2), 102]
            text_bert[row, 1, :real] = 1
        split: dict[str, Any] = {
            "raw_text": np.array([f"THE FILM {row} WAS GOOD" for row in range(count)]),
            "text_bert": text_bert,
            "id": np.array([f"video{row}$_${row}" for row in range(count)]),
            "regression_labels": random.uniform(-3, 3, count).astype(np.float32),
            "classification_labels": np.zeros(count),
            "annotations": np.array(["Neutral"] * count),
        }
        for modality, width in (("text", 7), ("audio", 5), ("vision", 4)):
            values = random.normal(3, 2, (count, total[modality], width)).astype(np.float32)
            split[modality] = values
            lengths = text_bert[:, 1].sum(1)
            if not aligned and modality != "text":
                lengths = random.integers(1, total[modality] + 1, count)
                split[f"{modality}_lengths"] = lengths.tolist()
            values *= (np.arange(total[modality]) < lengths[:, None])[..., None]
        split["audio"][0, 0, 0] = -np.inf
        splits[name] = split
    return splits


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by their path below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def bert(folder: Path) -> Path:
    """A BERT and its tokenizer, as saved folders: small, real files."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", *"0123456789"]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(folder)
    return folder
